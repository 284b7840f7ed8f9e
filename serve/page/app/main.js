// The page: which views there are, which one is shown, and what went wrong.

import { readAddress } from "./address.js";
import { count, make } from "./dom.js";
import { read } from "./server.js";
import { curateView } from "../curate/view.js";
import { galleryView } from "../gallery/view.js";
import { mapView } from "../map/view.js";
import { searchView } from "../search/view.js";

const VIEWS = {
  search: { title: "Search", open: searchView },
  gallery: { title: "Gallery", open: galleryView, gallery: true },
  map: { title: "Map", open: mapView, gallery: true },
  curate: { title: "Curate", open: curateView, gallery: true },
};
const opened = new Map();
const main = document.getElementById("main");
const notice = document.getElementById("notice");

/** Say what went wrong, with a way to try again; nothing takes the words away. */
export function tell(error, retry = null) {
  if (error?.name === "AbortError") return;
  const again = make("button", { class: "plain", text: "Try again", onclick: () => [tell(null), retry()] });
  const close = make("button", { class: "plain", text: "Close", onclick: () => tell(null) });
  notice.hidden = !error;
  notice.replaceChildren(...(error ? [make("span", { text: error.message }), retry ? again : close] : []));
}

async function begin() {
  let context;
  try {
    const model = await read("model");
    const gallery = model.gallery ? await read("gallery") : null;
    context = { model, gallery, tell, browsable: gallery?.uncertainty !== undefined };
  } catch (error) {
    tell(error, begin);
    return;
  }
  describe(context);
  const show = () => showView(context);
  window.addEventListener("hashchange", show);
  window.addEventListener("popstate", show);
  show();
}

function describe({ model, gallery }) {
  const parts = [model.card.name];
  parts.push(gallery ? `${count(gallery.items)} pictures` : "no gallery");
  if (model.card.calibration.kind === "none") parts.push("variance not calibrated");
  document.getElementById("about").textContent = parts.join("  ·  ");
}

function showView(context) {
  const { view, values } = readAddress();
  const there = Object.entries(VIEWS).filter(([, { gallery }]) => !gallery || context.browsable);
  const name = there.some(([key]) => key === view) ? view : "search";
  const links = there.map(([key, { title }]) =>
    make("a", { href: `#${key}`, text: title, "aria-current": key === name ? "page" : null }),
  );
  document.getElementById("views").replaceChildren(...links);
  document.title = `${VIEWS[name].title}: vssl`;
  if (!opened.has(name)) opened.set(name, VIEWS[name].open(context));
  const shown = opened.get(name);
  if (main.firstElementChild !== shown.element) main.replaceChildren(shown.element);
  shown.show(values);
}

begin();
