// ---- data

const byId = id => document.getElementById(id);
const finite = value => typeof value === "number" && Number.isFinite(value);
const list = value => Array.isArray(value) ? value : [];
const environment = data.environment || {}, dataset = data.dataset || {};
const objectives = list(data.objectives);
const trials = list(data.trials).map(trial => ({...trial, metrics: trial.metrics || {}, curve: list(trial.curve)}));
// Large runs are sampled; counts and hypervolume were computed from all trials.
const whole = data.of === trials.length;
const sampled = whole ? "" : `${trials.length.toLocaleString("en-US")} of ${data.of.toLocaleString("en-US")} trials are shown: the front, the finalists and an even sample of the others. Counts and hypervolume include all trials.`;
const finalists = list(data.finalists);
const finalistOf = new Map(finalists.map(one => [one.trial, one]));
const byNumber = new Map(trials.map(trial => [trial.number, trial]));
const children = new Map();
for (const trial of trials) {
  if (trial.parent === null || trial.parent === undefined) continue;
  if (!children.has(trial.parent)) children.set(trial.parent, []);
  children.get(trial.parent).push(trial);
}
// The metric that says how good a network is, on the validation and on the test split.
const leading = data.leading || "val_accuracy", tested = leading.replace("val_", "test_");
const withLeading = trials.some(trial => finite(trial.metrics[leading])) || trials.every(trial => !Object.keys(trial.metrics).length);
const metric = (trial, name) => finite(trial.metrics[name]) ? trial.metrics[name] : null;

const limits = list(data.limits).flatMap(text => {
  const found = /^--(max|min)-(\S+) (\S+)$/.exec(text);
  if (!found || !finite(Number(found[3]))) return [];
  const name = found[2] === "accuracy" ? leading : found[2].replaceAll("-", "_");
  return [{name, upper: found[1] === "max", bound: Number(found[3])}];
});
const breaks = trial => limits.some(limit => {
  const value = metric(trial, limit.name);
  return value !== null && (limit.upper ? value > limit.bound : value < limit.bound);
});

// Of a page of several runs: its runs, whose trials have the numbers of this page, and their own under "own".
const runs = list(data.runs);
const nameOf = trial => runs.length ? `${runs[trial.run].name}, trial ${trial.own}` : `trial ${trial.number}`;
const titleOf = trial => nameOf(trial).replace(/^trial /, "Trial ");
const ownNumber = trial => runs.length ? trial.own : trial.number;
// The name of a trial in the address of the page.
const keyOf = trial => runs.length ? `${runs[trial.run].name}:${trial.own}` : String(trial.number);

const GROUPS = {
  search: "search", kept: "compressed, kept", back: "rejected", over: "over a limit",
  ruled: "ruled out before training", other: "running or failed",
};
runs.forEach((run, i) => { GROUPS[`run-${i}`] = run.name; });
for (const trial of trials) {
  trial.group = runs.length ? `run-${trial.run}`
    : trial.state === "rejected" ? "back" : trial.state === "ruled out" ? "ruled" : trial.state !== "complete" ? "other"
    : !trial.on_front && breaks(trial) ? "over" : trial.kind === "compression" ? "kept" : "search";
}

// ---- words and numbers

const LABELS = {
  val_accuracy: "Validation accuracy", test_accuracy: "Test accuracy", latency_ms: "Latency, ms", size_kib: "Size, KiB",
  ram_kib: "RAM, KiB", flash_kib: "Flash, KiB", energy_mj: "Energy, mJ",
  params: "Parameters", macs: "MACs", training_seconds: "Training, seconds", seconds: "Seconds",
};
const MAIN = [leading, tested, "latency_ms", "size_kib", "params", "macs"];
// Metrics shown of a trial: the objectives, and those of every exported file.
const TOLD = [...objectives.map(one => one.metric).filter(name => !MAIN.includes(name)), ...MAIN];
const metricWords = name => name.replace(/^(val|test)_/, (_, split) => split === "val" ? "Validation " : "Test ").replaceAll("_", " ");
const label = name => LABELS[name] || (name === leading || name === tested ? metricWords(name) : name);
const calledAccuracy = name => /accuracy$/.test(name);
// An accuracy above 1 is the user's own, in percent already, and is shown as it is.
const inPercent = new Set(trials.flatMap(trial => [
  ...Object.keys(trial.metrics).filter(name => trial.metrics[name] > 1),
  ...(trial.curve.some(([, value]) => value > 1) ? [leading] : []),
]).filter(calledAccuracy));
const isAccuracy = name => calledAccuracy(name) && !inPercent.has(name);
const isCost = name => /(_ms|_kib|_seconds)$|^(params|macs|flops)$/.test(name);
const sense = name => {
  const objective = objectives.find(one => one.metric === name);
  if (objective) return objective.direction === "maximize" ? 1 : -1;
  return calledAccuracy(name) ? 1 : name === tested ? sense(leading) : isCost(name) ? -1 : 0;
};
const thousands = (value, digits = 0) =>
  value.toLocaleString("en-US", {minimumFractionDigits: digits, maximumFractionDigits: digits});
