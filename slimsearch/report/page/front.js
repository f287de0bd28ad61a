// ---- the front

const names = [...new Set(trials.flatMap(trial => Object.keys(trial.metrics).filter(name => metric(trial, name) !== null)))];
const ordered = [...MAIN.filter(name => names.includes(name)), ...names.filter(name => !MAIN.includes(name)).sort()];
const axis = {x: null, y: null};
let third = "";
const hiddenGroups = new Set((view.get("hide") || "").split(",").filter(Boolean));
let zoomed = view.get("zoom") === "1", placed = [];

const values = name => trials.map(trial => metric(trial, name)).filter(value => value !== null);
const canLog = name => isAccuracy(name) || values(name).every(value => value > 0);
// A few trials that learned nothing would compress a linear scale.
const lopsided = all => {
  const sorted = [...all].sort((a, b) => a - b), most = sorted[sorted.length - 1];
  return most - sorted[sorted.length >> 1] < .15 * (most - sorted[0]);
};
const setAxis = (which, name) => {
  const able = canLog(name);
  axis[which] = {name, log: able && (isCost(name) || isAccuracy(name) && lopsided(values(name))), able};
};
const kindOf = one => !one.log ? "linear" : isAccuracy(one.name) ? "error" : "log";

// Members of the front that are not dominated on the two axes shown.
const notDominated = points => {
  const [dx, dy] = [sense(axis.x.name), sense(axis.y.name)];
  if (!dx || !dy || axis.x.name === axis.y.name) return [];
  const sorted = points.filter(one => runs.length ? one.trial.on_own_front : one.trial.on_front)
    .sort((a, b) => dx * (b.x - a.x) || dy * (b.y - a.y));
  const found = [];
  for (const one of sorted)
    if (!found.length || dy * one.y > dy * found[found.length - 1].y) found.push(one);
  return found;
};
// One line for each run: [its group, its front]; of one run, without a group.
const fronts = points => runs.length
  ? runs.map((run, i) => [`run-${i}`, notDominated(points.filter(one => one.trial.run === i))])
  : [[null, notDominated(points)]];
const ancestors = trial => {
  const found = [];
  // Guard against a cycle of parents in a record that was edited by hand.
  while (trial && byNumber.has(trial.parent) && found.length < 50) { found.push([byNumber.get(trial.parent), trial]); trial = byNumber.get(trial.parent); }
  return found;
};

// Area of a mark for the third metric, logarithmic if all values are above 0.
const sizer = () => {
  const all = third ? values(third) : [];
  if (!all.length) return null;
  const log = isCost(third) && all.every(value => value > 0), forward = log ? Math.log : value => value;
  const ends = all.map(forward), low = ends.reduce((a, b) => Math.min(a, b)), high = ends.reduce((a, b) => Math.max(a, b));
  const of = value => high > low ? Math.sqrt(.6 + 2.6 * (forward(value) - low) / (high - low)) : 1;
  const middle = log ? Math.exp((low + high) / 2) : (low + high) / 2;
  return {of, marks: high > low ? [log ? Math.exp(low) : low, middle, log ? Math.exp(high) : high] : []};
};

