// ---- parallel coordinates: choices, recipe and metrics of every completed trial

const parallelTrials = trials.filter(trial => trial.state === "complete" && !["subnet", "repeat", "step"].includes(trial.kind));
const MOST_CHOICES = 14, MOST_METRICS = 7;
const parallelAxes = (() => {
  const weight = new Map();
  for (const found of data.importances) for (const [name, share] of Object.entries(found.shares)) weight.set(name, Math.max(weight.get(name) || 0, share));
  const varied = Object.entries(data.choices).filter(([name]) => new Set(parallelTrials.map(trial => trial.point[name])).size > 1);
  const kept = new Set(varied.map(([name]) => name).sort((a, b) => (weight.get(b) || 0) - (weight.get(a) || 0)).slice(0, MOST_CHOICES));
  const plain = text => { try { const value = JSON.parse(text); return typeof value === "object" && value !== null ? text : String(value); } catch (error) { return text; } };
  const axes = varied.filter(([name]) => kept.has(name)).map(([name, texts]) => {
    const used = texts.map((text, i) => [text, i]).filter(([, i]) => parallelTrials.some(trial => trial.point[name] === i));
    const place = new Map(used.map(([, i], k) => [i, k]));
    return {name, title: name, kind: "choice", values: used.map(([text]) => plain(text)), of: trial => place.get(trial.point[name]) ?? null};
  });
  const recipe = trial => trial.recipe ? trial.recipe.replace(/\([^)]*\)|\[[^\]]*\]/g, "").trim() : "none";
  const recipes = [...new Set(parallelTrials.map(recipe))].sort((a, b) => a.length - b.length);
  if (recipes.length > 1) {
    const shown = recipes.length > 10 ? [...recipes.slice(0, 9), "others"] : recipes;
    axes.push({name: "\u0000recipe", title: "recipe", kind: "choice", values: shown, of: trial => { const i = shown.indexOf(recipe(trial)); return i < 0 ? shown.length - 1 : i; }});
  }
  const goals = objectives.map(one => one.metric);
  const metrics = [...new Set([...goals, ...MAIN])].filter(name => new Set(parallelTrials.map(trial => metric(trial, name)).filter(value => value !== null)).size > 1)
    .filter(name => goals.includes(name) || parallelTrials.filter(trial => metric(trial, name) !== null).length > 1).slice(0, MOST_METRICS);
  for (const name of metrics) axes.push({name: `\u0000${name}`, title: label(name), metric: name, kind: "metric", of: trial => metric(trial, name)});
  return {axes, left: varied.length - kept.size};
})();

