// ---- history

const stretch = byId("stretch");
const numbers = trials.map(trial => trial.number);
const span = [Math.min(...numbers), Math.max(...numbers)];
const searched = trials.filter(trial => trial.kind === "search"), compressed = trials.filter(trial => trial.kind === "compression");
const ended = trial => trial.bar ? trial.bar[1] : null;
const longest = trials.reduce((most, trial) => trial.bar ? Math.max(most, trial.bar[1]) : most, 0);
const following = searched.length && compressed.length && Math.max(...searched.map(one => one.number)) < Math.min(...compressed.map(one => one.number));
let along = view.get("along") === "seconds" ? "seconds" : "trials";
stretch.checked = view.get("stretch") !== "0";
for (const choice of document.querySelectorAll("input[name=along]")) choice.checked = choice.value === along;
const phaseAt = () => {
  if (!following) return null;
  if (along === "trials") return Math.min(...compressed.map(one => one.number)) - .5;
  const starts = compressed.filter(one => one.bar).map(one => one.bar[0]);
  return starts.length ? Math.min(...starts) : null;
};
const kindOfScale = name => isAccuracy(name) && stretch.checked ? "error" : "linear";

const strip = ({title, key, dots = () => [], scaleOf, explain}) => {
  let show = () => {};
  const render = (host, width) => {
    show = () => {};
    const series = list((data.history[along] || {})[key]).map(([place, value, trial]) => ({place, value, trial}));
    if (!series.length) return nothing(host, "No trial is complete yet.");
    const height = 216, box = {left: 58, right: 16, top: 20, bottom: 44}, end = series[series.length - 1].place;
    const x = along === "trials" ? wholeScale(Math.min(span[0], series[0].place), Math.max(span[1], end), box.left + 8, width - box.right - 8)
      : timeScale(Math.max(longest, end), box.left, width - box.right - 8);
    const y = scaleOf(series.map(one => one.value), height - box.bottom, box.top);
    const svg = draw("svg", {height, viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img",
      "aria-label": `${title}: ${explain(series[series.length - 1])} at the end. Arrow keys move along its changes, Enter selects.`});
    svg.append(frame(width, height, box, x, y, {x: [along === "trials" ? "Trial" : `Running time, ${x.unit}`]}));
    const bottom = height - box.bottom, phase = phaseAt();
    if (phase !== null) {
      const at = x.at(phase), flip = at > width - box.right - 78;
      svg.append(draw("line", {class: "phase", x1: at, x2: at, y1: 3, y2: bottom}),
        draw("text", {x: at + (flip ? -5 : 5), y: 11, "text-anchor": flip ? "end" : "start"}, flip ? "compression →" : "compression"));
    }
    if (along === "seconds") for (const moment of list(data.history.breaks)) {
      svg.append(draw("line", {class: "pause", x1: x.at(moment), x2: x.at(moment), y1: box.top, y2: bottom}));
    }
    for (const dot of dots()) svg.append(draw("circle", {class: `dot g-${dot.group}`, cx: x.at(dot.place), cy: y.at(dot.value), r: 2.4}));
    const path = [];
    series.forEach((one, i) => {
      if (i) path.push([x.at(one.place), y.at(series[i - 1].value)]);
      path.push([x.at(one.place), y.at(one.value)]);
    });
    if (key === "volume") svg.append(draw("path", {class: "area", d: `${polyline([...path, [path[path.length - 1][0], bottom], [path[0][0], bottom]])}Z`}));
    svg.append(draw("path", {class: "line", d: polyline(path)}));
    if (series.length === 1) svg.append(draw("circle", {class: "marker", cx: path[0][0], cy: path[0][1], r: 4}));
    const cursor = draw("g", {"pointer-events": "none"});
    svg.append(cursor);
    const marked = series.filter(one => finite(one.trial));
    show = () => {
      const one = pointed === null ? null : marked.find(other => other.trial === pointed);
      cursor.replaceChildren(...(one ? [
        draw("line", {class: "cursor", x1: x.at(one.place), x2: x.at(one.place), y1: box.top, y2: bottom}),
        draw("circle", {class: "marker", cx: x.at(one.place), cy: y.at(one.value), r: 4.5})] : []));
    };
    let i = marked.length - 1;
    const when = one => `since trial ${one.trial}${along === "seconds" ? `, ${duration(one.place)} into the run` : ""}`;
    const go = index => {
      i = Math.max(0, Math.min(marked.length - 1, index));
      const one = marked[i], edge = svg.getBoundingClientRect();
      point(one.trial);
      showTip([el("p", {}, el("b", {}, explain(one))), el("p", {class: "why"}, when(one))], edge.left + x.at(one.place), edge.top + y.at(one.value));
    };
    svg.addEventListener("pointermove", event => {
      // The last change before the pointer.
      const px = event.clientX - svg.getBoundingClientRect().left;
      let last = 0;
      marked.forEach((one, index) => { if (x.at(one.place) <= px + 1) last = index; });
      go(last);
    });
    const leave = () => { point(null); hideTip(); };
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("blur", leave);
    svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) go(i); });
    const choose = () => { if (byNumber.has(marked[i].trial)) select(marked[i].trial, {scroll: true}); };
    svg.addEventListener("click", choose);
    svg.addEventListener("keydown", event => {
      if (event.key === "ArrowRight") go(i + 1); else if (event.key === "ArrowLeft") go(i - 1);
      else if (event.key === "Home") go(0); else if (event.key === "End") go(marked.length - 1);
      else if (event.key === "Enter" || event.key === " ") choose();
      else return;
      if (event.key !== "Enter" && event.key !== " ") say(`${explain(marked[i])} ${when(marked[i])}`);
      event.preventDefault();
    });
    host.replaceChildren(svg);
    show();
  };
  views.push(() => show());
  return render;
};

