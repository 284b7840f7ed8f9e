// Neighbours -> their pictures, each with its match probability as a bar, and what can be done with it.

import { digits, make, percent, sureness } from "../app/dom.js";
import { picture } from "../app/thumbnails.js";

/** Return the list of neighbours. `ask(id, role)` is called for "similar", "more like" and "less like". */
export function neighbourList(context, neighbours, ask) {
  const cards = neighbours.map((one, rank) => make("li", {}, card(context, one, rank, ask)));
  return make("ol", { class: "pictures", "aria-label": "Neighbours, nearest first" }, ...cards);
}

function card(context, one, rank, ask) {
  const name = one.label ?? one.id.split("/").pop();
  const shown = make(
    "button",
    { class: "picture", title: "Search for pictures similar to this", "aria-label": `Similar to ${rank + 1}: ${name}`, onclick: () => ask(one.id, 1, { alone: true }) },
    picture(context, one.id, ""),
    make("span", { class: "rank num", text: rank + 1 }),
  );
  return make(
    "article",
    { class: "card hit" },
    shown,
    make(
      "div",
      { class: "text" },
      make("div", { class: "line" }, make("b", { text: name, title: one.id }), more(one, name, ask)),
      match(one.match_probability),
      numbers(one),
    ),
  );
}

function more({ id }, name, ask) {
  const button = (text, title, role) => make("button", { class: "small-button", text, title, "aria-label": `${title}: ${name}`, onclick: () => ask(id, role) });
  return make("span", { class: "more" }, button("+", "More like this", 1), button("−", "Less like this", -1));
}

function match(probability) {
  if (probability === null) return make("span", { class: "soft small", text: "match not calibrated" });
  const fill = make("i");
  fill.style.width = `${100 * probability}%`;
  fill.style.background = sureness(probability);
  return make(
    "div",
    { class: "match", title: "Calibrated probability that it has the label of what you search for" },
    make("span", { class: "num", text: `${percent(probability)} match` }),
    make("span", { class: "bar" }, fill),
  );
}

function numbers(one) {
  const pair = (name, value, title) => make("span", { title }, `${name} `, make("b", { class: "num", text: digits(value) }));
  return make(
    "div",
    { class: "numbers small soft" },
    pair("distance", one.distance, "In the chosen distance; smaller is nearer"),
    one.variance_score === null
      ? ""
      : pair("variance", one.variance_score, "Share of the expected squared distance that is variance; higher is less sure"),
  );
}
