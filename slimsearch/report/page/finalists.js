// ---- finalists: layers, stages, confusion matrices and confidence intervals

const classNames = (() => {
  try { return list(typeof dataset.classes === "string" ? JSON.parse(dataset.classes) : dataset.classes).map(String); } catch (error) { return []; }
})();
const className = i => i < classNames.length ? classNames[i] : String(i);
const cut = (text, most) => text.length > most ? `${text.slice(0, most - 1)}…` : text;

const layerView = (host, one) => {
  const input = list(dataset.input_shape);
  const total = one.layers.reduce((sum, layer) => sum + layer.params * layer.times, 0);
  const most = one.layers.reduce((best, layer) => Math.max(best, layer.params * layer.times), 1);
  const row = layer => {
    const params = layer.params * layer.times;
    return el("li", {class: `layer k-${layer.kind}`},
      el("span", {class: "what"}, layer.kind === "block" ? layer.operator : layer.text, layer.times > 1 ? el("b", {}, ` × ${layer.times}`) : null,
        layer.int8 ? el("span", {class: "chip"}, "int8") : null, layer.inside.length ? el("small", {}, layer.inside.join(", ")) : null),
      el("span", {class: "shape-text"}, layer.shape.length ? layer.shape.map(size => size || "?").join(" × ") : ""),
      el("span", {class: "params"}, params ? thousands(params) : "–", el("span", {class: "share", style: `width:${(100 * params / most).toFixed(1)}%`})));
  };
  const rows = el("ol", {class: "layers", "aria-label": `${plural(one.layers.length, "layer")}, ${thousands(total)} parameters`},
    el("li", {class: "layer k-input"}, el("span", {class: "what"}, "Input"), el("span", {class: "shape-text"}, input.join(" × ")), el("span", {class: "params head"}, "parameters")),
    one.layers.map(row));
  const wires = draw("svg", {class: "wires", "aria-hidden": "true"});
  host.replaceChildren(el("div", {class: "wired"}, rows, wires));
  const place = () => {
    const items = [...rows.children], at = items.map(item => [item.offsetTop, item.offsetTop + item.offsetHeight]);
    // A long skip connection is drawn outside the shorter ones.
    const jumps = one.layers.flatMap((layer, i) => layer.inputs.filter(from => from !== i - 1).map(from => ({from: from + 1, to: i + 1})))
      .sort((a, b) => (a.to - a.from) - (b.to - b.from));
    const depth = [];
    for (const jump of jumps) {
      let lane = 0;
      while (list(depth[lane]).some(other => jump.from < other.to && other.from < jump.to)) lane++;
      (depth[lane] ||= []).push(jump);
      jump.lane = lane;
    }
    const lanes = Math.min(depth.length, 6), gutter = 12 + 9 * lanes;
    rows.style.paddingLeft = `${gutter + 8}px`;
    wires.setAttribute("width", gutter + 8);
    wires.setAttribute("height", rows.offsetHeight);
    const paths = [];
    one.layers.forEach((layer, i) => {
      if (!layer.inputs.includes(i - 1)) return;
      paths.push(draw("path", {d: `M${gutter} ${(at[i][0] + at[i][1]) / 2}V${(at[i + 1][0] + at[i + 1][1]) / 2}`}));
    });
    for (const jump of jumps) {
      const x = gutter - 9 * (1 + Math.min(jump.lane, 5)), from = (at[jump.from][0] + at[jump.from][1]) / 2, to = (at[jump.to][0] + at[jump.to][1]) / 2;
      paths.push(draw("path", {class: "jump", d: `M${gutter} ${from}H${x + 5}Q${x} ${from} ${x} ${from + 5}V${to - 5}Q${x} ${to} ${x + 5} ${to}H${gutter}`}));
    }
    const dots = at.map(([top, bottom], i) => draw("circle", {cx: gutter, cy: (top + bottom) / 2, r: 3.2, class: i ? `k-${one.layers[i - 1].kind}` : "k-input"}));
    wires.replaceChildren(...paths, ...dots);
  };
  new ResizeObserver(place).observe(rows);
  place();
};