const first = data.history.metric;
const renderVolume = strip({
  title: "Hypervolume", key: "volume", explain: one => `Hypervolume ${one.value.toFixed(3)}`,
  scaleOf: (all, from, to) => makeScale("linear", "hypervolume", all, from, to, {zero: true, gap: 22}),
});
byId("best-title").textContent = `Best ${label(first).replace(/^./, letter => letter.toLowerCase())} so far`;
const bestDots = () => trials.filter(trial => trial.state === "complete" && metric(trial, first) !== null)
  .map(trial => ({place: along === "trials" ? trial.number : ended(trial), value: metric(trial, first), group: trial.group})).filter(dot => dot.place !== null);
const renderBest = strip({
  title: byId("best-title").textContent, key: "best", dots: bestDots, explain: one => `Best ${show(first, one.value)}`,
  scaleOf: (all, from, to) => {
    const every = [...all, ...bestDots().map(dot => dot.value)];
    return makeScale(kindOfScale(first), first, every, from, to, {gap: 22});
  },
});

const withCurve = trials.map(trial => ({trial, points: trial.curve.filter(([, value]) => finite(value))})).filter(one => one.points.length);
let overlayCurves = () => {};
views.push(() => overlayCurves());
const renderCurves = (host, width) => {
  overlayCurves = () => {};
  if (!withCurve.length) return nothing(host, "No epoch is complete yet.");
  const height = Math.round(Math.max(300, Math.min(505, width * .85))), box = {left: 58, right: 16, top: 16, bottom: 46};
  const all = withCurve.flatMap(one => one.points.map(([, value]) => value));
  const longest = withCurve.reduce((most, one) => Math.max(most, one.points[one.points.length - 1][0]), 1);
  const x = wholeScale(1, longest, box.left + 8, width - box.right - 8);
  // `reduce`, since thousands of values cannot be arguments.
  const ends = [all.reduce((a, b) => Math.min(a, b)), all.reduce((a, b) => Math.max(a, b))];
  const floor = all.filter(value => value < 1).reduce((a, b) => Math.max(a, b), ends[0]);
  const y = makeScale(kindOfScale(leading), leading, [...ends, floor], height - box.bottom, box.top, {gap: 28});
  const svg = draw("svg", {height, viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img",
    "aria-label": `${label(leading)} by epoch of ${plural(withCurve.length, "trial")}. Arrow keys move between trials, Enter selects.`});
  svg.append(frame(width, height, box, x, y, {x: ["Epoch"]}));
  const layer = draw("g", {class: withCurve.length > 60 ? "many" : null}), top = draw("g", {"pointer-events": "none"});
  const lines = withCurve.map(one => ({trial: one.trial, at: one.points.map(([epoch, value]) => [x.at(epoch), y.at(value)])}));
  // The few short curves of fine-tuning are drawn above the many long ones.
  for (const one of [...lines].sort((a, b) => (a.trial.kind === "compression") - (b.trial.kind === "compression"))) {
    const end = one.at[one.at.length - 1];
    layer.append(draw("path", {class: `curve g-${one.trial.group}`, d: polyline(one.at)}), draw("circle", {class: `curve-end g-${one.trial.group}`, cx: end[0], cy: end[1], r: 2.2}));
  }
  svg.append(layer, top);
  overlayCurves = () => {
    const strong = lines.filter(one => one.trial.number === selected || one.trial.number === pointed);
    layer.classList.toggle("busy", strong.length > 0);
    top.replaceChildren(...strong.flatMap(one => {
      const end = one.at[one.at.length - 1];
      return [draw("path", {class: `strong g-${one.trial.group}`, d: polyline(one.at)}), draw("circle", {class: `strong-end g-${one.trial.group}`, cx: end[0], cy: end[1], r: 4.5})];
    }));
  };
  let i = 0;
  const go = (index, place) => {
    i = (index + lines.length) % lines.length;
    const one = lines[i], edge = svg.getBoundingClientRect(), [px, py] = place || one.at[one.at.length - 1];
    point(one.trial.number);
    showTip(describe(one.trial), edge.left + px, edge.top + py);
  };
  svg.addEventListener("pointermove", event => {
    const edge = svg.getBoundingClientRect(), [px, py] = [event.clientX - edge.left, event.clientY - edge.top];
    let best = null, place = null, least = 30 ** 2;
    lines.forEach((one, index) => {
      for (let j = 0; j < one.at.length; j++) {
        // Distance to the segment, since its ends are far apart with few epochs.
        const [ax, ay] = one.at[Math.max(0, j - 1)], [bx, by] = one.at[j], length = (bx - ax) ** 2 + (by - ay) ** 2;
        const along = length ? Math.max(0, Math.min(1, ((px - ax) * (bx - ax) + (py - ay) * (by - ay)) / length)) : 0;
        const [qx, qy] = [ax + along * (bx - ax), ay + along * (by - ay)], distance = (qx - px) ** 2 + (qy - py) ** 2;
        if (distance < least) { best = index; place = [qx, qy]; least = distance; }
      }
    });
    svg.style.cursor = best === null ? "" : "pointer";
    if (best === null) { point(null); hideTip(); } else go(best, place);
  });
  const leave = () => { point(null); hideTip(); };
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) go(i); });
  svg.addEventListener("click", () => { if (pointed !== null) select(pointed, {scroll: true}); });
  svg.addEventListener("keydown", event => {
    if (event.key === "ArrowDown" || event.key === "ArrowRight") go(i + 1);
    else if (event.key === "ArrowUp" || event.key === "ArrowLeft") go(i - 1);
    else if (event.key === "Enter" || event.key === " ") select(lines[i].trial.number, {scroll: true});
    else return;
    if (event.key.startsWith("Arrow")) say(words(lines[i].trial));
    event.preventDefault();
  });
  host.replaceChildren(svg);
  overlayCurves();
};
