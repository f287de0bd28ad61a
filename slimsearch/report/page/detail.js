// ---- details of one trial, or a summary of the front

// Three metrics identify a trial.
const figuresOf = trial => {
  const units = {latency_ms: " ms", size_kib: " KiB", val_accuracy: ""};
  const names = [...new Set([...objectives.map(one => one.metric), leading, "latency_ms", "size_kib"])].filter(name => metric(trial, name) !== null).slice(0, 3);
  return names.map((name, i) => el(i ? "span" : "b", {}, `${show(name, metric(trial, name))}${units[name] ?? ` ${name}`}`));
};
const exportCommand = trial => {
  const start = runs.length ? runs[trial.run].export : data.export;
  if (!start || !trial.finalist || !trial.artifact) return null;
  const text = `${start} --models ${ownNumber(trial)} --to models`, code = el("code", {}, text);
  const copy = el("button", {type: "button", class: "quiet", click: async () => {
    try {
      await navigator.clipboard.writeText(text);
      say("Command copied");
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    } catch (error) {  // the browser refuses: select the text, to be copied by hand
      getSelection().selectAllChildren(code);
    }
  }}, "Copy");
  return el("p", {class: "command"}, code, copy);
};
const renderDetail = () => {
  const host = byId("detail"), trial = selected === null ? null : byNumber.get(selected);
  if (!trial) {
    const goal = objectives[0], way = goal ? sense(goal.metric) : 0;
    const front = trials.filter(one => one.on_front)
      .sort((a, b) => goal ? way * ((metric(b, goal.metric) ?? 0) - (metric(a, goal.metric) ?? 0)) || a.number - b.number : a.number - b.number);
    host.replaceChildren(
      el("h3", {}, runs.length ? "Not dominated by any run" : "On the front"),
      el("p", {class: "note"}, front.length ? "Select a trial here, in the chart or in the table." : "Empty so far."),
      el("ul", {class: "best"}, front.map(one => el("li", {}, el("button", {
        type: "button", click: () => { select(one.number, {scroll: true}); byId("clear")?.focus(); },
        pointerenter: () => point(one.number), pointerleave: () => point(null), focus: () => point(one.number), blur: () => point(null),
      },
      el("span", {class: "row"}, figuresOf(one)),
      el("span", {class: "sub"}, `${titleOf(one)}${one.recipe ? ` · ${one.recipe}` : ""}`))))));
    return;
  }
  const parent = byNumber.get(trial.parent);
  const change = name => {
    if (!parent) return null;
    // Latencies are comparable if measured together: those of finalists at the end, others with their stage.
    const start = trial.finalist && parent.finalist ? null : metric(trial, `start_${name}`);
    const now = metric(trial, name), then = start ?? metric(parent, name);
    if (now === null || then === null) return el("td", {}, "");
    if (now === then) return el("td", {class: "same"}, "same");
    if (isAccuracy(name)) {
      const points = 100 * (now - then);
      return el("td", {class: points > .004 ? "good" : points < -.004 ? "bad" : null}, `${points < 0 ? "−" : "+"}${Math.abs(points).toFixed(2)} pt`);
    }
    if (!then) return el("td", {}, "");
    const share = 100 * (now - then) / then, kind = Math.abs(share) < .5 ? null : share * sense(name) > 0 ? "good" : "bad";
    return el("td", {class: kind}, `${share < 0 ? "−" : "+"}${Math.abs(share).toFixed(Math.abs(share) < 10 ? 1 : 0)} %`);
  };
  const jump = one => el("button", {type: "button", class: "link", click: () => { select(one.number, {scroll: true}); byId("clear")?.focus(); }}, nameOf(one));
  const shown = TOLD.filter(name => metric(trial, name) !== null);
  const lines = [
    ...shown.map(name => [label(name), show(name, metric(trial, name)), change(name)]),
    ...(interval(trial) ? [["Latency, 95% interval", interval(trial), el("td", {}, "")]] : []),
    ...(trial.seconds > 0 ? [["Seconds", thousands(trial.seconds, 1), el("td", {}, "")]] : []),
  ];
  const next = children.get(trial.number) || [];
  host.replaceChildren(el("div", {class: "detail"},
    el("div", {class: "who"}, el("h3", {}, `${trial.on_front ? "★ " : ""}${titleOf(trial)}`),
      el("button", {type: "button", class: "link", id: "clear", click: () => select(trial.number)}, "Clear")),
    el("p", {class: "tag"}, [trial.kind, stateText(trial), trial.on_front ? "on the front" : "", trial.finalist ? "finalist" : ""].filter(Boolean).join(" · ")),
    trial.architecture ? el("p", {class: "mono"}, trial.architecture) : null,
    trial.recipe ? el("p", {class: "mono"}, `+ ${trial.recipe}`) : null,
    lines.length ? el("table", {},
      parent ? el("thead", {}, el("tr", {}, el("th", {}, ""), el("th", {}, ""), el("th", {scope: "col"}, `to trial ${ownNumber(parent)}`))) : null,
      el("tbody", {}, lines.map(([name, text, delta]) => el("tr", {}, el("th", {scope: "row"}, name), el("td", {}, text), parent ? delta : null)))) : null,
    why(trial) ? el("p", {class: trial.error ? "error" : "note"}, why(trial)) : null,
    parent ? el("p", {}, "Parent: ", jump(parent)) : null,
    trial.host ? el("p", {class: "note"}, `Evaluated on ${trial.host}`) : null,
    next.length ? el("p", {}, "Compressed: ", next.map((one, i) => [i ? ", " : "", jump(one)])) : null,
    finalistOf.has(trial.number) ? el("p", {}, el("button", {type: "button", class: "link", click: () => openFinalist(trial.number)}, "Show layers, stages and confusion matrix")) : null,
    runs.length ? el("p", {}, el("a", {href: `./runs/${encodeURIComponent(runs[trial.run].name)}/#trial=${trial.own}`}, `Report of ${runs[trial.run].name}`)) : null,
    trial.artifact ? el("p", {}, fileLink(trial.artifact, trial.artifact)) : null,
    exportCommand(trial)));
};
let detailed;
views.push(() => { if (detailed !== selected) { detailed = selected; renderDetail(); } });