const significant = (value, digits = 3) =>
  Math.abs(value) >= 10 ** digits ? thousands(value) : value === 0 ? "0" : value.toPrecision(digits);
const percent = value => (100 * value).toFixed(2);
const show = (name, value) => {
  if (!finite(value)) return "–";
  if (isAccuracy(name)) return `${percent(value)} %`;
  if (/_ms$/.test(name)) return significant(value);
  if (/_kib$/.test(name)) return thousands(value, Math.abs(value) < 1000 ? 1 : 0);
  if (/seconds$/.test(name)) return thousands(value, 1);
  return Number.isInteger(value) ? thousands(value) : significant(value, 4);
};
const spreadOf = trial => {
  const low = metric(trial, "latency_low_ms"), high = metric(trial, "latency_high_ms");
  if (low !== null && high !== null) return [low, high];
  return [metric(trial, "latency_q25_ms"), metric(trial, "latency_q75_ms")];  // of runs before there was an interval
};
const interval = trial => {
  const [low, high] = spreadOf(trial);
  return low === null || high === null ? "" : `${significant(low)} – ${significant(high)}`;
};
// [unit, seconds per unit]; one unit for a whole axis.
const unitOf = seconds => seconds >= 3 * 3600 ? ["h", 3600] : seconds >= 180 ? ["min", 60] : ["s", 1];
const duration = seconds => {
  const [unit, size] = unitOf(seconds);
  return `${significant(seconds / size)} ${unit}`;
};
const plural = (count, one, many = one + "s") => `${thousands(count)} ${count === 1 ? one : many}`;
const stateText = trial => trial.kind === "compression" && trial.state === "complete" ? "kept" : trial.state;
const why = trial => trial.error || trial.reason || "";

// ---- elements: text is always a text node

const fill = (node, attributes, inside) => {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...inside.flat(2).filter(one => one !== null && one !== undefined && one !== ""));
  return node;
};
const el = (tag, attributes, ...inside) => fill(document.createElement(tag), attributes, inside);
const draw = (tag, attributes, ...inside) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, inside);
const SHAPES = {
  search: "M4.6 0A4.6 4.6 0 1 1-4.6 0A4.6 4.6 0 1 1 4.6 0Z", kept: "M0-6.2L6.2 0L0 6.2L-6.2 0Z",
  back: "M-4-4L4 4M-4 4L4-4", over: "M0-5.4L5.4 4.2L-5.4 4.2Z", ruled: "M-4-4H4V4H-4Z",
  other: "M5 0A5 5 0 1 1-5 0A5 5 0 1 1 5 0Z",
};
const OF_RUNS = [
  SHAPES.search, SHAPES.kept, SHAPES.over, "M-4.3-4.3H4.3V4.3H-4.3Z", "M0 5.4L5.4-4.2L-5.4-4.2Z", "M-5.6-1.9H-1.9V-5.6H1.9V-1.9H5.6V1.9H1.9V5.6H-1.9V1.9H-5.6Z",
  "M0-5.6L5.3-1.7L3.3 4.5H-3.3L-5.3-1.7Z", "M-3-5.2H3L6 0L3 5.2H-3L-6 0Z",
];
OF_RUNS.forEach((path, i) => { SHAPES[`run-${i}`] = path; });
const shape = (group, size = 1) => draw("path", {class: "shape", d: SHAPES[group], transform: size === 1 ? null : `scale(${size.toFixed(2)})`});
const mark = group => draw("svg", {
  class: `mark g-${group}`, width: 16, height: 16, viewBox: "-8 -8 16 16", "aria-hidden": "true", style: "flex:none",
}, draw("g", {class: `g-${group}`}, shape(group)));
// Each segment is encoded and the link is relative, so that a name with a colon does not become a scheme.
const fileLink = (path, text) =>
  el("a", {href: "./" + String(path).split("/").map(encodeURIComponent).join("/")}, text);
