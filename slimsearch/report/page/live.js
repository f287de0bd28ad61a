// ---- live: asks for new data every few seconds, and draws the page again when there is some

const SECONDS = 1000, EVERY = 2 * SECONDS, SELDOM = 10 * SECONDS, REST = 1.5 * SECONDS;
let revision = null, waiting = null, note = "reading the record", touched = -Infinity, pressed = false;
pageNode().classList.add("empty-page");
const stateOf = data => data.state === "running" ? `running, ${data.read}` : data.state;
const showNote = () => {
  const node = document.getElementById("live"), [state, ...more] = note.split(",");
  node.textContent = state;
  node.className = `live ${state.split(" ")[0]}`;
  if (more.length) node.append(Object.assign(document.createElement("span"), {textContent: more.join(",")}));
};
showNote();
// While the page is in use, it is not drawn again.
for (const name of ["pointerdown", "pointerup", "pointercancel", "keydown", "wheel"]) addEventListener(name, event => {
  if (name === "pointerdown") pressed = true;
  if (name.startsWith("pointer") && name !== "pointerdown") pressed = false;
  touched = performance.now();
}, {passive: true, capture: true});
const resting = () => !drawn || !pressed && getSelection().isCollapsed && performance.now() - touched > REST;
const askForData = async () => {
  try {
    const answer = await fetch("./data.json", {headers: revision ? {"If-None-Match": revision} : {}, cache: "no-store"});
    if (answer.status === 200) {
      waiting = await answer.json();
      revision = answer.headers.get("ETag");
    } else if (answer.status !== 304) {
      note = (await answer.json()).error;
      return;
    }
    if (!waiting && drawnData) note = stateOf(drawnData);
  } catch (error) {
    note = "no longer served: the command has ended";
  }
};
const live = async () => {
  if (!waiting && (!document.hidden || !drawn)) await askForData();
  if (waiting && resting()) {
    drawAgain(waiting);
    note = stateOf(waiting);
    waiting = null;
  }
  showNote();
  setTimeout(live, waiting ? REST / 3 : drawnData && drawnData.state !== "running" ? SELDOM : EVERY);
};
live();
