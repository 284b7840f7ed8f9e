// Files that are dropped anywhere, pasted or chosen -> the pictures among them.

import { make } from "../app/dom.js";

/** Return the place to drop on; `take(files)` gets what a person gives, whatever it is: the server says what it reads. */
export function dropZone(take) {
  const input = make("input", { type: "file", accept: "image/*", multiple: true, hidden: true, "aria-hidden": "true", tabIndex: -1 });
  const zone = make("button", { class: "drop", onclick: () => input.click() }, make("b", { text: "Drop a picture" }), make("span", { text: "or click to choose, or paste one" }));
  const give = (files) => files.length && take([...files]);
  input.addEventListener("change", () => {
    give(input.files);
    input.value = "";
  });
  const over = (is) => zone.classList.toggle("over", is);
  const here = () => zone.isConnected;
  document.addEventListener("dragover", (event) => {
    if (!here()) return;
    event.preventDefault();
    over(true);
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget || over(false));
  document.addEventListener("drop", (event) => {
    if (!here()) return;
    event.preventDefault();
    over(false);
    give(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => here() && give(event.clipboardData.files));
  return make("div", {}, zone, input);
}
