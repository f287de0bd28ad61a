// ---- header

{
  const by = new Map(Object.entries(data.counts));
  byId("lede").textContent = `${data.space} on ${dataset.name || "data"}: ${plural(data.of, "trial")}, ${data.front} on the front`;
  const order = ["complete", "rejected", "ruled out", "running", "failed"];
  const states = [...order.filter(state => by.has(state)), ...[...by.keys()].filter(state => !order.includes(state))];
  const {wall, training, trials: working} = data.seconds;
  const times = [[wall, "wall time"], training > 0 ? [training, "of training"] : [working, "of trials"]].filter(([seconds]) => seconds > 0);
  byId("counts").append(...states.map(state => el("li", {}, el("b", {}, thousands(by.get(state))), ` ${state}`)),
    ...times.map(([seconds, what], i) => el("li", {class: i ? null : "first-time"}, el("b", {}, duration(seconds)), ` ${what}`)));
  const recommended = list(data.finalists).find(one => one.recommended);
  if (recommended) byId("recommended").append(el("b", {}, "Recommended: "),
    el("button", {type: "button", class: "link", click: () => select(recommended.trial, {scroll: true})}, `trial ${recommended.trial}`), `, ${recommended.recommended}`);
  byId("busy").textContent = data.busy_machine || "";
  if (!states.length) byId("counts").append(el("li", {}, "No trial has started yet"));

  const fact = (name, text, ...small) => text === null || text === undefined || text === "" ? null
    : el("div", {}, el("dt", {}, name), el("dd", {}, Array.isArray(text) ? text.flatMap(one => [el("span", {}, one), " "]) : String(text), small.filter(Boolean).map(one => el("small", {}, one))));
  let classes = null;
  try { classes = list(typeof dataset.classes === "string" ? JSON.parse(dataset.classes) : dataset.classes).length; } catch (error) { classes = null; }
  const sizes = ["train", "validation", "test"].filter(name => finite(dataset[name]) && dataset[name] > 0);
  const version = (environment.packages || {}).onnxruntime;
  byId("facts").append(...[
    fact("Space", data.space),
    fact("Data set", dataset.name,
      sizes.map(name => `${thousands(dataset[name])} ${name}`).join(", "),
      [list(dataset.input_shape).length ? `input ${list(dataset.input_shape).join(" × ")}` : "", classes ? (/regression/.test(dataset.task || "") ? plural(classes, "target") : plural(classes, "class", "classes")) : ""].filter(Boolean).join(", "),
      ...list(dataset.notes).map(String)),
    fact("Strategy", data.strategy, data.sampler ? `sampler ${data.sampler}` : ""),
    fact("Seed", data.seed),
    fact("Objectives", objectives.map(one => `${one.direction === "maximize" ? "↑" : "↓"} ${one.metric}`)),
    data.latency_predictions ? fact("Latency predictor", data.latency_predictions) : null,
    data.savings ? fact("Saved", data.savings) : null,
    fact("Limits", list(data.limits).length ? list(data.limits) : "none"),
    fact("Processor", environment.processor, list(environment.processor_flags).join(" "),
      finite(environment.cores) ? `${plural(environment.cores, "core")}, ${plural(environment.workers || 1, "worker")}` : ""),
    fact("Runtime", environment.runtime, version && !String(environment.runtime).includes(version) ? `onnxruntime ${version}` : "",
      finite(environment.latency_batch) ? `batch ${environment.latency_batch}, ${plural(environment.latency_threads || 1, "thread")}` : ""),
    list(environment.boards).length ? fact("Latency measured on", list(environment.boards).map(one => one.name),
      ...list(environment.boards).map(one => `${one.processor}, ${plural(one.cores || 1, "core")}, ${one.runtime}`)) : null,
  ].filter(Boolean));
  byId("environment").textContent = [
    environment.platform, environment.python ? `Python ${environment.python}` : "",
    environment.device ? `trained on ${environment.device}${environment.precision ? `, ${environment.precision}` : ""}` : "",
    ...Object.entries(environment.packages || {}).filter(([, number]) => number).map(([name, number]) => `${name} ${number}`),
    dataset.fingerprint ? `data set ${dataset.fingerprint}` : "",
  ].filter(Boolean).join("; ");
}