let overlay = null;
const renderScatter = (host, width) => {
  placed = [];
  overlay = null;
  byId("outside").textContent = "";
  if (!axis.x) return nothing(host, trials.length ? "No trial has been measured yet." : "No trial has started yet.");
  const all = trials.map(trial => ({trial, x: metric(trial, axis.x.name), y: metric(trial, axis.y.name)}))
    .filter(one => one.x !== null && one.y !== null);
  const shown = all.filter(one => !hiddenGroups.has(one.trial.group));
  if (!all.length) return nothing(host, "No trial has both of these metrics.");
  const front = all.filter(one => one.trial.on_front);
  const span = zoomed && front.length ? front : all;
  const height = Math.round(Math.max(320, Math.min(520, width * .64, innerHeight * .48)));
  const box = {left: 58, right: 20, top: 34, bottom: 48};
  const options = {pad: zoomed && front.length ? .3 : .06};
  const x = makeScale(kindOf(axis.x), axis.x.name, span.map(one => one.x), box.left, width - box.right, {...options, gap: 52});
  const y = makeScale(kindOf(axis.y), axis.y.name, span.map(one => one.y), height - box.bottom, box.top, {...options, gap: 30});
  const title = (one, arrows) => {
    const way = sense(one.name);
    const scale = !one.log ? "" : isAccuracy(one.name) ? ", log of the error" : ", log scale";
    return [label(one.name) + scale, way ? draw("tspan", {class: "hint"}, `  ${arrows[way > 0 ? 1 : 0]}`) : null];
  };
  const svg = draw("svg", {height, viewBox: `0 0 ${width} ${height}`, class: runs.length ? "of-runs" : null, role: "listbox", "aria-label":
    `${label(axis.y.name)} against ${label(axis.x.name)}: ${plural(shown.length, "trial")}. Arrow keys move between trials, Enter selects.`});
  svg.append(frame(width, height, box, x, y, {x: title(axis.x, ["← better", "better →"]), y: title(axis.y, ["↓ better", "↑ better"])}));

  const captions = draw("g", {"aria-hidden": "true"});
  for (const limit of limits) {
    if (limit.name === axis.x.name && x.inside(limit.bound)) {
      const at = x.at(limit.bound), flip = at > width - 130;
      svg.append(draw("line", {class: "limit", x1: at, x2: at, y1: box.top, y2: height - box.bottom, "aria-hidden": "true"}));
      captions.append(draw("text", {class: "limit-text", x: at + (flip ? -6 : 6), y: height - box.bottom - 8, "text-anchor": flip ? "end" : "start"}, `limit ${show(limit.name, limit.bound)}`));
    }
    if (limit.name === axis.y.name && y.inside(limit.bound)) {
      const at = y.at(limit.bound);
      svg.append(draw("line", {class: "limit", x1: box.left, x2: width - box.right, y1: at, y2: at, "aria-hidden": "true"}));
      captions.append(draw("text", {class: "limit-text", x: width - box.right - 4, y: at - 5, "text-anchor": "end"}, `limit ${show(limit.name, limit.bound)}`));
    }
  }

  placed = shown.filter(one => x.inside(one.x) && y.inside(one.y))
    .map(one => ({...one, px: x.at(one.x), py: y.at(one.y)}));
  const away = shown.length - placed.length;
  byId("outside").textContent = away ? `${plural(away, "trial lies", "trials lie")} outside this view.` : "";
  for (const [group, lead] of fronts(placed)) {
    if (lead.length < 2) continue;
    const path = [[lead[0].px, lead[0].py]];
    for (let i = 1; i < lead.length; i++) {
      // A corner between two members has the worse of both values.
      const [a, b] = [lead[i - 1], lead[i]];
      path.push([b.px, a.py], [b.px, b.py]);
    }
    svg.append(draw("path", {class: group ? `step g-${group}` : "step", d: polyline(path), "aria-hidden": "true"}));
  }

  const layer = draw("g"), sizes = sizer();
  const sizeOf = trial => !sizes ? 1 : metric(trial, third) === null ? .6 : sizes.of(metric(trial, third));
  byId("sizes")?.replaceChildren(...(sizes ? [`${label(third)}: `, ...sizes.marks.map(value => el("span", {class: "size"},
    draw("svg", {width: 22, height: 22, viewBox: "-11 -11 22 22", "aria-hidden": "true", class: "g-other"}, shape("search", sizes.of(value))),
    show(third, value)))] : []));
  placed.sort((a, b) => a.trial.on_front - b.trial.on_front || sizeOf(b.trial) - sizeOf(a.trial) || a.px - b.px || a.trial.number - b.trial.number);
  for (const one of placed) {
    const {trial} = one;
    const [low, high] = spreadOf(trial);
    const size = sizeOf(trial);
    const spread = low !== null && high !== null && low > 0 && trial.finalist;
    one.node = draw("g", {
      class: `point g-${trial.group}${trial.on_front ? " front" : ""}`, transform: `translate(${one.px.toFixed(1)} ${one.py.toFixed(1)})`,
      role: "option", tabindex: -1, "aria-selected": "false", "aria-label": words(trial), "data-number": trial.number,
    },
    spread && axis.x.name === "latency_ms" ? draw("line", {class: "whisker", x1: x.at(low) - one.px, x2: x.at(high) - one.px, y1: 0, y2: 0}) : null,
    spread && axis.y.name === "latency_ms" ? draw("line", {class: "whisker", y1: y.at(low) - one.py, y2: y.at(high) - one.py, x1: 0, x2: 0}) : null,
    trial.on_front ? draw("circle", {class: "ring", r: Math.max(9.5, 6.2 * size + 3)}) : null, shape(trial.group, size));
    layer.append(one.node);
  }
  svg.append(layer);

  // Numbers of the members of the front, if they fit.
  const taken = placed.map(one => [one.px - 5, one.py - 5, one.px + 5, one.py + 5]);
  const numbers = draw("g", {"aria-hidden": "true"});
  for (const one of placed.filter(one => one.trial.on_front)) {
    const text = String(ownNumber(one.trial)), wide = 7 * text.length;
    for (const [dx, dy] of [[-wide - 12, -6], [12, -6], [-wide - 12, 16], [12, 16], [-wide / 2, -14], [-wide / 2, 23]]) {
      const [left, base] = [one.px + dx, one.py + dy];
      const area = [left - 3, base - 10, left + wide + 3, base + 2];
      if (area[0] < box.left || area[2] > width - 2 || area[1] < box.top - 14 || area[3] > height - box.bottom) continue;
      if (taken.some(other => area[0] < other[2] && area[2] > other[0] && area[1] < other[3] && area[3] > other[1])) continue;
      taken.push(area);
      numbers.append(draw("text", {class: "number", x: left, y: base}, text));
      break;
    }
  }
  svg.append(numbers, captions);
  overlay = draw("g", {"aria-hidden": "true", "pointer-events": "none"});
  svg.append(overlay);

  const byX = [...placed].sort((a, b) => a.px - b.px || a.py - b.py || a.trial.number - b.trial.number);
  const first = byX.find(one => one.trial.number === selected) || byX.find(one => one.trial.on_front) || byX[0];
  if (first) first.node.setAttribute("tabindex", "0");
  const tipAt = one => {
    const edge = svg.getBoundingClientRect();
    showTip(describe(one.trial), edge.left + one.px, edge.top + one.py);
  };
  const nearest = event => {
    const edge = svg.getBoundingClientRect(), [px, py] = [event.clientX - edge.left, event.clientY - edge.top];
    let best = null, least = 22 ** 2;
    for (const one of placed) {
      const distance = (one.px - px) ** 2 + (one.py - py) ** 2;
      // Of equally near marks, the topmost.
      if (distance <= least) { best = one; least = distance; }
    }
    return best;
  };
  const moveTo = one => {
    for (const other of placed) other.node.setAttribute("tabindex", other === one ? "0" : "-1");
    one.node.focus();
  };
  const under = event => {
    const node = event.target.closest && event.target.closest("[data-number]");
    return node ? placed.find(one => one.node === node) : null;
  };
  svg.addEventListener("pointermove", event => {
    const one = nearest(event);
    svg.style.cursor = one ? "pointer" : "";
    point(one ? one.trial.number : null);
    if (one) tipAt(one); else hideTip();
  });
  svg.addEventListener("pointerleave", () => { point(null); hideTip(); });
  svg.addEventListener("click", event => {
    // Clicks of assistive technology have no coordinates.
    const one = event.clientX || event.clientY ? nearest(event) : under(event);
    if (!one) return;
    select(one.trial.number, {scroll: true});
    tipAt(one);
  });
  svg.addEventListener("focusin", event => {
    const one = under(event);
    if (!one || !one.node.matches(":focus-visible")) return;
    point(one.trial.number);
    tipAt(one);
  });
  svg.addEventListener("focusout", () => { point(null); hideTip(); });
  svg.addEventListener("keydown", event => {
    const one = under(event), i = byX.indexOf(one);
    if (!one) return;
    const steps = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1};
    if (event.key in steps) moveTo(byX[Math.max(0, Math.min(byX.length - 1, i + steps[event.key]))]);
    else if (event.key === "Home") moveTo(byX[0]);
    else if (event.key === "End") moveTo(byX[byX.length - 1]);
    else if (event.key === "Enter" || event.key === " ") select(one.trial.number, {scroll: true});
    else return;
    event.preventDefault();
  });
  const held = host.contains(document.activeElement) ? document.activeElement.getAttribute("data-number") : null;
  host.replaceChildren(svg);
  if (held !== null) { const one = placed.find(other => String(other.trial.number) === held); if (one) moveTo(one); }
  overlayScatter();
};

