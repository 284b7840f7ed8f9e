// An item's id -> its picture, small, as the server shows it; the latest ones are kept.

import { make } from "./dom.js";
import { call, itemPath } from "./server.js";

const MOST = 1500;
const kept = new Map();

/** Return a promise of {url, small}, or of {problem} where there is no picture to show. `side`: its pixels. */
export function thumbnail(id, side = null) {
  const name = side ? `${side} ${id}` : id;
  const known = kept.get(name);
  if (known) {
    kept.delete(name);
    kept.set(name, known);
    return known;
  }
  const found = load(id, side).catch((error) => {
    kept.delete(name);
    return { problem: error.message };
  });
  kept.set(name, found);
  if (kept.size > MOST) {
    const [oldest, gone] = kept.entries().next().value;
    kept.delete(oldest);
    gone.then((one) => one.url && URL.revokeObjectURL(one.url));
  }
  return found;
}

async function load(id, side) {
  const blob = await (await call(itemPath("thumbnails", id) + (side ? `?side=${side}` : ""))).blob();
  const bitmap = await createImageBitmap(blob);
  const small = Math.max(bitmap.width, bitmap.height) < 120;
  bitmap.close();
  return { url: URL.createObjectURL(blob), small };
}

/** Return an element that shows an item's picture as soon as it is there, or says why there is none. */
export function picture(context, id, alt) {
  const shot = make("span", { class: "shot" });
  if (!context.model.show_images) {
    shot.textContent = "no preview";
    shot.title = "This server shows no pictures; start it with: vssl serve --show-images";
    return shot;
  }
  thumbnail(id).then(({ url, small, problem }) => {
    if (url) shot.replaceChildren(make("img", { src: url, alt, class: small ? "pixels" : "", decoding: "async" }));
    else Object.assign(shot, { textContent: "picture gone", title: problem });
  });
  return shot;
}
