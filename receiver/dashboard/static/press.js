// Whether the reader is pressing something. A click or a selection on what is replaced between its press and its release
// would be lost, so what replaces parts of the page waits for the release.
const pressed = new Set();
let waiting = [];

function release(what) {
  pressed.delete(what);
  if (pressed.size) return;
  const then = waiting;
  waiting = [];
  setTimeout(() => then.forEach((each) => each())); // after the click that follows the release
}

// Returns when nothing is pressed.
export function released() {
  return pressed.size ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve();
}

const capture = { capture: true, passive: true };
addEventListener("pointerdown", () => pressed.add("pointer"), capture);
for (const end of ["pointerup", "pointercancel", "contextmenu", "dragend"]) {
  addEventListener(end, () => release("pointer"), capture);
}
addEventListener("keydown", (event) => event.key === " " && pressed.add("space"), capture); // presses a button
addEventListener("keyup", (event) => event.key === " " && release("space"), capture);
addEventListener("blur", () => [...pressed].forEach(release)); // the release is somewhere else