// The selected range of an axis, from 0 (bottom) to 1 (top).
const kept = new Map();
let redrawBrushes = () => {};
// In the address, the ends of a range are values, since positions move as trials are added.
const rememberRanges = axes => {
  const found = axes.filter(one => kept.has(one.name)).flatMap(one => {
    const [low, high] = kept.get(one.name);
    if (one.kind === "metric") return [[one.title, ...[low, high].map(t => Number(one.value(t).toPrecision(6)))]];
    const inside = one.values.filter((_, i) => (i + .5) / one.values.length >= low && (i + .5) / one.values.length <= high);
    return inside.length ? [[one.title, inside[0], inside[inside.length - 1]]] : [];
  });
  remember("keep", found.length ? JSON.stringify(found) : null);
};
const rangesOfAddress = (() => {
  try { return new Map(list(JSON.parse(view.get("keep") || "[]")).map(([title, ...ends]) => [title, ends])); } catch (error) { return new Map(); }
})();
const rangeOfAddress = one => {
  const ends = rangesOfAddress.get(one.title);
  if (!ends) return null;
  const size = one.kind === "choice" ? one.values.length : 1;
  const found = ends.map(end => one.kind === "choice" ? one.values.indexOf(end) : finite(end) ? one.position(end) : -1).sort((a, b) => a - b);
  if (found[0] < 0) return null;
  return one.kind === "choice" ? [found[0] / size, (found[1] + 1) / size] : found.map(t => Math.max(0, Math.min(1, t)));
};
const renderParallel = (host, room) => {
  const {axes} = parallelAxes;
  redrawBrushes = () => {};
  if (parallelTrials.length < 2 || axes.length < 2) return nothing(host, "Two completed trials that differ are needed.");
  const width = Math.max(room, axes.length * 84 + 40), height = 380, box = {left: 46, right: 46, top: 48, bottom: 34};
  const gap = (width - box.left - box.right) / (axes.length - 1), bottom = height - box.bottom, tall = bottom - box.top;
  const svg = draw("svg", {width, height, viewBox: `0 0 ${width} ${height}`, class: "parallel", role: "group", "aria-label": `Parallel coordinates of ${plural(parallelTrials.length, "completed trial")}: ${axes.map(one => one.title).join(", ")}`});
  svg.style.width = `${width}px`;
  for (const [i, one] of axes.entries()) {
    one.x = box.left + i * gap;
    if (one.kind === "choice") {
      const step = 1 / one.values.length;
      one.at = trial => { const place = one.of(trial); return place === null ? null : (place + .5) * step; };
      one.ticks = one.values.map((text, place) => ({at: (place + .5) * step, text}));
    } else {
      // Better values are at the top.
      const all = parallelTrials.map(one.of).filter(value => value !== null), way = sense(one.metric) < 0;
      const kind = isAccuracy(one.metric) ? lopsided(all) ? "error" : "linear" : isCost(one.metric) && all.every(value => value > 0) ? "log" : "linear";
      const scale = makeScale(kind, one.metric, all, way ? 1 : 0, way ? 0 : 1, {pad: .03, gap: .09});
      one.at = trial => { const value = one.of(trial); return value === null ? null : Math.max(0, Math.min(1, scale.at(value))); };
      one.position = scale.at;
      one.value = scale.value;
      one.ticks = scale.ticks;
    }
  }
  const down = t => bottom - t * tall;
  // Jitter, so that trials with the same choice do not cover each other.
  const lines = parallelTrials.map(trial => ({trial, at: axes.map(one => {
    const t = one.at(trial);
    if (t === null) return null;
    return [one.x, down(t) + (one.kind === "choice" ? ((trial.number * .618) % 1 - .5) * Math.min(14, .5 * tall / one.values.length) : 0)];
  })}));
  const route = at => {
    let d = "", before = null;
    for (const place of at) {
      if (place === null) { before = null; continue; }
      if (before === null) d += `M${place[0].toFixed(1)} ${place[1].toFixed(1)}`;
      else { const middle = ((before[0] + place[0]) / 2).toFixed(1); d += `C${middle} ${before[1].toFixed(1)} ${middle} ${place[1].toFixed(1)} ${place[0].toFixed(1)} ${place[1].toFixed(1)}`; }
      before = place;
    }
    return d;
  };
  const frontCount = lines.filter(one => one.trial.on_front).length;
  const layer = draw("g", {class: "lines", style: `--o:${Math.min(.55, 2.4 / Math.sqrt(lines.length)).toFixed(3)};--f:${Math.min(.95, 4 / Math.sqrt(frontCount || 1)).toFixed(3)}`}), top = draw("g", {"pointer-events": "none"});
  lines.sort((a, b) => a.trial.on_front - b.trial.on_front);
  for (const one of lines) {
    one.node = draw("path", {class: `way g-${one.trial.group}${one.trial.on_front ? " front" : ""}`, d: route(one.at), "data-number": one.trial.number});
    layer.append(one.node);
  }
  svg.append(layer, top);
  const brushes = draw("g");
  const describeRange = one => {
    const range = kept.get(one.name), count = parallelTrials.filter(matches).length;
    if (!range) return `${one.title}: all`;
    const inside = one.ticks.filter(tick => tick.at >= range[0] && tick.at <= range[1]).map(tick => tick.text);
    const values = parallelTrials.filter(trial => { const t = one.at(trial); return t !== null && t >= range[0] && t <= range[1]; }).map(one.of);
    const ends = values.length ? [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))] : null;
    const text = one.kind === "choice" ? inside.join(", ") || "nothing" : ends ? `${show(one.metric, ends[0])} to ${show(one.metric, ends[1])}` : "nothing";
    return `${one.title}: ${text}; ${plural(count, "trial")} kept`;
  };
  const setRange = (one, range, {tell = false} = {}) => {
    if (range && range[1] - range[0] > .995) range = null;
    if (range) {
      kept.set(one.name, range);
      ranges.set(one.name, trial => { const t = one.at(trial); return parallelTrials.includes(trial) && t !== null && t >= range[0] - 1e-9 && t <= range[1] + 1e-9; });
    } else { kept.delete(one.name); ranges.delete(one.name); }
    rangesChanged();
    one.handle.setAttribute("aria-valuetext", describeRange(one));
    one.handle.setAttribute("aria-valuenow", String(range ? Math.round(50 * (range[0] + range[1])) : 50));
    if (tell) say(describeRange(one));
  };
  for (const one of axes) {
    const group = draw("g", {transform: `translate(${one.x} 0)`});
    group.append(draw("line", {class: "pole", y1: box.top, y2: bottom}));
    const room = Math.max(8, Math.floor((gap - 12) / 6.2));
    for (const tick of one.ticks) {
      // A long recipe wraps between its stages.
      const rows = [""];
      for (const piece of tick.text.split(/(?<=, )/)) if (rows[rows.length - 1] && (rows[rows.length - 1] + piece).length > room) rows.push(piece); else rows[rows.length - 1] += piece;
      group.append(draw("text", {class: "tick", y: down(tick.at) + 4 - 6.5 * (rows.length - 1), "aria-hidden": "true"}, rows.map((row, i) => draw("tspan", {x: 6, dy: i ? 13 : null}, cut(row.trim(), room)))));
    }
    const way = one.metric ? sense(one.metric) : 0;
    group.append(draw("text", {class: "title", y: 16, "text-anchor": "middle", "aria-hidden": "true"}, cut(one.title, Math.max(8, Math.floor(gap / 6.6))), draw("title", {}, one.title)),
      draw("text", {class: "hint", y: 31, "text-anchor": "middle", "aria-hidden": "true"}, way ? "↑ better" : ""));
    one.handle = draw("rect", {class: "handle", x: -15, y: box.top - 4, width: 30, height: tall + 8, rx: 4, tabindex: 0, role: "slider", "aria-orientation": "vertical", "data-axis": one.title,
      "aria-label": `Range of ${one.title}. Up and down arrows set and move it, with Shift its upper end, Delete clears it.`, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": 50, "aria-valuetext": `${one.title}: all`});
    group.append(one.handle);
    let from = null, moved = false;
    const t = event => { const edge = svg.getBoundingClientRect(); return Math.max(0, Math.min(1, (bottom - (event.clientY - edge.top)) / tall)); };
    one.handle.addEventListener("pointerdown", event => { from = t(event); moved = false; one.handle.setPointerCapture(event.pointerId); event.preventDefault(); one.handle.focus({preventScroll: true}); });
    one.handle.addEventListener("pointermove", event => {
      if (from === null) return;
      const to = t(event);
      if (Math.abs(to - from) * tall > 5) { moved = true; hideTip(); setRange(one, [Math.min(from, to), Math.max(from, to)]); }
    });
    one.handle.addEventListener("pointerup", () => {
      if (from === null) return;
      from = null;
      if (!moved) setRange(one, null);
      rememberRanges(axes);
      say(describeRange(one));
    });
    one.handle.addEventListener("keydown", event => {
      const step = one.kind === "choice" ? 1 / one.values.length : .05, range = kept.get(one.name);
      const way = {ArrowUp: 1, ArrowDown: -1}[event.key];
      if (way) {
        if (!range) setRange(one, one.kind === "choice" ? (way > 0 ? [1 - step, 1] : [0, step]) : way > 0 ? [.75, 1] : [0, .25], {tell: true});
        else if (event.shiftKey) setRange(one, [range[0], Math.max(range[0] + step, Math.min(1, range[1] + way * step))], {tell: true});
        else { const by = Math.max(-range[0], Math.min(1 - range[1], way * step)); setRange(one, [range[0] + by, range[1] + by], {tell: true}); }
      } else if (["Delete", "Backspace", "Escape"].includes(event.key) && range) setRange(one, null, {tell: true});
      else return;
      rememberRanges(axes);
      event.preventDefault();
    });
    svg.append(group);
  }
  svg.append(brushes);
  redrawBrushes = () => {
    brushes.replaceChildren(...axes.filter(one => kept.has(one.name)).map(one => {
      const [low, high] = kept.get(one.name);
      return draw("rect", {class: "brush", x: one.x - 7, width: 14, y: down(high), height: Math.max(2, (high - low) * tall), rx: 3, "pointer-events": "none"});
    }));
    const any = ranges.size > 0, count = any ? parallelTrials.filter(matches).length : parallelTrials.length;
    for (const one of lines) one.node.classList.toggle("off", any && !matches(one.trial));
    const strong = lines.filter(one => one.trial.number === selected || one.trial.number === pointed);
    layer.classList.toggle("busy", strong.length > 0);
    top.replaceChildren(...strong.map(one => draw("path", {class: `strong g-${one.trial.group}`, d: route(one.at), "data-strong": one.trial.number})));
    byId("kept").textContent = any ? `${plural(count, "trial")} of ${parallelTrials.length} kept` : "";
    byId("clear-ranges").disabled = !any;
  };
  const nearest = event => {
    const edge = svg.getBoundingClientRect(), px = event.clientX - edge.left, py = event.clientY - edge.top;
    const i = Math.floor((px - box.left) / gap);
    if (i < 0 || i >= axes.length - 1) return null;
    let best = null, least = 14;
    for (const one of lines) {
      const [a, b] = [one.at[i], one.at[i + 1]];
      if (!a || !b || !matches(one.trial)) continue;
      // Height of a cubic curve with horizontal ends.
      let low = 0, high = 1;
      const w = (px - a[0]) / gap;
      for (let k = 0; k < 16; k++) { const s = (low + high) / 2, x = 1.5 * s * (1 - s) ** 2 + 1.5 * s * s * (1 - s) + s ** 3; if (x < w) low = s; else high = s; }
      const s = (low + high) / 2, y = a[1] + (b[1] - a[1]) * (3 * s * s - 2 * s ** 3), distance = Math.abs(y - py);
      if (distance < least) { best = one; least = distance; }
    }
    return best;
  };
  svg.addEventListener("pointermove", event => {
    if (event.buttons || event.target.classList.contains("handle")) { point(null); hideTip(); return; }
    const one = nearest(event);
    svg.style.cursor = one ? "pointer" : "";
    point(one ? one.trial.number : null);
    if (one) showTip(describe(one.trial), event.clientX, event.clientY); else hideTip();
  });
  svg.addEventListener("pointerleave", () => { point(null); hideTip(); });
  svg.addEventListener("click", event => {
    if (event.target.classList.contains("handle")) return;
    const one = nearest(event);
    if (one) select(one.trial.number, {scroll: true});
  });
  host.replaceChildren(svg);
  for (const one of axes) {
    const range = rangeOfAddress(one);
    if (range) setRange(one, range);
  }
  rangesOfAddress.clear();
  redrawBrushes();
};
views.push(() => redrawBrushes());
onRanges.push(() => redrawBrushes());
byId("clear-ranges").addEventListener("click", () => { kept.clear(); ranges.clear(); remember("keep", null); rangesChanged(); redrawParallel(); say("All ranges cleared"); });
byId("parallel-note").textContent = [
  "Each line is a complete trial: choices, compression and metrics; better values are at the top. Drag along an axis, or focus it and press the arrow keys, to select a range; the front and the table show only trials in the range.",
  parallelAxes.left > 0 ? `The ${MOST_CHOICES} most important of ${MOST_CHOICES + parallelAxes.left} choices are drawn.` : "",
].filter(Boolean).join(" ");