const matrixView = (host, one, width) => {
  const found = one.confusion, count = found.classes;
  const by = new Map(found.cells.map(([truth, taken, images]) => [truth * count + taken, images]));
  const names = [...Array(count).keys()].map(i => cut(className(i), 11)), longest = Math.max(...names.map(name => name.length));
  const left = 14 + Math.max(12, 6.4 * longest), top = longest > 3 ? 10 + 6.2 * longest : 26, right = 50;
  const cell = Math.max(11, Math.min(32, (width - left - right - 16) / count)), size = cell * count;
  const svg = draw("svg", {width: left + size + right + 16, height: top + size + 22, tabindex: 0, role: "img", class: "matrix",
    "aria-label": `Confusion matrix of trial ${one.trial}: ${found.wrong} of ${found.images} test images are classified wrongly. Arrow keys move between cells.`});
  const worst = found.cells.reduce((most, [truth, taken, images]) => truth === taken ? most : Math.max(most, images / found.totals[truth]), 1e-9);
  const text = (x, y, string, more) => draw("text", {x, y, ...more}, string);
  names.forEach((name, i) => {
    const middle = i * cell + cell / 2;
    svg.append(text(left - 7 + 14, top + middle + 4, name, {"text-anchor": "end"}));
    svg.append(longest > 3 ? text(0, 0, name, {transform: `translate(${left + 14 + middle + 4} ${top - 7}) rotate(-90)`}) : text(left + 14 + middle, top - 7, name, {"text-anchor": "middle"}));
    const right = by.get(i * count + i) || 0, all = found.totals[i];
    svg.append(text(left + 14 + size + 7, top + middle + 4, all ? `${(100 * right / all).toFixed(cell > 18 ? 1 : 0)} %` : "–", {class: "recall"}));
    for (let j = 0; j < count; j++) {
      const images = by.get(i * count + j) || 0, share = images ? images / found.totals[i] : 0;
      svg.append(draw("rect", {class: images ? i === j ? "cell right" : "cell wrong" : "cell", x: left + 14 + j * cell + .5, y: top + i * cell + .5, width: cell - 1, height: cell - 1,
        rx: 2, "fill-opacity": images ? i === j ? .12 + .45 * share : .22 + .7 * share / worst : null}));
      if (images && cell >= 17) svg.append(text(left + 14 + j * cell + cell / 2, top + i * cell + cell / 2 + 4, images > 999 && cell < 28 ? compact(images) : String(images), {class: "count", "text-anchor": "middle"}));
    }
  });
  svg.append(text(left + 14 + size / 2, top + size + 17, "predicted class", {class: "title", "text-anchor": "middle"}),
    text(0, 0, "true class", {class: "title", "text-anchor": "middle", transform: `translate(10 ${top + size / 2}) rotate(-90)`}));
  const mark = draw("rect", {class: "cursor-cell", width: cell, height: cell, rx: 3, visibility: "hidden"});
  svg.append(mark);
  let at = [0, 0];
  const tell = ([i, j]) => {
    const images = by.get(i * count + j) || 0, all = found.totals[i] || 0;
    return `${className(i)} predicted as ${className(j)}: ${plural(images, "image")}${all ? `, ${(100 * images / all).toFixed(1)} % of its ${all}` : ""}`;
  };
  const go = place => {
    at = place.map(position => Math.max(0, Math.min(count - 1, position)));
    mark.setAttribute("x", left + 14 + at[1] * cell);
    mark.setAttribute("y", top + at[0] * cell);
    mark.setAttribute("visibility", "visible");
    const edge = svg.getBoundingClientRect();
    showTip([el("p", {}, tell(at))], edge.left + left + 14 + (at[1] + .5) * cell, edge.top + top + (at[0] + .5) * cell);
  };
  const leave = () => { mark.setAttribute("visibility", "hidden"); hideTip(); };
  svg.addEventListener("pointermove", event => {
    const edge = svg.getBoundingClientRect(), j = Math.floor((event.clientX - edge.left - left - 14) / cell), i = Math.floor((event.clientY - edge.top - top) / cell);
    if (i < 0 || j < 0 || i >= count || j >= count) leave(); else go([i, j]);
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) go(at); });
  svg.addEventListener("keydown", event => {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (!step) return;
    go([at[0] + step[0], at[1] + step[1]]);
    say(tell(at));
    event.preventDefault();
  });
  host.replaceChildren(el("div", {class: "sideways"}, svg));
};

