// ---- hovered and selected trials, shared by all views, and what of the view is in the address of the page

const view = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
const remember = (name, value) => {
  if (value === null || value === "") view.delete(name); else view.set(name, value);
  window.history.replaceState(null, "", `#${view}`);
};

const views = [];
const startsWith = trials.find(trial => keyOf(trial) === view.get("trial"));
let selected = startsWith ? startsWith.number : null, pointed = null;
const say = text => { byId("status").textContent = text; };
const refresh = () => { for (const view of views) view(); };
const point = number => { if (pointed !== number) { pointed = number; refresh(); } };
const select = (number, {scroll = false} = {}) => {
  selected = selected === number ? null : number;
  const trial = byNumber.get(selected);
  remember("trial", trial ? keyOf(trial) : null);
  say(trial ? `${titleOf(trial)} selected` : "No trial selected");
  refresh();
  if (scroll && selected !== null) reveal(selected);
};

// Selected ranges of the parallel coordinates: name of an axis -> condition on a trial.
const ranges = new Map();
const matches = trial => { for (const keeps of ranges.values()) if (!keeps(trial)) return false; return true; };
const onRanges = [];
const rangesChanged = () => { for (const view of onRanges) view(); };

const tip = byId("tip");
const describe = trial => [
  el("p", {}, el("b", {}, `${trial.on_front ? "★ " : ""}${titleOf(trial)}`), ` · ${trial.kind}, ${stateText(trial)}`),
  trial.architecture ? el("p", {class: "mono"}, trial.architecture) : null,
  trial.recipe ? el("p", {class: "mono"}, `+ ${trial.recipe}`) : null,
  el("table", {}, el("tbody", {}, TOLD.filter(name => metric(trial, name) !== null).map(name => el("tr", {},
    el("th", {scope: "row"}, label(name)), el("td", {}, show(name, metric(trial, name))))))),
  why(trial) ? el("p", {class: trial.error ? "error" : "why"}, why(trial)) : null,
].filter(Boolean);
const words = trial => [
  titleOf(trial), trial.on_front ? "on the front" : "", `${trial.kind}, ${stateText(trial)}`, trial.architecture, trial.recipe,
  ...TOLD.filter(name => metric(trial, name) !== null).map(name => `${label(name)} ${show(name, metric(trial, name))}`),
].filter(Boolean).join("; ");
let tipMark = null; // where its mark is, on the page
const showTip = (content, x, y) => {
  tip.replaceChildren(...content);
  tipMark = [x + scrollX, y + scrollY];
  placeTip(x, y);
  tip.classList.add("on");
};
const placeTip = (x, y) => {
  const size = tip.getBoundingClientRect(), edge = 8, wide = document.documentElement.clientWidth;
  let left = x + 18, top = y - size.height / 2;
  if (left + size.width > wide - edge) left = x - 18 - size.width;
  if (left < edge) {
    left = Math.max(edge, Math.min(wide - edge - size.width, x - size.width / 2));
    top = y - size.height - 18 < edge ? y + 18 : y - size.height - 18;
  }
  top = Math.max(edge, Math.min(innerHeight - edge - size.height, top));
  tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
};
const hideTip = () => tip.classList.remove("on");
// The tooltip follows a scroll caused by moving the focus; a scroll with the wheel leaves the mark.
addEventListener("scroll", () => {
  if (!document.activeElement || !document.activeElement.matches(":focus-visible")) hideTip();
  else if (tip.classList.contains("on")) placeTip(tipMark[0] - scrollX, tipMark[1] - scrollY);
}, {passive: true, capture: true, signal});
addEventListener("keydown", event => {
  if (event.key !== "Escape") return;
  hideTip();
  if (event.defaultPrevented) return;
  if (selected !== null) select(selected); else point(null);
}, {signal});

// A chart is redrawn for its width, so that the size of its text does not change.
const chart = (where, render) => {
  const host = typeof where === "string" ? byId(where) : where;
  let width = 0;
  const redraw = () => { if (width > 0) render(host, width); };
  const measure = () => {
    const now = Math.floor(host.clientWidth);
    if (now !== width) { width = now; redraw(); }
  };
  new ResizeObserver(measure).observe(host);
  measure();
  return redraw;
};
const nothing = (host, text) => host.replaceChildren(el("p", {class: "empty"}, text));
