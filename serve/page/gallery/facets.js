// Fields -> controls to filter by: a histogram with two ends for numbers, counted choices for texts.

import { count, digits, make } from "../app/dom.js";
import { counts, histogram } from "./filters.js";

const BINS = 40;
const STEPS = 200; // of a range slider
const SHOWN = 10; // texts before "more"

/** Return {element, draw(rows)}: `onchange(name, choice)` is called with null for no filter. */
export function facets(columns, filters, onchange) {
  const parts = columns.fields.map((field) =>
    field.kind === "number" ? numberFacet(field, filters, onchange) : textFacet(field, filters, onchange),
  );
  return {
    element: make("div", { class: "facets" }, ...parts.map(({ element }) => element)),
    draw: (rows) => parts.forEach((part) => part.draw(rows)),
  };
}

function numberFacet(field, filters, onchange) {
  const all = histogram(field, BINS);
  const whole = [all.low, all.high];
  const at = (step) => all.low + ((all.high - all.low) * step) / STEPS;
  const canvas = make("canvas", { class: "histogram", width: 480, height: 80, role: "img" });
  const said = make("output", { class: "small soft num" });
  const given = filters[field.name] ?? whole;
  const place = (value) => Math.round((STEPS * (value - all.low)) / (all.high - all.low || 1));
  const end = (label, value) => make("input", { type: "range", min: 0, max: STEPS, value, "aria-label": `${field.name}: ${label}` });
  const low = end("at least", place(given[0]));
  const high = end("at most", place(given[1]));
  let shown = null;
  const range = () => {
    const [first, last] = [Number(low.value), Number(high.value)].sort((a, b) => a - b);
    return [first === 0 ? all.low : at(first), last === STEPS ? all.high : at(last)];
  };
  const draw = (rows) => {
    shown = rows;
    const [from, to] = range();
    said.textContent = `${digits(from)} to ${digits(to)}`;
    for (const input of [low, high]) input.setAttribute("aria-valuetext", digits(at(Number(input.value))));
    canvas.setAttribute("aria-label", `${field.name}: ${count(rows.length)} of ${count(field.data.length)} shown, from ${digits(from)} to ${digits(to)}`);
    bars(canvas, all.bins, histogram(field, BINS, rows).bins);
  };
  const change = () => {
    const [from, to] = range();
    onchange(field.name, from === all.low && to === all.high ? null : [from, to]);
    if (shown) draw(shown);
  };
  low.addEventListener("input", change);
  high.addEventListener("input", change);
  const element = make("details", { open: true }, make("summary", { text: field.name }), canvas, make("div", { class: "range" }, low, high), said);
  return { element, draw };
}

function bars(canvas, all, some) {
  const ink = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const step = canvas.width / all.length;
  const most = Math.max(1, ...all);
  ink.clearRect(0, 0, canvas.width, canvas.height);
  for (const [bins, colour] of [[all, "--line"], [some, "--accent"]]) {
    ink.fillStyle = style.getPropertyValue(colour);
    bins.forEach((number, at) => {
      const height = number ? Math.max(2, (canvas.height * number) / most) : 0;
      ink.fillRect(at * step, canvas.height - height, step - 1, height);
    });
  }
}

function textFacet(field, filters, onchange) {
  const list = make("div", { class: "choices" });
  let open = field.values.length <= SHOWN + 2;
  const change = (text, is) => {
    const chosen = new Set(filters[field.name] ?? []);
    if (is) chosen.add(text);
    else chosen.delete(text);
    onchange(field.name, chosen.size ? chosen : null);
  };
  const total = counts(field, field.data.keys());
  const draw = (rows) => {
    const some = counts(field, rows);
    const chosen = filters[field.name];
    const order = [...total.keys()].filter((code) => total[code]).sort((a, b) => total[b] - total[a]);
    const first = open ? order : order.filter((code, at) => at < SHOWN || chosen?.has(field.values[code - 1]));
    const lines = first.map((code) => {
      const text = code ? field.values[code - 1] : "";
      const fill = make("i");
      fill.style.width = `${(100 * some[code]) / total[code]}%`;
      const box = make("input", { type: "checkbox", checked: Boolean(chosen?.has(text)), onchange: (event) => change(text, event.target.checked) });
      return make("label", { class: "choice" }, box, make("span", { text: text || "(none)", title: text }), make("span", { class: "bar" }, fill), make("span", { class: "num soft", text: count(some[code]) }));
    });
    const more = make("button", { class: "plain", text: `${count(order.length - first.length)} more`, onclick: () => [(open = true), draw(rows)] });
    const focused = list.contains(document.activeElement) ? [...list.querySelectorAll("input")].indexOf(document.activeElement) : -1;
    list.replaceChildren(...lines, ...(first.length < order.length ? [more] : []));
    list.querySelectorAll("input")[focused]?.focus();
  };
  const element = make("details", { open: true }, make("summary", { text: field.name }), list);
  return { element, draw };
}
