// A field -> a colour for every point, and a legend that says what the colours mean.
//
// Numbers run through cividis (Nuñez et al. 2018), texts take the colours of Okabe and Ito, and
// three more: they can be told apart by the colour-blind.

import { count, digits, make } from "../app/dom.js";
import { counts, histogram } from "../gallery/filters.js";

const RAMP = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];
const KINDS = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167], [120, 94, 240], [136, 34, 85], [128, 128, 32]];
const OTHER = [150, 155, 165];
const STEPS = 254;

/** Return {codes, palette, legend}: uint8 a row, 256 colours of 4 bytes, and an element. */
export function coloured(field, opacity) {
  const palette = new Uint8Array(4 * 256);
  const ink = (code, [red, green, blue]) => palette.set([red, green, blue, Math.round(255 * opacity)], 4 * code);
  ink(255, OTHER);
  if (field.kind === "number") {
    for (let step = 0; step <= STEPS; step += 1) ink(step, along(step / STEPS));
    const { low, high } = histogram(field, 1);
    const scale = STEPS / (high - low || 1);
    const codes = Uint8Array.from(field.data, (value) => (Number.isNaN(value) ? 255 : Math.round((value - low) * scale)));
    return { codes, palette, legend: ramp(low, high) };
  }
  const total = counts(field, field.data.keys());
  const order = field.values.map((_, at) => at + 1).sort((a, b) => total[b] - total[a]);
  const code = new Uint8Array(field.values.length + 1).fill(255);
  order.slice(0, KINDS.length).forEach((text, at) => {
    code[text] = at;
    ink(at, KINDS[at]);
  });
  const named = order.slice(0, KINDS.length).map((text, at) => key(KINDS[at], field.values[text - 1], total[text]));
  const rest = order.slice(KINDS.length).reduce((sum, text) => sum + total[text], total[0]);
  const legend = make("ul", { class: "legend" }, ...named, rest ? key(OTHER, "others", rest) : null);
  return { codes: Uint8Array.from(field.data, (text) => code[text]), palette, legend };
}

function along(share) {
  const at = Math.min(RAMP.length - 2, Math.floor(share * (RAMP.length - 1)));
  const rest = share * (RAMP.length - 1) - at;
  return RAMP[at].map((value, channel) => Math.round(value + rest * (RAMP[at + 1][channel] - value)));
}

function key(colour, text, number) {
  const dot = make("i");
  dot.style.background = `rgb(${colour.join(" ")})`;
  return make("li", {}, dot, make("span", { text }), make("span", { class: "num soft", text: count(number) }));
}

function ramp(low, high) {
  const bar = make("i", { class: "ramp" });
  bar.style.background = `linear-gradient(90deg, ${RAMP.map((colour) => `rgb(${colour.join(" ")})`).join(", ")})`;
  return make("div", { class: "legend" }, bar, make("div", { class: "ends num" }, make("span", { text: digits(low) }), make("span", { text: digits(high) })));
}
