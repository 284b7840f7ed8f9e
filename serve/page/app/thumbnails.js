// An item's id -> its picture, small, as the server shows it; the latest ones are kept.

import { make } from "./dom.js";
import { call, itemPath } from "./server.js";

const MOST = 1500;
const AT_ONCE = 12;
const kept = new Map();
const pending = [];
let running = 0;

/** Return a promise of {url, small}, or of {problem} where there is no picture to show.
 *
 * side: its pixels. wanted: says, when its turn comes, whether anyone still waits; null is the answer where nobody does.
 */
export function thumbnail(id, side = null, wanted = () => true) {
  const name = side ? `${side} ${id}` : id;
  const known = kept.get(name);
  if (known) {
    kept.delete(name);
    kept.set(name, known);
    return known;
  }
  const found = inTurn(() => load(id, side), wanted).then(
    (one) => {
      if (!one) kept.delete(name);
      return one;
    },
    (error) => {
      kept.delete(name);
      return { problem: error.message };
    },
  );
  kept.set(name, found);
  if (kept.size > MOST) {
    const [oldest, gone] = kept.entries().next().value;
    kept.delete(oldest);
    gone.then((one) => one?.url && URL.revokeObjectURL(one.url));
  }
  return found;
}

/** Run some at once; the others wait, and those that scrolled out of sight meanwhile are passed over. */
function inTurn(work, wanted) {
  return new Promise((done, fail) => {
    pending.push({ work, wanted, done, fail });
    requestAnimationFrame(next);
  });
}

function next() {
  while (running < AT_ONCE && pending.length) {
    const { work, wanted, done, fail } = pending.shift();
    if (!wanted()) {
      done(null);
      continue;
    }
    running += 1;
    work()
      .then(done, fail)
      .finally(() => {
        running -= 1;
        next();
      });
  }
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
  const show = () =>
    thumbnail(id, null, () => shot.isConnected).then((found) => {
      if (!found) return shot.isConnected ? show() : null; // it was asked for by a tile that went out of sight
      if (found.url) shot.replaceChildren(make("img", { src: found.url, alt, class: found.small ? "pixels" : "" }));
      else Object.assign(shot, { textContent: "picture gone", title: found.problem });
      return null;
    });
  show();
  return shot;
}
