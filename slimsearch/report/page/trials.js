// ---- table of trials

const goal = objectives[0];
const place = trial => trial.on_front ? 0 : trial.finalist ? 1 : {complete: 2, rejected: 3, running: 4, failed: 5, "ruled out": 6}[trial.state] ?? 7;
const loss = trial => goal && metric(trial, goal.metric) !== null ? -sense(goal.metric) * metric(trial, goal.metric) : Infinity;
const standing = (a, b) => place(a) - place(b) || (loss(a) === loss(b) ? 0 : loss(a) - loss(b)) || a.number - b.number;
const numeric = (title, name, text = show, down = false) => ({
  title, kind: "num", down, value: trial => metric(trial, name),
  cell: trial => metric(trial, name) === null ? "–" : text(name, metric(trial, name)),
});
const clamped = text => el("span", {class: "clamp"}, text || "");
const own = TOLD.filter(name => !MAIN.includes(name));
const columns = [
  {title: "★", spoken: "Front first", kind: "star", compare: standing, cell: trial => trial.on_front ? el("span", {role: "img", "aria-label": "on the front"}, "★") : ""},
  {title: "trial", kind: "num pin", value: trial => trial.number, cell: trial =>
    el("button", {type: "button", class: "link", "aria-pressed": "false", "data-number": trial.number}, String(ownNumber(trial)))},
  ...(runs.length ? [{title: "run", kind: "", value: trial => runs[trial.run].name, cell: trial => el("span", {class: "state"}, mark(trial.group), runs[trial.run].name)}] : []),
  {title: "kind", kind: "", value: trial => trial.kind, cell: trial => trial.kind},
  {title: "state", kind: "", value: stateText, cell: trial => el("span", {class: "state"}, runs.length ? null : mark(trial.group), stateText(trial))},
  {title: "architecture", kind: "mono", value: trial => trial.architecture || null, cell: trial => clamped(trial.architecture)},
  {title: "recipe", kind: "mono", value: trial => trial.recipe || null, cell: trial => clamped(trial.recipe)},
  ...own.map(name => numeric(label(name), name, show, sense(name) > 0)),
  ...(isAccuracy(leading) ? [
    numeric("val %", leading, (name, value) => percent(value), true), numeric("test %", tested, (name, value) => percent(value), true),
  ] : [leading, tested].filter(name => !own.includes(name)).map(name => numeric(label(name), name, show, sense(name) > 0))),
  {...numeric("latency ms", "latency_ms"), cell: trial => metric(trial, "latency_ms") === null ? "–"
    : [show("latency_ms", metric(trial, "latency_ms")), interval(trial) ? el("small", {}, interval(trial)) : null]},
  numeric("size KiB", "size_kib"), numeric("params", "params"), numeric("MACs", "macs"),
  {title: "seconds", kind: "num", value: trial => trial.seconds > 0 ? trial.seconds : null, cell: trial => trial.seconds > 0 ? thousands(trial.seconds, 1) : "–"},
  {title: "file", kind: "", value: trial => trial.artifact || null, cell: trial => trial.artifact ? fileLink(trial.artifact, String(trial.artifact).split("/").pop()) : "–"},
  {title: "reason or error", kind: "why", value: trial => why(trial) || null, cell: trial => clamped(why(trial))},
].filter(column => !column.value || column.title === "trial" || trials.some(trial => column.value(trial) !== null));
const rowOf = new Map();
for (const trial of trials) {
  const row = el("tr", {}, columns.map(column => el("td", {class: column.kind + (column.kind === "why" && trial.error ? " error" : "")}, column.cell(trial))));
  row.addEventListener("click", event => {
    if (event.target.closest("a") || String(getSelection())) return;
    select(trial.number);
  });
  row.addEventListener("pointerenter", () => point(trial.number));
  row.addEventListener("pointerleave", () => point(null));
  row.querySelector("button").addEventListener("focus", () => point(trial.number));
  row.querySelector("button").addEventListener("blur", () => point(null));
  rowOf.set(trial.number, row);
}
const sortedBy = view.get("sort") || "", sortedColumn = columns.find(column => column.title === sortedBy.replace(/^-/, ""));
let sorting = {column: sortedColumn || columns[0], down: Boolean(sortedColumn) && sortedBy.startsWith("-")};
const heads = columns.map(column => {
  const head = el("th", {scope: "col", class: column.kind.replace(/mono|why/g, "")}, el("button", {type: "button", "aria-label": column.spoken, title: column.spoken, click: () => {
    sorting = {column, down: sorting.column === column ? !sorting.down : Boolean(column.down)};
    remember("sort", column === columns[0] && !sorting.down ? null : (sorting.down ? "-" : "") + column.title);
    renderRows();
  }}, column.title));
  byId("columns").append(head);
  return head;
});
const only = byId("finalists");
only.checked = view.get("finalists") === "1";
const renderRows = () => {
  const {column, down} = sorting, sign = down ? -1 : 1;
  const compare = column.compare ? (a, b) => sign * column.compare(a, b) : (a, b) => {
    const [u, v] = [column.value(a), column.value(b)];
    // Missing values come last in both directions.
    if (u === null || v === null) return (u === null) - (v === null) || a.number - b.number;
    return sign * (typeof u === "number" ? u - v : String(u).localeCompare(String(v), "en", {numeric: true})) || standing(a, b);
  };
  const shown = trials.filter(trial => (!only.checked || trial.finalist) && matches(trial)).sort(compare);
  heads.forEach((head, i) => {
    if (columns[i] === column) head.setAttribute("aria-sort", down ? "descending" : "ascending"); else head.removeAttribute("aria-sort");
  });
  byId("rows").replaceChildren(...(shown.length ? shown.map(trial => rowOf.get(trial.number))
    : [el("tr", {}, el("td", {class: "empty", colspan: columns.length}, ranges.size ? "No trial is within the selected ranges." : only.checked ? "No finalists yet." : "No trial has started yet."))]));
  byId("shown").textContent = `${shown.length < trials.length ? `${shown.length} of ` : ""}${plural(trials.length, "trial")}${ranges.size ? ", within the ranges selected in the parallel coordinates" : ""}.${withLeading ? " Metrics are those of the exported file on the validation split (val) and, for finalists, on the test split." : ""}`;
};
only.addEventListener("change", () => { remember("finalists", only.checked ? 1 : null); renderRows(); });
onRanges.push(renderRows);
if (!trials.some(trial => trial.finalist)) only.disabled = true;
views.push(() => {
  for (const [number, row] of rowOf) {
    row.classList.toggle("chosen", number === selected);
    row.classList.toggle("lit", number === pointed);
    row.querySelector("button").setAttribute("aria-pressed", String(number === selected));
  }
});
// Scrolls the table only, not the page.
const reveal = number => {
  const box = byId("scroll"), row = rowOf.get(number);
  if (!row || !row.isConnected) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  box.scrollTo({top: row.offsetTop - box.clientHeight / 3, behavior: still ? "auto" : "smooth"});
};
for (const note of document.querySelectorAll(".sampled")) note.textContent = sampled;
