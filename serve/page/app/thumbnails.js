// An item's id -> its picture, small, as the server shows it; the latest ones are kept.
//
// Pictures that are asked for together come together, a few requests at once.

import { make } from "./dom.js";
import { call, itemPath, post } from "./server.js";

const MOST = 2000; // that are kept, of some 8 kB each
const TOGETHER = 12; // of one request
const AT_ONCE = 4; // requests
const PIXELS = 120; // of the longer side of a picture that is shown with its pixels
const kept = new Map(); // id -> promise of its picture
const pending = [];
let running = 0;

/** Return a promise of {url}, or of {problem} where there is no picture to show.
 *
 * wanted: says, when its turn comes, whether anyone still waits; null is the answer where nobody does.
 */
function thumbnail(id, wanted) {
  const known = kept.get(id);
  if (known) {
    kept.delete(id);
    kept.set(id, known);
    return known;
  }
  const found = new Promise((done) => pending.push({ id, wanted, done })).then((one) => {
    if (!one?.url) kept.delete(id);
    return one;
  });
  kept.set(id, found);
  if (kept.size > MOST) kept.delete(kept.keys().next().value);
  if (pending.length === 1) queueMicrotask(next); // what is asked for meanwhile goes along
  return found;
}

/** Send what still is wanted; pictures that scrolled out of sight meanwhile are passed over. */
function next() {
  while (running < AT_ONCE && pending.length) {
    const part = [];
    while (part.length < TOGETHER && pending.length) {
      const one = pending.shift();
      if (one.wanted()) part.push(one);
      else one.done(null);
    }
    if (!part.length) return;
    running += 1;
    load(part).finally(() => {
      running -= 1;
      next();
    });
  }
}

async function load(part) {
  try {
    const { thumbnails } = await post("thumbnails", { ids: part.map(({ id }) => id) });
    part.forEach(({ done }, at) => {
      const { jpeg, problem } = thumbnails[at];
      done(jpeg ? { url: `data:image/jpeg;base64,${jpeg}` } : { problem });
    });
  } catch (error) {
    for (const { done } of part) done({ problem: error.message });
  }
}

/** Return an image element of an item's file that is at most so many pixels wide and high. Raises ServerError. */
export async function largePicture(id, alt, side) {
  const blob = await (await call(`${itemPath("thumbnails", id)}?side=${side}`)).blob();
  const url = URL.createObjectURL(blob);
  const shown = image(url, alt);
  shown.addEventListener("load", () => URL.revokeObjectURL(url));
  return shown;
}

function image(src, alt) {
  const shown = make("img", { alt });
  shown.addEventListener("load", () => shown.classList.toggle("pixels", Math.max(shown.naturalWidth, shown.naturalHeight) < PIXELS));
  shown.src = src;
  return shown;
}

/** Return an element that shows an item's picture as soon as it is there, or says why there is none. */
export function picture(context, id, alt) {
  const shot = make("span", { class: "shot" });
  if (!context.model.show_images) {
    shot.textContent = "no preview";
    shot.title = "This server shows no pictures; start it with: vssl serve --show-images";
    return shot;
  }
  const show = async () => {
    const found = await thumbnail(id, () => shot.isConnected);
    if (found?.url) shot.replaceChildren(image(found.url, alt));
    else if (found) Object.assign(shot, { textContent: "picture gone", title: found.problem });
    else if (shot.isConnected) show(); // it was asked for by a tile that went out of sight
  };
  show();
  return shot;
}
