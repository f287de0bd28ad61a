// ---- the best value of the first objective in each run so far

const bestOf = objectives[0].metric;
let along = view.get("along") === "seconds" ? "seconds" : "trials";
for (const choice of document.querySelectorAll("input[name=along]")) choice.checked = choice.value === along;
byId("progress-title").textContent = `Best ${label(bestOf).replace(/^./, letter => letter.toLowerCase())} so far`;
const idOf = new Map(trials.map(trial => [`${trial.run}:${trial.own}`, trial.number]));
let showBest = () => {};
views.push(() => showBest());
const renderBest = (host, width) => {
  showBest = () => {};
  const lines = runs.map((run, i) => ({run, i, series: list((run.history[along] || {}).best).map(([place, value, own]) => ({place, value, own, id: idOf.get(`${i}:${own}`)}))}))
    .filter(one => one.series.length);
  if (!lines.length) return nothing(host, "No trial is complete yet.");
  const height = 260, box = {left: 58, right: 16, top: 16, bottom: 44}, every = lines.flatMap(one => one.series);
  const most = every.reduce((a, one) => Math.max(a, one.place), 0);
  const x = along === "trials" ? wholeScale(0, most, box.left + 8, width - box.right - 8) : timeScale(most, box.left, width - box.right - 8);
  const all = every.map(one => one.value), kind = isAccuracy(bestOf) && lopsided(all) ? "error" : "linear";
  const y = makeScale(kind, bestOf, all, height - box.bottom, box.top, {gap: 26});
  const svg = draw("svg", {height, viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img",
    "aria-label": `${byId("progress-title").textContent} of ${plural(lines.length, "run")}: ${lines.map(one => `${one.run.name} ${show(bestOf, one.series[one.series.length - 1].value)}`).join(", ")}. Left and right arrows move along a run, up and down to another run, Enter selects.`});
  svg.append(frame(width, height, box, x, y, {x: [along === "trials" ? "Trial" : `Running time, ${x.unit}`]}));
  for (const one of lines) {
    const path = one.series.flatMap((step, i) => [...(i ? [[x.at(step.place), y.at(one.series[i - 1].value)]] : []), [x.at(step.place), y.at(step.value)]]);
    svg.append(draw("path", {class: `line of-run g-run-${one.i}`, d: polyline(path)}));
    one.marks = one.series.filter(step => finite(step.own));
    for (const step of one.marks) svg.append(draw("g", {class: `g-run-${one.i}`, transform: `translate(${x.at(step.place).toFixed(1)} ${y.at(step.value).toFixed(1)})`}, shape(`run-${one.i}`, .8)));
  }
  const cursor = draw("g", {"pointer-events": "none"});
  svg.append(cursor);
  const steps = lines.flatMap((one, n) => one.marks.map((step, i) => ({...step, n, i, run: one.run})));
  showBest = () => cursor.replaceChildren(...steps.filter(step => step.id !== undefined && (step.id === pointed || step.id === selected))
    .map(step => draw("circle", {class: step.id === selected ? "halo" : "halo hover", cx: x.at(step.place), cy: y.at(step.value), r: 9})));
  let at = 0;
  const go = index => {
    at = Math.max(0, Math.min(steps.length - 1, index));
    const step = steps[at], edge = svg.getBoundingClientRect();
    point(step.id ?? null);
    showTip([el("p", {}, el("b", {}, `${step.run.name}: ${show(bestOf, step.value)}`)), el("p", {class: "why"}, `since trial ${step.own}${along === "seconds" ? `, ${duration(step.place)} into the run` : ""}`)], edge.left + x.at(step.place), edge.top + y.at(step.value));
  };
  const leave = () => { point(null); hideTip(); };
  const choose = () => { if (steps[at].id !== undefined) select(steps[at].id, {scroll: true}); };
  svg.addEventListener("pointermove", event => {
    const edge = svg.getBoundingClientRect(), [px, py] = [event.clientX - edge.left, event.clientY - edge.top];
    let best = -1, least = 30 ** 2;
    steps.forEach((step, index) => {
      const distance = (x.at(step.place) - px) ** 2 + (y.at(step.value) - py) ** 2;
      if (distance < least) { best = index; least = distance; }
    });
    svg.style.cursor = best < 0 ? "" : "pointer";
    if (best < 0) leave(); else go(best);
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) go(at); });
  svg.addEventListener("click", () => { if (pointed !== null) choose(); });
  svg.addEventListener("keydown", event => {
    const {n} = steps[at], turn = {ArrowDown: 1, ArrowUp: -1}[event.key];
    if (event.key === "ArrowRight") go(at + 1); else if (event.key === "ArrowLeft") go(at - 1);
    else if (turn) go(steps.findIndex(step => step.n === (n + turn + lines.length) % lines.length));
    else if (event.key === "Enter" || event.key === " ") choose();
    else return;
    if (event.key.startsWith("Arrow")) say(`${steps[at].run.name}: ${show(bestOf, steps[at].value)} since trial ${steps[at].own}`);
    event.preventDefault();
  });
  host.replaceChildren(svg);
  byId("best-legend").replaceChildren(...lines.map(one => el("span", {class: "key"}, mark(`run-${one.i}`), one.run.name)));
  showBest();
};
