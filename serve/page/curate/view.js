// The curation view: lists of what to look at, and what can be done with what was found.

import { addressOf, writeAddress } from "../app/address.js";
import { count, make } from "../app/dom.js";
import { read } from "../app/server.js";
import { picture } from "../app/thumbnails.js";
import { columns as readColumns } from "../gallery/columns.js";
import { detailDialog } from "../gallery/detail.js";
import { selectionBar } from "../gallery/selection.js";
import { LISTS } from "./lists.js";

/** Return the view: its element, and `show(values)` that takes up an address. */
export function curateView(context) {
  const selected = new Set();
  const state = { list: "duplicates", strategy: "typical", limit: 60 };
  let columns = null;
  let found = [];
  let serial = 0;

  const tabs = make("nav", { class: "tabs", "aria-label": "Lists" });
  const why = make("p", { class: "soft" });
  const strategy = make("select", { "aria-label": "Strategy", onchange: () => [(state.strategy = strategy.value), load()] });
  const results = make("div", { "aria-live": "polite" });
  const detail = detailDialog(context, { onclose: () => {} });
  const rows = () => found.flatMap((one) => [one.row, one.other_row]).filter((row) => row !== undefined && row !== null);
  const bar = selectionBar(context, {
    selected,
    all: () => (LISTS[state.list].pairs ? found.map((one) => worse(one)) : rows()),
    source: () => columns,
    chosen: () => mark(),
    changed: () => load({ renew: true }),
  });
  const element = make("div", { class: "curate" }, tabs, make("div", { class: "toolbar" }, why, strategy, bar.element), results);

  /** Of a pair, the row that the model is less sure of. */
  const worse = (one) => {
    const { data } = columns.field("uncertainty");
    return data[one.row] > data[one.other_row] ? one.row : one.other_row;
  };

  const load = async ({ renew = false } = {}) => {
    const mine = (serial += 1);
    const list = LISTS[state.list];
    tabs.replaceChildren(...Object.entries(LISTS).map(([name, { title }]) => make("a", { href: addressOf("curate", { list: name }), text: title, "aria-current": name === state.list ? "page" : null })));
    why.textContent = list.why;
    strategy.hidden = !list.strategies;
    writeAddress("curate", { list: state.list, strategy: list.strategies ? state.strategy : null, limit: state.limit === 60 ? null : state.limit });
    results.replaceChildren(make("p", { class: "soft pad", text: "Comparing the pictures…" }));
    selected.clear();
    bar.draw();
    try {
      const query = new URLSearchParams({ limit: state.limit });
      if (list.strategies) query.set("strategy", state.strategy);
      const answer = await read(`curation/${state.list}?${query}`);
      columns = await readColumns({ renew });
      if (columns.generation !== answer.generation) columns = await readColumns({ renew: true });
      if (mine !== serial) return;
      found = answer.found;
      draw();
    } catch (error) {
      if (mine !== serial) return;
      results.replaceChildren(make("p", { class: "pad", text: error.message }));
      if (!error.status) context.tell(error, () => load({ renew }));
    }
  };

  const draw = () => {
    const list = LISTS[state.list];
    if (!found.length) {
      results.replaceChildren(make("p", { class: "soft pad", text: "Nothing found." }));
      return;
    }
    const cards = found.map((one) => make("li", {}, list.pairs ? pair(one, list) : single(one, list)));
    const more = found.length === state.limit && state.limit < 1000 ? [make("button", { class: "ordinary", text: "More", onclick: () => [(state.limit = Math.min(1000, state.limit * 3)), load()] })] : [];
    results.replaceChildren(make("ol", { class: list.pairs ? "pairs" : "pictures", "aria-label": `${list.title}: ${count(found.length)}` }, ...cards), ...more);
    mark();
  };

  const choice = (row, name) => make("label", { class: "choose small" }, make("input", { type: "checkbox", "data-row": row, "aria-label": `Choose ${name}`, onchange: (event) => pick(row, event.target.checked) }), "Choose");
  const pick = (row, is) => {
    selected[is ? "add" : "delete"](row);
    mark();
  };
  const mark = () => {
    for (const box of results.querySelectorAll("input[data-row]")) {
      const is = selected.has(Number(box.dataset.row));
      box.checked = is;
      box.closest(".hit").classList.toggle("chosen", is);
    }
    bar.draw();
  };

  const single = (one, list) => {
    const name = one.label ?? one.id.split("/").pop();
    return make("article", { class: "card hit" }, shot(one.id, one.row, name), make("div", { class: "text" }, make("b", { text: name, title: one.id }), ...list.words(one).map((text) => make("span", { class: "small soft", text })), choice(one.row, name)));
  };

  const pair = (one, list) => {
    const { data } = columns.field("uncertainty");
    const side = (id, row, other, label) => {
      const name = label ?? id.split("/").pop();
      const better = data[row] < data[other] ? "the model is surer" : "the model is less sure";
      const keep = make("button", { class: "ordinary", text: "Keep this", "aria-label": `Keep ${name}, choose the other`, onclick: () => [selected.delete(row), selected.add(other), mark()] });
      return make("article", { class: "hit" }, shot(id, row, name), make("div", { class: "text" }, make("b", { text: name, title: id }), make("span", { class: "small soft", text: better }), make("div", { class: "line" }, keep, choice(row, name))));
    };
    return make("section", { class: "card pair" }, make("p", { class: "num" }, ...list.words(one).map((text, at) => make(at ? "span" : "b", { text }))), make("div", { class: "two" }, side(one.id, one.row, one.other_row, one.label), side(one.other, one.other_row, one.row, one.other_label)));
  };

  const shot = (id, row, name) => make("button", { class: "picture", title: id, "aria-label": `Open ${name}`, onclick: () => detail.open(columns, row) }, picture(context, id, ""));

  const show = (values) => {
    state.list = values.get("list") in LISTS ? values.get("list") : "duplicates";
    const { strategies } = LISTS.select;
    state.strategy = values.get("strategy") in strategies ? values.get("strategy") : "typical";
    state.limit = Math.min(1000, Number(values.get("limit")) || 60);
    strategy.replaceChildren(...Object.entries(strategies).map(([value, text]) => make("option", { value, text, selected: value === state.strategy })));
    return load();
  };
  return { element, show };
}
