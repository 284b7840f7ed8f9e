// An embedding -> its mean and standard deviation by dimension, for a server without a gallery.

import { digits, make } from "../app/dom.js";

const HEIGHT = 120;

/** Return the card of one Gaussian: its uncertainty, and a drawing of its dimensions. */
export function profile({ mean, variance, uncertainty }) {
  const words = `Uncertainty ${digits(uncertainty)} (0 is sure; towards 1 the picture could be anything).`;
  const canvas = make("canvas", { class: "profile", width: 1200, height: HEIGHT, role: "img", "aria-label": "Mean and standard deviation of each dimension" });
  draw(canvas, mean, variance);
  return make("section", { class: "card pad answer unknown", "aria-live": "polite" }, make("p", { class: "sentence", text: words }), make("h2", { text: "Mean and standard deviation by dimension" }), canvas);
}

function draw(canvas, mean, variance) {
  const ink = canvas.getContext("2d");
  ink.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
  const far = Math.max(...mean.map((value, d) => Math.abs(value) + Math.sqrt(variance[d])));
  const y = (value) => HEIGHT / 2 - (value / far) * (HEIGHT / 2) * 0.95;
  const step = canvas.width / mean.length;
  mean.forEach((value, d) => {
    const deviation = Math.sqrt(variance[d]);
    ink.globalAlpha = 0.28;
    ink.fillRect(d * step, y(value + deviation), Math.max(1, step * 0.8), y(value - deviation) - y(value + deviation));
    ink.globalAlpha = 1;
    ink.fillRect(d * step, y(value) - 1, Math.max(1, step * 0.8), 2);
  });
}
