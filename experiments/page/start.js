// ---- start

renderRows();
refresh();
redrawScatter = chart("scatter", renderScatter);
const redrawParallel = chart("parallel", renderParallel);
const redrawAlong = [chart("volume", renderVolume), chart("best", renderBest)];
const redrawCurves = chart("curves", renderCurves);
chart("timeline", renderTimeline);
stretch.addEventListener("change", () => { redrawAlong[1](); redrawCurves(); });
for (const choice of document.querySelectorAll("input[name=along]")) choice.addEventListener("change", () => {
  along = choice.value;
  for (const redraw of redrawAlong) redraw();
});