const mistakesView = one => {
  const named = labels => labels.length ? labels.map(className).join(", ") : "none";
  const likely = mistake => mistake.share > 0 ? `${(100 * mistake.share).toFixed(0)} %` : "";
  if (one.mistakes.every(mistake => mistake.image)) return el("ul", {class: "mistakes"}, one.mistakes.map(mistake => el("li", {},
    el("img", {src: mistake.image, alt: `Test image ${mistake.example}`, title: `Test image ${mistake.example}`}),
    el("span", {}, el("s", {}, cut(named(mistake.predicted), 22))), el("b", {}, cut(named(mistake.true), 22)), el("small", {}, likely(mistake)))));
  return el("table", {class: "plain-table"}, el("thead", {}, el("tr", {}, ["Test example", "True", "Predicted", "Probability"].map((name, i) => el("th", {scope: "col", class: i % 3 ? null : "num"}, name)))),
    el("tbody", {}, one.mistakes.map(mistake => el("tr", {}, el("td", {class: "num"}, thousands(mistake.example)), el("td", {}, named(mistake.true)), el("td", {}, named(mistake.predicted)), el("td", {class: "num"}, likely(mistake))))));
};

const errorsView = one => el("table", {class: "plain-table"},
  el("thead", {}, el("tr", {}, ["Test example", "True", "Predicted", "Error"].map(name => el("th", {scope: "col", class: "num"}, name)))),
  el("tbody", {}, one.errors.map(([example, truth, taken]) => el("tr", {}, [thousands(example), significant(truth, 4), significant(taken, 4), `${taken < truth ? "−" : "+"}${significant(Math.abs(taken - truth), 4)}`]
    .map(text => el("td", {class: "num"}, text))))));

const scatterView = (host, one, width) => {
  const size = Math.min(width, 420), box = {left: 64, right: 14, top: 26, bottom: 46}, all = one.scatter.flat();
  const x = makeScale("linear", leading, all, box.left, size - box.right, {gap: 52}), y = makeScale("linear", leading, all, size - box.bottom, box.top, {gap: 28});
  const svg = draw("svg", {width: size, height: size, viewBox: `0 0 ${size} ${size}`, role: "img", class: "scatter",
    "aria-label": `Predicted against true value of ${plural(one.scatter.length, "test example")} of trial ${one.trial}.`});
  const low = Math.min(...all), high = Math.max(...all);
  svg.append(frame(size, size, box, x, y, {x: ["true"], y: ["predicted"]}), draw("line", {class: "axis", x1: x.at(low), y1: y.at(low), x2: x.at(high), y2: y.at(high), "stroke-dasharray": "4 4"}));
  for (const [truth, taken] of one.scatter) svg.append(draw("circle", {class: "point", cx: x.at(truth).toFixed(1), cy: y.at(taken).toFixed(1), r: 2.5}));
  host.replaceChildren(svg);
};

const confusedView = (host, one) => {
  const found = one.confusion;
  host.replaceChildren(el("p", {class: "note"}, `The most confused pairs of ${thousands(found.classes)} classes.`),
    el("table", {class: "plain-table"}, el("thead", {}, el("tr", {}, ["True class", "Predicted class", "Images", "Share of the class"].map((name, i) => el("th", {scope: "col", class: i > 1 ? "num" : null}, name)))),
      el("tbody", {}, found.cells.map(([truth, taken, images]) => el("tr", {}, el("td", {}, className(truth)), el("td", {}, className(taken)), el("td", {class: "num"}, thousands(images)),
        el("td", {class: "num"}, `${(100 * images / found.totals[truth]).toFixed(1)} %`))))));
};

