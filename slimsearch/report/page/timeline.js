// ---- timeline of trials in lanes

const timed = trials.filter(trial => trial.bar).sort((a, b) => a.bar[0] - b.bar[0] || a.bar[2] - b.bar[2]);
let overlayTimeline = () => {};
views.push(() => overlayTimeline());
const renderTimeline = (host, width) => {
  overlayTimeline = () => {};
  const lanes = list(data.timeline.lanes);
  if (!timed.length) return nothing(host, "No trial has taken any time yet.");
  const row = Math.max(4, Math.min(26, 420 / lanes.length)), named = row >= 11;
  const box = {left: named ? 14 + 6.4 * Math.min(26, Math.max(...lanes.map(name => name.length))) : 14, right: 16, top: 8, bottom: 44};
  const height = box.top + box.bottom + row * lanes.length, bottom = height - box.bottom;
  const x = timeScale(longest, box.left, width - box.right);
  const svg = draw("svg", {height, viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img",
    "aria-label": `Timeline of ${plural(timed.length, "trial")} in ${plural(lanes.length, "lane")}. Arrow keys move between trials, Enter selects.`});
  svg.append(frame(width, height, box, x, {ticks: []}, {x: [`Running time, ${x.unit}`]}));
  if (named) lanes.forEach((name, i) => svg.append(draw("text", {x: box.left - 8, y: box.top + (i + .5) * row + 4, "text-anchor": "end", "aria-hidden": "true"}, cut(name, 26))));
  for (const moment of list(data.timeline.breaks)) svg.append(draw("line", {class: "pause", x1: x.at(moment), x2: x.at(moment), y1: box.top, y2: bottom}));
  const layer = draw("g"), top = draw("g", {"pointer-events": "none"});
  const place = trial => ({x: x.at(trial.bar[0]), y: box.top + trial.bar[2] * row + (row > 8 ? 1.5 : .5), width: Math.max(1.2, x.at(trial.bar[1]) - x.at(trial.bar[0]) - (row > 8 ? .8 : 0)), height: row - (row > 8 ? 3 : 1)});
  for (const trial of timed) layer.append(draw("rect", {class: `bar g-${trial.group}${trial.on_front ? " front" : ""}${trial.state === "running" ? " running" : ""}`, rx: row > 8 ? 2 : 0, "data-number": trial.number, ...place(trial)}));
  svg.append(layer, top);
  overlayTimeline = () => top.replaceChildren(...timed.filter(trial => trial.number === selected || trial.number === pointed).map(trial => {
    const at = place(trial);
    return draw("rect", {class: trial.number === selected ? "halo" : "halo hover", rx: 3, x: at.x - 2, y: at.y - 2, width: at.width + 4, height: at.height + 4});
  }));
  let i = 0;
  const words2 = trial => [el("p", {class: "why"}, `${duration(trial.bar[1] - trial.bar[0])}, from ${duration(trial.bar[0])} to ${duration(trial.bar[1])}; lane ${lanes[trial.bar[2]]}`)];
  const go = index => {
    i = (index + timed.length) % timed.length;
    const trial = timed[i], edge = svg.getBoundingClientRect(), at = place(trial);
    point(trial.number);
    showTip([...describe(trial), ...words2(trial)], edge.left + at.x + at.width / 2, edge.top + at.y + at.height / 2);
  };
  const under = event => {
    const edge = svg.getBoundingClientRect(), px = event.clientX - edge.left, lane = Math.floor((event.clientY - edge.top - box.top) / row);
    let best = -1, least = 4;
    timed.forEach((trial, index) => {
      if (trial.bar[2] !== lane) return;
      const distance = Math.max(0, x.at(trial.bar[0]) - px, px - x.at(trial.bar[1]));
      if (distance < least) { best = index; least = distance; }
    });
    return best;
  };
  const leave = () => { point(null); hideTip(); };
  svg.addEventListener("pointermove", event => { const found = under(event); svg.style.cursor = found < 0 ? "" : "pointer"; if (found < 0) leave(); else go(found); });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) go(i); });
  svg.addEventListener("click", event => { const found = under(event); if (found >= 0) select(timed[found].number, {scroll: true}); });
  svg.addEventListener("keydown", event => {
    if (event.key === "ArrowRight" || event.key === "ArrowDown") go(i + 1);
    else if (event.key === "ArrowLeft" || event.key === "ArrowUp") go(i - 1);
    else if (event.key === "Home") go(0); else if (event.key === "End") go(timed.length - 1);
    else if (event.key === "Enter" || event.key === " ") select(timed[i].number, {scroll: true});
    else return;
    if (event.key !== "Enter" && event.key !== " ") say(words(timed[i]));
    event.preventDefault();
  });
  host.replaceChildren(svg);
  overlayTimeline();
};
byId("timeline-note").textContent = [
  `Each bar is a trial from start to end, including waiting. Lanes show how many trials ran at the same time, not which worker ran them${new Set(trials.map(trial => trial.host || "")).size > 1 ? "; each driver has its own lanes" : ""}.`,
  timed.length ? `${plural(list(data.timeline.lanes).length, "lane")}, in use ${(100 * data.timeline.busy).toFixed(0)} % of the time.` : "",
  list(data.timeline.breaks).length ? "Dashed lines: the run was stopped and resumed here; the pause is left out." : "",
].filter(Boolean).join(" ");
