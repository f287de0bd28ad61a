// ---- start of the page of several runs

renderRows();
refresh();
redrawScatter = chart("scatter", renderScatter);
const redrawBest = chart("best", renderBest);
for (const choice of document.querySelectorAll("input[name=along]")) choice.addEventListener("change", () => {
  along = choice.value;
  remember("along", along === "trials" ? null : along);
  redrawBest();
});
if (!withLeading) byId("about").textContent = "The metrics are those that the evaluators of the runs returned.";
if (selected !== null) reveal(selected);