const stagesView = (one, trial) => {
  if (one.path.length < 2) return el("p", {class: "note"}, trial.kind === "compression" ? "Its steps are not recorded." : "Not compressed.");
  const columns = [leading, "latency_ms", "size_kib", "params"].filter(name => one.path.some(step => finite(step.metrics[name])));
  const changed = (name, now, before) => {
    if (!finite(now) || !finite(before) || now === before) return "";
    const better = (now - before) * (sense(name) || 0) > 0;
    const text = isAccuracy(name) ? `${now < before ? "−" : "+"}${Math.abs(100 * (now - before)).toFixed(2)} pt` : before ? `${now < before ? "−" : "+"}${Math.abs(100 * (now - before) / before).toFixed(0)} %` : "";
    return el("small", {class: better ? "good" : "bad"}, text);
  };
  const heads = {[leading]: "val.", latency_ms: "ms", size_kib: "KiB", params: "params"};
  return el("div", {class: "sideways"}, el("table", {class: "plain-table steps"},
    el("thead", {}, el("tr", {}, ["Step", ...columns.map(name => heads[name]), "s"].map((name, i) => el("th", {scope: "col", class: i ? "num" : null, title: ["", ...columns.map(label), "Seconds of training"][i] || null}, name)))),
    el("tbody", {}, one.path.map((step, i) => el("tr", {}, el("th", {scope: "row"}, step.what || "trained", el("small", {}, `trial ${step.trial}`)),
      columns.map(name => el("td", {class: "num"}, show(name, step.metrics[name]), i ? changed(name, step.metrics[name], one.path[i - 1].metrics[name]) : null)),
      el("td", {class: "num"}, finite(step.seconds) ? thousands(step.seconds, 1) : ""))))));
};

const numbersView = (one, trial) => {
  const images = {[leading]: "val_images", [tested]: "test_images"};
  const rows = ordered.filter(name => MAIN.includes(name) || objectives.some(goal => goal.metric === name)).filter(name => metric(trial, name) !== null).map(name => {
    const range = one.intervals[name], alike = one.alike[name], seeds = one.seeds && one.seeds[name];
    const notes = [
      range ? `95%: ${show(name, range[0])} to ${show(name, range[1])}` : "",
      images[name] && metric(trial, images[name]) !== null ? `${thousands(metric(trial, images[name]))} images` : "",
      seeds ? `over ${one.seeds.trainings} seeds: ${show(name, seeds.mean)} ± ${isAccuracy(name) ? (100 * seeds.standard_deviation).toFixed(2) : significant(seeds.standard_deviation)}` : "",
      alike && alike.length ? `no significant difference to ${alike.length === 1 ? "trial" : "trials"} ${alike.join(", ")}` : "",
    ].filter(Boolean);
    return el("tr", {}, el("th", {scope: "row"}, label(name)), el("td", {class: "num"}, show(name, metric(trial, name))), el("td", {}, notes.join(" · ")));
  });
  return el("table", {class: "plain-table numbers"}, el("tbody", {}, rows));
};

