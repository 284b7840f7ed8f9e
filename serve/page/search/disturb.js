// A picture, and how far it is turned, blurred, made noisy or zoomed -> the picture that is asked about.

import { make, slider } from "../app/dom.js";

const NAMES = ["rotate", "blur", "noise", "zoom"];
const MOST = 640; // pixels of the longer side

/** Return the controls; `onchange(amounts)` is called as they move. */
export function disturbControls(onchange) {
  const amounts = Object.fromEntries(NAMES.map((name) => [name, 0]));
  const move = (name) => (value) => {
    amounts[name] = value;
    restore.disabled = !isDisturbed(amounts);
    onchange({ ...amounts });
  };
  const share = (value) => (value ? `${value} %` : "off");
  const rows = {
    rotate: slider("Rotate", { min: -180, max: 180, value: 0, written: (v) => `${v}°`, oninput: move("rotate") }),
    blur: slider("Blur", { min: 0, max: 100, value: 0, written: share, oninput: move("blur") }),
    noise: slider("Noise", { min: 0, max: 100, value: 0, written: share, oninput: move("noise") }),
    zoom: slider("Zoom", { min: -100, max: 100, value: 0, written: (v) => `${Math.round(100 * 2 ** (v / 50))} %`, oninput: move("zoom") }),
  };
  const calm = () => {
    for (const name of NAMES) {
      amounts[name] = 0;
      rows[name].set(0);
    }
    restore.disabled = true;
  };
  const restore = make("button", { class: "plain", text: "Restore the original", disabled: true, onclick: () => [calm(), onchange({ ...amounts })] });
  const element = make("details", { class: "card pad" }, make("summary", { text: "Disturb it: is the answer less sure?" }), ...Object.values(rows), restore);
  return { element, calm };
}

/** Whether any amount is not zero. */
export const isDisturbed = (amounts) => NAMES.some((name) => amounts[name] !== 0);

/** Return a canvas with the disturbed picture. */
export function disturbed(bitmap, { rotate, blur, noise, zoom }) {
  const shrink = Math.min(1, MOST / Math.max(bitmap.width, bitmap.height));
  const canvas = make("canvas", { width: Math.max(1, Math.round(bitmap.width * shrink)), height: Math.max(1, Math.round(bitmap.height * shrink)) });
  const ink = canvas.getContext("2d", { willReadFrequently: true });
  ink.fillStyle = corner(bitmap);
  ink.fillRect(0, 0, canvas.width, canvas.height);
  if (blur) ink.filter = `blur(${(blur / 100) * 0.12 * Math.max(canvas.width, canvas.height)}px)`;
  ink.translate(canvas.width / 2, canvas.height / 2);
  ink.rotate((rotate * Math.PI) / 180);
  ink.scale(2 ** (zoom / 50), 2 ** (zoom / 50));
  ink.drawImage(bitmap, -canvas.width / 2, -canvas.height / 2, canvas.width, canvas.height);
  if (noise) addNoise(ink, canvas, noise);
  return canvas;
}

function addNoise(ink, canvas, amount) {
  const image = ink.getImageData(0, 0, canvas.width, canvas.height);
  const values = image.data;
  let seed = 7;
  const random = () => (seed = (seed * 1664525 + 1013904223) >>> 0) / 2 ** 32;
  for (let at = 0; at < values.length; at += 4) {
    const shift = (random() + random() + random() - 1.5) * 3.2 * amount;
    for (let channel = 0; channel < 3; channel += 1) values[at + channel] += shift;
  }
  ink.putImageData(image, 0, 0);
}

/** What turns up beyond the border has the colour of the picture's own corner. */
function corner(bitmap) {
  const ink = new OffscreenCanvas(1, 1).getContext("2d");
  ink.drawImage(bitmap, 0, 0, 1, 1, 0, 0, 1, 1);
  const [red, green, blue] = ink.getImageData(0, 0, 1, 1).data;
  return `rgb(${red} ${green} ${blue})`;
}
