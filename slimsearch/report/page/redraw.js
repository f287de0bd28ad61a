// ---- the page is drawn again for new data, and for another address

const pageNode = () => document.getElementById("page");
const pristine = pageNode().cloneNode(true);
let drawn = null, drawnData = null;
// Where the page is scrolled to and what has the focus; returns a function that restores them.
const keepPlace = () => {
  const at = [scrollX, scrollY];
  const boxes = [...document.querySelectorAll("[id]")].filter(box => box.scrollTop || box.scrollLeft).map(box => [box.id, box.scrollTop, box.scrollLeft]);
  const focused = document.activeElement, near = focused && focused !== document.body ? focused.closest("[id]") : null;
  let find = () => null;
  if (near) {
    const number = focused.getAttribute("data-number"), axis = focused.getAttribute("data-axis");
    const path = [];
    for (let node = focused; node !== near; node = node.parentElement) path.unshift([...node.parentElement.children].indexOf(node));
    find = () => {
      const again = document.getElementById(near.id);
      if (!again) return null;
      if (number !== null) return again.querySelector(`[data-number="${CSS.escape(number)}"]`);
      if (axis !== null) return again.querySelector(`[data-axis="${CSS.escape(axis)}"]`);
      return path.reduce((node, i) => node && node.children[i] || null, again);
    };
  }
  return () => {
    scrollTo({left: at[0], top: at[1], behavior: "instant"});
    for (const [id, top, left] of boxes) document.getElementById(id)?.scrollTo({top, left, behavior: "instant"});
    const node = find();
    if (node) node.focus({preventScroll: true});
  };
};
const drawAgain = data => {
  const restore = drawn ? keepPlace() : null;
  if (drawn) {
    drawn.abort();
    pageNode().replaceWith(pristine.cloneNode(true));
  }
  pageNode().classList.remove("empty-page");
  drawn = new AbortController();
  drawnData = data;
  drawPage(data, drawn.signal);
  if (restore) restore();
};
addEventListener("hashchange", () => {
  if (drawnData && (location.hash.length < 2 || location.hash.includes("="))) drawAgain(drawnData);
});
