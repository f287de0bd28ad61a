// ---- several runs: their names, states, times and results

const pageOf = run => `./runs/${encodeURIComponent(run.name)}/`;
{
  byId("lede").textContent = `${[...new Set(runs.map(run => run.space))].join(", ")} on ${dataset.name || "data"}: ${plural(data.of, "trial")}, ${data.front} not dominated by any other`;
  byId("counts").append(...runs.map((run, i) => el("li", {}, mark(`run-${i}`), el("a", {href: pageOf(run)}, run.name), ` ${run.state}`)));
  byId("unread").textContent = runs.filter(run => run.error).map(run => `${run.name}: ${run.error}`).join("; ");
  byId("csv").append("CSV: ", ...runs.flatMap((run, i) => [i ? ", " : "", el("a", {href: `${pageOf(run)}trials.csv`, download: `${run.name}.csv`}, run.name)]));
  const goal = objectives[0], columns = [
    ["Run", (run, i) => el("span", {class: "state"}, mark(`run-${i}`), el("a", {href: pageOf(run)}, run.name))],
    ["State", run => run.state], ["Space", run => run.space], ["Search", run => [run.strategy, run.sampler].filter(Boolean).join(", ")],
    ["Trials", run => thousands(run.of)], ["On its front", run => thousands(run.front)], ["Not dominated by any run", run => thousands(run.joint)],
    [`Best ${label(goal.metric).replace(/^./, letter => letter.toLowerCase())}`, run => show(goal.metric, run.best)],
    ["Wall time", run => run.seconds.wall > 0 ? duration(run.seconds.wall) : "–"],
    ["Training", run => run.seconds.training > 0 ? duration(run.seconds.training) : "–"],
  ];
  byId("runs-table").append(el("table", {class: "plain-table"},
    el("thead", {}, el("tr", {}, columns.map(([title], i) => el("th", {scope: "col", class: i > 3 ? "num" : null}, title)))),
    el("tbody", {}, runs.map((run, n) => el("tr", {}, columns.map(([, cell], i) => el(i ? "td" : "th", {scope: i ? null : "row", class: i > 3 ? "num" : null}, cell(run, n))))))));
}