const overlayScatter = () => {
  if (!overlay) return;
  const at = new Map(placed.map(one => [one.trial.number, one]));
  const nodes = [], done = new Set();
  const arrow = ([from, to]) => {
    const [a, b] = [at.get(from.number), at.get(to.number)];
    if (!a || !b || done.has(`${from.number} ${to.number}`)) return;
    done.add(`${from.number} ${to.number}`);
    const [dx, dy] = [b.px - a.px, b.py - a.py], length = Math.hypot(dx, dy);
    if (length < 26) return;
    const [ux, uy] = [dx / length, dy / length];
    const [sx, sy, ex, ey] = [a.px + 12 * ux, a.py + 12 * uy, b.px - 13 * ux, b.py - 13 * uy];
    nodes.push(
      draw("path", {class: "arrow", d: `M${sx} ${sy}L${ex - 5 * ux} ${ey - 5 * uy}`}),
      draw("path", {class: "head", d: `M${ex} ${ey}L${ex - 8 * ux - 4 * uy} ${ey - 8 * uy + 4 * ux}L${ex - 8 * ux + 4 * uy} ${ey - 8 * uy - 4 * ux}Z`}));
  };
  for (const [number, kind] of [[selected, "halo"], [pointed, "halo hover"]]) {
    const trial = number === null ? null : byNumber.get(number);
    if (!trial) continue;
    ancestors(trial).forEach(arrow);
    (children.get(number) || []).forEach(child => arrow([trial, child]));
    const one = at.get(number);
    if (one && !(kind !== "halo" && number === selected)) nodes.push(draw("circle", {class: kind, cx: one.px, cy: one.py, r: 13}));
  }
  for (const one of placed) {
    one.node.setAttribute("aria-selected", String(one.trial.number === selected));
    one.node.classList.toggle("off", !matches(one.trial));
  }
  overlay.replaceChildren(...nodes);
};
views.push(overlayScatter);
onRanges.push(overlayScatter);

