// ---- importance of each choice for each objective

{
  const found = data.importances, known = found.filter(one => one.method);
  const host = byId("importances");
  if (known.length) {
    const names = [...new Set(known.flatMap(one => Object.keys(one.shares)))];
    const most = name => Math.max(...known.map(one => one.shares[name] || 0));
    names.sort((a, b) => most(b) - most(a) || a.localeCompare(b));
    const shown = names.slice(0, 20), body = el("tbody");
    let by = null;
    const order = metricName => {
      by = metricName;
      const share = name => by === null ? most(name) : known.find(one => one.metric === by).shares[name] || 0;
      const sorted = [...shown].sort((a, b) => share(b) - share(a) || a.localeCompare(b));
      const strongest = Math.max(...known.map(one => Math.max(...shown.map(name => one.shares[name] || 0))), 1e-9);
      body.replaceChildren(...sorted.map(name => el("tr", {}, el("th", {scope: "row", class: "mono"}, name), known.map(one => {
        const value = one.shares[name] || 0;
        return el("td", {}, el("span", {class: "bar-cell"}, el("span", {class: "bar", style: `width:${(100 * value / strongest).toFixed(1)}%`})), el("span", {class: "bar-text"}, `${(100 * value).toFixed(value < .0995 ? 1 : 0)} %`));
      }))));
      for (const [head, one] of heads) if (one.metric === by) head.setAttribute("aria-sort", "descending"); else head.removeAttribute("aria-sort");
    };
    const heads = known.map(one => [el("th", {scope: "col"}, el("button", {type: "button", click: () => order(by === one.metric ? null : one.metric)}, label(one.metric))), one]);
    host.append(el("div", {class: "sideways"}, el("table", {class: "plain-table importances"}, el("thead", {}, el("tr", {}, el("th", {scope: "col"}, "Choice"), heads.map(([head]) => head))), body)));
    order(null);
    if (names.length > shown.length) host.append(el("p", {class: "note"}, `The first ${shown.length} of ${names.length} choices.`));
  }
  const methods = [...new Set(known.map(one => one.method))];
  const explanations = {
    "fANOVA": "the share of an objective's variance over the search's trials that a choice explains (fANOVA)",
    "PED-ANOVA": "the influence of a choice on being among the best tenth of the search's trials (PED-ANOVA)",
  };
  const count = known.length ? Math.min(...known.map(one => one.trials)) : 0;
  byId("importances-note").textContent = [
    known.length ? `By Optuna: ${methods.map(name => explanations[name]).join("; ")}, from ${plural(count, "completed trial")}${data.of > count && count === 2000 ? " drawn at random" : ""}.` : "",
    known.length && count < 30 ? "With so few trials, importances are rough estimates." : "",
    ...found.filter(one => one.note).map(one => `${label(one.metric)}: ${one.note}.`),
  ].filter(Boolean).join(" ");
}
