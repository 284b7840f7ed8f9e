// The gallery view: every picture in a grid, filters at its side, the choice and the detail of one.

import { writeAddress } from "../app/address.js";
import { count, later, make } from "../app/dom.js";
import { columns as readColumns } from "./columns.js";
import { detailDialog } from "./detail.js";
import { facets } from "./facets.js";
import { chosenRows, readFilters, writtenFilters } from "./filters.js";
import { pictureGrid } from "./grid.js";
import { selectionBar } from "./selection.js";

/** Return the view: its element, and `show(values)` that takes up an address. */
export function galleryView(context) {
  const selected = new Set();
  let columns = null;
  let filters = {};
  let rows = [];
  let controls = null;

  const side = make("div", { class: "card pad side" });
  const said = make("p", { class: "soft small num", role: "status" });
  const sort = make("select", { "aria-label": "Order", onchange: () => update() });
  const detail = detailDialog(context, { onclose: () => grid.element.focus() });
  const grid = pictureGrid(context, {
    label: "Pictures of the gallery",
    selected,
    open: (row) => detail.open(columns, row),
    onselect: () => bar.draw(),
  });
  const bar = selectionBar(context, {
    selected,
    all: () => rows,
    source: () => columns,
    chosen: () => grid.draw(),
    changed: () => begin({ renew: true }),
    choose: (is) => grid.element.classList.toggle("choosing", is),
  });
  const clear = make("button", { class: "plain", text: "No filter", onclick: () => [(filters = {}), build(), update()] });
  const element = make(
    "div",
    { class: "browse" },
    make("details", { class: "card side-box", open: matchMedia("(min-width: 900px)").matches }, make("summary", { text: "Filter" }), side),
    make("section", { class: "shown" }, make("div", { class: "toolbar" }, said, make("label", { class: "order" }, "Order ", sort), bar.element), grid.element),
  );

  const update = () => {
    rows = chosenRows(columns, filters, sort.value);
    said.textContent = rows.length === columns.count ? `${count(columns.count)} pictures` : `${count(rows.length)} of ${count(columns.count)} pictures`;
    controls.draw(rows);
    grid.element.hidden = !rows.length;
    grid.set(columns, rows);
    bar.draw();
    clear.disabled = !Object.keys(filters).length;
    writeAddress("gallery", { ...writtenFilters(filters), sort: sort.value });
  };
  const soon = later(update, 30);

  const fields = () => columns.fields.filter(({ name }) => !name.startsWith("map."));

  const build = () => {
    controls = facets({ ...columns, fields: fields() }, filters, (name, choice) => {
      if (choice) filters[name] = choice;
      else delete filters[name];
      soon();
    });
    side.replaceChildren(controls.element, clear);
    const numbers = fields().filter((field) => field.kind === "number");
    const options = [["", "as added"], ...numbers.flatMap(({ name }) => [[`-${name}`, `most ${name} first`], [name, `least ${name} first`]])];
    const before = sort.value;
    sort.replaceChildren(...options.map(([value, text]) => make("option", { value, text })));
    sort.value = before;
    if (!sort.value) sort.value = "";
  };

  const begin = async ({ renew = false, values = null } = {}) => {
    try {
      columns = await readColumns({ renew });
    } catch (error) {
      context.tell(error, () => begin({ renew, values }));
      return;
    }
    if (renew) selected.clear();
    if (values) filters = readFilters(columns, values);
    build();
    if (values) sort.value = values.get("sort") ?? "";
    if (sort.selectedIndex < 0) sort.value = "";
    update();
  };

  return { element, show: (values) => begin({ values }) };
}
