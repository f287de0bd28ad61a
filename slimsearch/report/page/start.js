// ---- start

renderRows();
refresh();
redrawScatter = chart("scatter", renderScatter);
const redrawParallel = chart("parallel", renderParallel);
if (!withCurve.length && trials.some(trial => trial.state === "complete")) {
  byId("curves-panel").remove();
  byId("times-grid").classList.add("pair");
}
const redrawAlong = [chart("volume", renderVolume), chart("best", renderBest)];
const redrawCurves = byId("curves") ? chart("curves", renderCurves) : () => {};
byId("curves-title").textContent = `${label(leading)} by epoch`;
if (!isAccuracy(leading)) stretch.parentElement.hidden = true;
if (!withLeading) { stretch.parentElement.remove(); byId("about").textContent = "The metrics are those that the run's evaluator returned."; }
chart("timeline", renderTimeline);
stretch.addEventListener("change", () => {
  remember("stretch", stretch.checked ? null : 0);
  redrawAlong[1]();
  redrawCurves();
});
for (const choice of document.querySelectorAll("input[name=along]")) choice.addEventListener("change", () => {
  along = choice.value;
  remember("along", along === "trials" ? null : along);
  for (const redraw of redrawAlong) redraw();
});
if (selected !== null) reveal(selected);
