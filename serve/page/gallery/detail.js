// An item of the gallery -> a dialog with its picture, what is known of it, and its neighbours.

import { addressOf } from "../app/address.js";
import { digits, make, percent, standing } from "../app/dom.js";
import { largePicture, picture } from "../app/thumbnails.js";
import { ofItem } from "../search/examples.js";
import { neighboursOf } from "./columns.js";

const NEIGHBOURS = 8;
const LARGE = 640; // pixels of the picture's longer side

/** Return {open(columns, row)}: the dialog is modal, and its closing gives the focus back. */
export function detailDialog(context, { onclose }) {
  const body = make("div");
  const dialog = make("dialog", { class: "detail", "aria-labelledby": "detail-title" }, body);
  dialog.addEventListener("close", onclose);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);

  const fill = async (columns, item) => {
    const title = item.label ?? item.id.split("/").pop();
    const near = make("div", { class: "near" }, make("p", { class: "soft small", text: "Looking for its neighbours…" }));
    const close = make("button", { class: "ordinary", text: "Close", onclick: () => dialog.close() });
    const search = make("a", { class: "strong-link", href: addressOf("search", { like: item.id }), text: "Search with this", onclick: () => dialog.close() });
    const shot = picture(context, item.id, title);
    body.replaceChildren(
      make("header", { class: "line" }, make("h2", { id: "detail-title", text: title }), close),
      make("div", { class: "detail-parts" }, make("div", { class: "large" }, shot), make("div", {}, facts(columns, item), make("div", { class: "buttons" }, search), near)),
    );
    if (!dialog.open) dialog.showModal();
    if (context.model.show_images) {
      largePicture(item.id, title, LARGE).then((large) => shot.replaceChildren(large), () => {}); // the small one says why
    }
    try {
      const found = await neighboursOf(await ofItem(item.id), NEIGHBOURS);
      near.replaceChildren(make("h2", { text: "Its neighbours" }), make("ol", { class: "samples" }, ...found.neighbours.map((one) => make("li", {}, neighbour(context, one, (id) => show(columns, id))))));
    } catch (error) {
      near.replaceChildren(make("p", { class: "bad small", text: error.message }));
    }
  };

  const show = async (columns, id) => {
    const { label, uncertainty } = await ofItem(id);
    await fill(columns, { id, label, uncertainty, metadata: null });
  };

  return {
    async open(columns, row) {
      try {
        const [item] = await Promise.all(columns.items([row]));
        await fill(columns, item);
      } catch (error) {
        context.tell(error);
      }
    },
  };
}

function neighbour(context, one, show) {
  const words = one.match_probability === null ? `distance ${digits(one.distance)}` : `${percent(one.match_probability)} match`;
  const name = one.label ?? one.id.split("/").pop();
  return make(
    "button",
    { class: "picture", title: one.id, "aria-label": `${name}: ${words}`, onclick: () => show(one.id) },
    picture(context, one.id, ""),
    make("span", { class: "small num", text: words }),
  );
}

function facts(columns, item) {
  const rows = [
    ["Id", item.id],
    ["Label", item.label ?? "none"],
    ...(item.uncertainty === null ? [] : [["Uncertainty", `${digits(item.uncertainty)}: ${standing(surer(columns, item.uncertainty))}`]]),
    ...Object.entries(item.metadata ?? {}).map(([name, value]) => [name, value === null ? "none" : String(value)]),
  ];
  return make("dl", { class: "facts" }, ...rows.flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: value })]));
}

/** Return the share of the gallery that is surer than a number. */
function surer(columns, uncertainty) {
  const field = columns.field("uncertainty");
  let below = 0;
  for (const value of field.data) if (value < uncertainty) below += 1;
  return below / (field.data.length || 1);
}
