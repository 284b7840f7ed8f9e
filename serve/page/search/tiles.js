// The examples of a question -> tiles: what is asked about, what it shall be unlike, what waits.

import { make } from "../app/dom.js";
import { picture } from "../app/thumbnails.js";

const ROLES = { 1: "like this", "-1": "unlike this", 0: "not asked about" };

/** Return the list of tiles. `change(example, role)` sets a role, null takes it away; `only(example)` asks about it alone. */
export function tiles(context, examples, { change, only }) {
  return make("ul", { class: "tiles", "aria-label": "What is searched for" }, ...examples.map((example) => tile(context, example, change, only)));
}

function tile(context, example, change, only) {
  const { name, role } = example;
  const said = `${name}: ${ROLES[role]}`;
  const toggle = (wanted, text, title) =>
    make("button", {
      class: "small-button",
      text,
      title,
      "aria-label": `${title}: ${name}`,
      "aria-pressed": String(role === wanted),
      onclick: () => change(example, role === wanted ? 0 : wanted),
    });
  return make(
    "li",
    { class: `tile ${role > 0 ? "like" : role < 0 ? "unlike" : "waits"}` },
    make("button", { class: "picture", title: `Search for this alone: ${said}`, "aria-label": `Search for this alone: ${said}`, onclick: () => only(example) }, shown(context, example)),
    make(
      "span",
      { class: "more" },
      toggle(1, "+", "More like this"),
      toggle(-1, "−", "Less like this"),
      make("button", { class: "small-button", text: "×", title: "Take away", "aria-label": `Take away: ${name}`, onclick: () => change(example, null) }),
    ),
  );
}

function shown(context, example) {
  if (example.kind === "item") return picture(context, example.name, "");
  const shot = make("span", { class: "shot" });
  if (example.canvas) shot.append(example.canvas);
  else if (example.url) {
    const image = make("img", { src: example.url, alt: "" });
    image.addEventListener("error", () => shot.replaceChildren("this browser cannot show it"));
    shot.append(image);
  } else shot.textContent = "from a link";
  return shot;
}