const cardOf = new Map(), opened = view.has("open") ? view.get("open").split(",") : null;
const openFinalist = number => {
  const card = cardOf.get(number);
  if (!card) return;
  card.open = true;
  card.scrollIntoView({block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth"});
  card.querySelector("summary").focus({preventScroll: true});
};
for (const one of finalists) {
  const trial = byNumber.get(one.trial);
  if (!trial) continue;
  const figure = (name, text) => metric(trial, name) === null ? null : el("span", {class: "figure"}, el("b", {}, text ? text(metric(trial, name)) : show(name, metric(trial, name))), " ",
    {[leading]: isAccuracy(leading) ? "val." : label(leading), [tested]: isAccuracy(leading) ? "test" : label(tested), latency_ms: "ms", size_kib: "KiB"}[name] || name);
  const shown = [leading, tested, "latency_ms", "size_kib"].filter(name => metric(trial, name) !== null);
  const figures = shown.length ? shown : objectives.map(goal => goal.metric);
  const inside = el("div", {class: "inside"});
  const card = el("details", {class: "panel finalist", "data-trial": one.trial},
    el("summary", {}, el("span", {class: "who-is"}, mark(trial.group), el("b", {}, `${trial.on_front ? "★ " : ""}Trial ${trial.number}`),
      el("span", {class: "mono"}, [trial.architecture, trial.recipe].filter(Boolean).join(" + "))),
    el("span", {class: "figures"}, figures.map(name => figure(name)))), inside);
  let drawn = false;
  const fillIn = () => {
    if (drawn || !card.open) return;
    drawn = true;
    const layers = el("div", {}), matrix = el("div", {class: "matrix-host"});
    const part = (title, note, ...content) => el("div", {class: "part"}, el("h3", {}, title), note ? el("p", {class: "note"}, note) : null, content);
    inside.replaceChildren(...[
      one.layers || one.layers_note ? part("Layers", one.layers ? "Of the exported file, with fused operators: output shape without the batch dimension, and parameters." : `Not shown: ${one.layers_note}.`, layers) : null,
      el("div", {class: "part-stack"},
        part("Numbers", null, numbersView(one, trial)),
        one.confusion || trial.kind === "compression" || one.path.length ? part("Stages", one.path.length > 1 ? "Metrics after each stage, with the change from the previous step." : null, stagesView(one, trial)) : null),
      one.confusion ? part("Confusion on the test split", `${thousands(one.confusion.wrong)} of ${thousands(one.confusion.images)} images wrong. ${one.confusion.whole ? "Rows: true class, with the share classified correctly. Darker cells: a larger share of the row." : ""}`, matrix) : one.scatter ? part("Predictions on the test split", `${(data.dataset.classes ? JSON.parse(data.dataset.classes) : ["Values"])[0]}: predicted against true; on the line, both are equal.`, matrix)
        : one.masks ? part("Masks on the test split", "Of the test images with the most wrong pixels: the image, its true mask, and the predicted mask.", el("img", {src: one.masks, class: "masks", alt: "Images, true masks and predicted masks"})) : metric(trial, "test_accuracy") !== null ? part("Confusion on the test split", "Not recorded by the version of Slimsearch that ran this search.") : null,
      list(one.errors).length ? part("Largest errors on the test split", null, errorsView(one)) : null,
      list(one.mistakes).length ? el("div", {class: "part wide"}, el("h3", {}, "Mistakes on the test split"), el("p", {class: "note"}, one.mistakes[0].share > 0
        ? "The wrong test examples of which the network was the most certain: the predicted class, struck out, the true class, and the probability of the predicted one."
        : "The test examples with the most wrong labels: the predicted labels, struck out, and the true ones."), mistakesView(one)) : null,
    ].filter(Boolean));
    if (one.layers) layerView(layers, one);
    if (one.scatter) chart(matrix, (host, width) => scatterView(host, one, width));
    if (one.confusion && one.confusion.whole) chart(matrix, (host, width) => matrixView(host, one, width)); else if (one.confusion) confusedView(matrix, one);
    inside.append(el("p", {class: "note links"}, el("button", {type: "button", class: "link", click: () => { if (selected !== trial.number) select(trial.number); }}, "Select in all charts"),
      trial.artifact ? [" · ", fileLink(trial.artifact, trial.artifact)] : null), exportCommand(trial) || "");
  };
  card.addEventListener("toggle", () => {
    fillIn();
    const open = [...cardOf].filter(([, other]) => other.open).map(([number]) => number);
    remember("open", open.length === 1 && open[0] === finalists[0].trial ? null : open.join(",") || "none");
  });
  cardOf.set(one.trial, card);
  byId("finalist-cards").append(card);
  if (opened ? opened.includes(String(one.trial)) : cardOf.size === 1) { card.open = true; fillIn(); }
}
if (!cardOf.size) {
  byId("finalists-section").remove();
  document.querySelector("a[href='#finalists-section']").parentElement.remove();
} else byId("finalists-note").textContent = [
  withLeading ? "The exported files of the best networks, measured together at the end of the run. Only then is the test split read, once." : "The best candidates of the run, by the metrics of its evaluator.",
  data.finalists_of > cardOf.size ? `The first ${cardOf.size} of ${thousands(data.finalists_of)} are shown here; all are in the table of trials.` : "",
].filter(Boolean).join(" ");
views.push(() => { for (const [number, card] of cardOf) card.classList.toggle("chosen-card", number === selected); });