let redrawScatter = () => {};
if (ordered.length) {
  const pick = (wanted, other) => ordered.includes(wanted) ? wanted : ordered.find(name => name !== other) || ordered[0];
  // The objectives first.
  const goals = objectives.map(one => one.metric).filter(name => ordered.includes(name));
  setAxis("y", pick(goals.includes(leading) || !goals.length ? leading : goals[0], "latency_ms"));
  setAxis("x", pick(goals.includes("latency_ms") || goals.length < 2 ? "latency_ms" : goals.find(name => name !== axis.y.name), axis.y.name));
  const usual = {x: {...axis.x}, y: {...axis.y}};
  const rememberAxis = which => {
    remember(which, axis[which].name === usual[which].name ? null : axis[which].name);
    const {log} = axis[which];
    setAxis(which, axis[which].name);
    remember(`${which}log`, log === axis[which].log ? null : Number(log));
    axis[which].log = log;
  };
  for (const which of ["x", "y"]) {
    if (ordered.includes(view.get(which))) setAxis(which, view.get(which));
    if (view.has(`${which}log`)) axis[which].log = axis[which].able && view.get(`${which}log`) === "1";
  }
  const control = (which, text) => {
    const option = name => el("option", {value: name}, label(name));
    const extra = ordered.filter(name => !MAIN.includes(name));
    const choose = el("select", {"aria-label": `${text} axis`}, ordered.filter(name => MAIN.includes(name)).map(option),
      extra.length ? el("optgroup", {label: "also recorded"}, extra.map(option)) : null);
    const log = el("input", {type: "checkbox"});
    const update = () => { choose.value = axis[which].name; log.checked = axis[which].log; log.disabled = !axis[which].able; };
    choose.addEventListener("change", () => { setAxis(which, choose.value); rememberAxis(which); update(); redrawScatter(); });
    log.addEventListener("change", () => { axis[which].log = log.checked; rememberAxis(which); redrawScatter(); });
    update();
    return el("div", {class: "group"}, el("label", {}, el("span", {class: "name"}, text), choose), el("label", {}, log, "log"));
  };
  const others = [...objectives.map(one => one.metric), ...MAIN].filter(name => ordered.includes(name) && name !== axis.x.name && name !== axis.y.name);
  const usualThird = others[0] || "";
  third = view.get("area") === "none" ? "" : ordered.includes(view.get("area")) ? view.get("area") : usualThird;
  const extra = ordered.filter(name => !MAIN.includes(name)), choice = name => el("option", {value: name}, label(name));
  const thirdControl = el("select", {"aria-label": "Size of the marks"}, el("option", {value: ""}, "none"),
    ordered.filter(name => MAIN.includes(name)).map(choice), extra.length ? el("optgroup", {label: "also recorded"}, extra.map(choice)) : null);
  thirdControl.value = third;
  thirdControl.addEventListener("change", () => { third = thirdControl.value; remember("area", third === usualThird ? null : third || "none"); redrawScatter(); });
  const zoom = el("input", {type: "checkbox"});
  zoom.checked = zoomed;
  zoom.addEventListener("change", () => { zoomed = zoom.checked; remember("zoom", zoomed ? 1 : null); redrawScatter(); });
  if (!trials.some(trial => trial.on_front)) zoom.disabled = true;
  byId("axes").append(control("x", "Across"), control("y", "Up"), el("label", {}, el("span", {class: "name"}, "Area"), thirdControl), el("label", {}, zoom, "Zoom to the front"));
  const present = Object.keys(GROUPS).filter(group => trials.some(trial => trial.group === group && ordered.some(name => metric(trial, name) !== null)));
  byId("legend").append(...present.map(group => {
    const count = trials.filter(trial => trial.group === group).length;
    const toggle = el("button", {type: "button", "aria-pressed": String(!hiddenGroups.has(group))}, mark(group), `${GROUPS[group]} (${count})`);
    toggle.addEventListener("click", () => {
      if (!hiddenGroups.delete(group)) hiddenGroups.add(group);
      toggle.setAttribute("aria-pressed", String(!hiddenGroups.has(group)));
      remember("hide", [...hiddenGroups].join(","));
      redrawScatter();
    });
    return toggle;
  }));
  if (trials.some(trial => trial.on_front)) byId("legend").append(el("span", {class: "key"},
    draw("svg", {width: 34, height: 22, viewBox: "0 0 34 22", "aria-hidden": "true"}, draw("path", {class: "step", d: "M1 19H17V3H33"}), draw("circle", {class: "ring", cx: 17, cy: 11, r: 8, style: "fill:var(--panel)"})),
    "on the front"));
  byId("legend").append(el("span", {class: "key sizes", id: "sizes"}));
  byId("front-note").textContent = objectives.length
    ? `${runs.length ? "Outlined: not dominated by any trial of these runs" : "Outlined: not dominated"} in ${objectives.map(one => one.metric).join(", ")}. ${runs.length ? "Each line joins trials of a run that" : "The line joins trials that"} are not dominated on the two axes shown${third ? "; the area of a mark is a third metric" : ""}.${names.includes("latency_low_ms") ? " Whiskers: the 95% interval of a finalist's latency." : ""}` : "";
} else {
  byId("axes").remove();
  byId("legend").remove();
}
