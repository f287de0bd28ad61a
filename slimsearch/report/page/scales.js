// ---- scales

const niceStep = (span, count) => {
  const raw = span / Math.max(1, count), power = 10 ** Math.floor(Math.log10(raw));
  return power * (raw / power <= 1 ? 1 : raw / power <= 2 ? 2 : raw / power <= 5 ? 5 : 10);
};
const unitFor = value => Math.abs(value) >= 1e9 ? [1e9, "G"] : Math.abs(value) >= 1e6 ? [1e6, "M"] : Math.abs(value) >= 1e4 ? [1e3, "k"] : [1, ""];
const compact = value => {
  const [unit, suffix] = unitFor(value);
  return Number((value / unit).toPrecision(4)) + suffix;
};
// kind: "linear", "log", or "error": the logarithm of 1 - accuracy, which separates 98 % and 99 %.
const makeScale = (kind, name, values, from, to, {pad = .06, gap = 34, zero = false} = {}) => {
  const errors = values.map(value => 1 - value).filter(value => value > 1e-9);
  const floor = errors.length ? Math.min(...errors) / 2 : .001;
  const forward = kind === "log" ? Math.log10 : kind === "error" ? value => -Math.log10(Math.max(1 - value, floor)) : value => value;
  const backward = kind === "log" ? value => 10 ** value : kind === "error" ? value => 1 - 10 ** -value : value => value;
  let low = Math.min(...values.map(forward)), high = Math.max(...values.map(forward));
  if (zero) low = Math.min(0, low);
  if (!(high > low)) { const half = kind !== "linear" ? .12 : isAccuracy(name) ? .01 : Math.abs(low) * .05 || .5; low -= half; high += half; }
  const span = high - low;
  if (!zero) low -= pad * span;
  high += pad * span;
  // The axis ends at the bounds of the metric, with a margin for a point at 100 %.
  if (kind === "linear" && isAccuracy(name)) high = Math.min(high, Math.max(...values, 1) + .03 * span);
  const at = value => from + (forward(value) - low) / (high - low) * (to - from);
  const accuracy = isAccuracy(name), count = Math.max(2, Math.floor(Math.abs(to - from) / (gap * 1.25)));
  const least = backward(low), most = backward(high);
  const inside = value => value >= least && value <= most && !(accuracy && (value > 1 + 1e-9 || value < -1e-9));
  // From the better end, at least `gap` apart.
  const spread = ticks => {
    const placed = [];
    for (const tick of kind === "error" ? ticks.reverse() : ticks)
      if (placed.every(other => Math.abs(at(other) - at(tick)) >= gap)) placed.push(tick);
    return placed;
  };
  let placed = [], step = null;
  if (kind !== "linear") {
    for (const parts of [[1], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7]]) {
      const ticks = [], powers = kind === "log" ? [low, high] : [-high, -low];
      for (let power = Math.floor(powers[0]) - 1; power <= Math.ceil(powers[1]); power++)
        for (const part of parts) { const value = part * 10 ** power; ticks.push(kind === "log" ? value : 1 - value); }
      const found = ticks.filter(inside).sort((a, b) => a - b);
      placed = spread(found);
      if (found.length >= Math.min(4, count)) break;
    }
  }
  // Within a decade, and in small charts: multiples of a step, as small as three ticks need.
  for (let parts = count; placed.length < 3 && parts <= 64 * count; parts *= 2) {
    const finer = niceStep(most - least, parts), ticks = [];
    for (let i = Math.ceil(least / finer); i * finer <= most + finer * 1e-6; i++) if (inside(i * finer)) ticks.push(i * finer);
    const found = spread(ticks);
    if (found.length > placed.length) { placed = found; step = finer; }
  }
  const [unit, suffix] = accuracy ? [.01, " %"] : unitFor(most);
  const text = value => step !== null ? (value / unit).toFixed(Math.max(0, -Math.floor(Math.log10(step / unit) + 1e-9))) + suffix
    : accuracy ? `${Number((100 * value).toFixed(4))} %` : compact(Number(value.toPrecision(6)));
  const value = place => backward(low + (place - from) / (to - from) * (high - low));
  return {at, value, inside: value => forward(value) >= low && forward(value) <= high, ticks: placed.map(value => ({at: at(value), text: text(value)}))};
};
// Ticks of an integer axis (trials, epochs).
const wholeScale = (low, high, from, to) => {
  const at = value => high === low ? (from + to) / 2 : from + (value - low) / (high - low) * (to - from);
  const step = Math.max(1, niceStep(Math.max(1, high - low), Math.max(2, (to - from) / 70))), ticks = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) ticks.push({at: at(value), text: String(value)});
  return {at, ticks};
};
// Seconds from 0 in a suitable unit; `unit` is for the title of the axis.
const timeScale = (high, from, to) => {
  const [unit, size] = unitOf(high), most = Math.max(high, 1e-9) / size;
  const step = niceStep(most, Math.max(2, (to - from) / 80)), at = value => from + value / size / most * (to - from);
  const ticks = [];
  for (let i = 0; i * step <= most * (1 + 1e-9); i++) ticks.push({at: at(i * step * size), text: String(Number((i * step).toPrecision(6)))});
  return {at, ticks, unit: {h: "hours", min: "minutes", s: "seconds"}[unit]};
};
const frame = (width, height, box, x, y, titles) => {
  const group = draw("g", {"aria-hidden": "true"});
  for (const tick of y.ticks) group.append(
    draw("line", {class: "grid", x1: box.left, x2: width - box.right, y1: tick.at, y2: tick.at}),
    draw("text", {x: box.left - 8, y: tick.at + 4, "text-anchor": "end"}, tick.text));
  const bottom = height - box.bottom;
  for (const tick of x.ticks) group.append(
    draw("line", {class: "grid", x1: tick.at, x2: tick.at, y1: box.top, y2: bottom}),
    draw("text", {x: tick.at, y: bottom + 17, "text-anchor": "middle"}, tick.text));
  group.append(
    draw("line", {class: "axis", x1: box.left, x2: width - box.right, y1: bottom, y2: bottom}),
    draw("text", {class: "title", x: width - box.right, y: bottom + 37, "text-anchor": "end"}, ...titles.x));
  if (titles.y) group.append(draw("text", {class: "title", x: 2, y: 14}, ...titles.y));
  return group;
};
const polyline = points => points.map((point, i) => `${i ? "L" : "M"}${point[0].toFixed(1)} ${point[1].toFixed(1)}`).join("");
