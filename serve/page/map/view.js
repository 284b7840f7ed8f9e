// The map view: every picture as a point, coloured by a field; what is circled becomes a grid, and a question lands on it.

import { writeAddress } from "../app/address.js";
import { count, make } from "../app/dom.js";
import { post } from "../app/server.js";
import { picture } from "../app/thumbnails.js";
import { columns as readColumns } from "../gallery/columns.js";
import { detailDialog } from "../gallery/detail.js";
import { chosenRows, readFilters, writtenFilters } from "../gallery/filters.js";
import { facets } from "../gallery/facets.js";
import { pictureGrid } from "../gallery/grid.js";
import { selectionBar } from "../gallery/selection.js";
import { fromAddress, question, written } from "../search/examples.js";
import { mapCanvas } from "./canvas.js";
import { coloured } from "./colours.js";
import { Places } from "./places.js";
import { pointCloud } from "./points.js";

const LANDED = 5; // neighbours that a question lies amid
const REACH = 14; // pixels from a point that a pointer means it

/** Return the view: its element, and `show(values)` that takes up an address. */
export function mapView(context) {
  const selected = new Set();
  let columns = null;
  let places = null;
  let cloud = null;
  let filters = {};
  let keep = null;
  let circled = [];
  let examples = [];
  let landed = null; // {x, y, rows} of a question

  const said = make("p", { class: "soft small num", role: "status" });
  const amid = make("span", { class: "small", role: "status" });
  const colour = make("select", { "aria-label": "Colour", onchange: () => [paint(), remember()] });
  const legend = make("div");
  const preview = make("div", { class: "card preview", hidden: true });
  const side = make("div", { class: "card pad side" });
  const detail = detailDialog(context, { onclose: () => map.element.focus() });
  const lasso = make("button", { class: "ordinary", text: "Circle", title: "Draw around points to list them (or hold Shift)", "aria-pressed": "false", onclick: () => {
    const is = lasso.getAttribute("aria-pressed") !== "true";
    lasso.setAttribute("aria-pressed", String(is));
    map.lasso(is);
  } });
  const tool = (text, title, onclick) => make("button", { class: "ordinary", text, title, "aria-label": title, onclick });
  const map = mapCanvas({
    draw: (view, overlay, line, moving) => {
      if (!cloud) return;
      view.size = Math.max(1.5, Math.min(9, (places.x.length < 2000 ? 7 : places.x.length < 50_000 ? 4 : 2) * Math.sqrt(view.zoom / home))) * map.ratio();
      cloud.draw(view, moving);
      marks(view, overlay, line);
    },
    hover: (x, y, event) => point(x, y, event),
    press: (x, y) => {
      const row = nearest(x, y);
      if (row >= 0) detail.open(columns, row);
    },
    circle: (corners) => list(places.inside(corners, keep)),
  });
  const grid = pictureGrid(context, { label: "Circled pictures", selected, open: (row) => detail.open(columns, row), onselect: () => bar.draw() });
  const bar = selectionBar(context, { selected, all: () => circled, source: () => columns, chosen: () => grid.draw(), changed: () => begin({ renew: true }), choose: (is) => grid.element.classList.toggle("choosing", is) });
  const close = make("button", { class: "plain", text: "Close the list", onclick: () => list([]) });
  const found = make("section", { class: "circled", hidden: true }, make("div", { class: "toolbar" }, bar.element, close), grid.element);
  const stage = make("div", { class: "stage" }, map.element, preview);
  const element = make(
    "div",
    { class: "browse map" },
    make("details", { class: "card side-box", open: matchMedia("(min-width: 900px)").matches }, make("summary", { text: "Colour and filter" }), make("label", { class: "pad order" }, "Colour ", colour), make("div", { class: "pad" }, legend), side),
    make("section", { class: "shown" }, make("div", { class: "toolbar" }, said, amid, make("span", { class: "selection" }, lasso, tool("+", "Zoom in", () => map.zoom(1.5)), tool("−", "Zoom out", () => map.zoom(1 / 1.5)), tool("All", "Show all", () => map.fit(places)))), stage, found),
  );
  let home = 1; // pixels a unit when all is shown

  const nearest = (x, y) => (places && !Number.isNaN(x) ? places.nearest(x, y, (REACH * map.ratio()) / map.view.zoom, keep) : -1);

  const point = async (x, y, event) => {
    const row = nearest(x, y);
    map.element.classList.toggle("pointing", row >= 0);
    if (row < 0) {
      preview.hidden = true;
      preview.dataset.row = "";
      return;
    }
    const box = stage.getBoundingClientRect();
    preview.style.left = `${Math.min(box.width - 180, event.clientX - box.left + 16)}px`;
    preview.style.top = `${Math.min(box.height - 210, event.clientY - box.top + 16)}px`;
    if (preview.dataset.row === String(row)) return;
    preview.dataset.row = row;
    const item = await columns.items([row])[0].catch(() => null);
    if (!item || preview.dataset.row !== String(row)) return;
    preview.replaceChildren(picture(context, item.id, ""), make("span", { class: "small", text: item.label ?? item.id.split("/").pop() }));
    preview.hidden = false;
  };

  const marks = (view, overlay, line) => {
    const ink = overlay.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    const at = ([x, y]) => [(x - view.x) * view.zoom + overlay.width / 2, overlay.height / 2 - (y - view.y) * view.zoom];
    ink.clearRect(0, 0, overlay.width, overlay.height);
    ink.lineWidth = 2 * map.ratio();
    ink.strokeStyle = style.getPropertyValue("--ink");
    if (line) {
      ink.beginPath();
      line.forEach((corner) => ink.lineTo(...at(corner)));
      ink.closePath();
      ink.stroke();
    }
    if (!landed) return;
    for (const row of landed.rows) {
      ink.beginPath();
      ink.arc(...at([places.x[row], places.y[row]]), 8 * map.ratio(), 0, 7);
      ink.stroke();
    }
    const [x, y] = at([landed.x, landed.y]);
    ink.fillStyle = style.getPropertyValue("--unsure");
    ink.beginPath();
    ink.arc(x, y, 9 * map.ratio(), 0, 7);
    ink.fill();
    ink.stroke();
  };

  const list = (rows) => {
    circled = rows;
    selected.clear();
    found.hidden = !rows.length;
    grid.element.setAttribute("aria-label", `Circled pictures: ${count(rows.length)}`);
    if (rows.length) grid.set(columns, rows);
    bar.draw();
    map.redraw();
  };

  const paint = () => {
    const field = columns.field(colour.value);
    const made = coloured(field, columns.count > 50_000 ? 0.55 : 0.9);
    cloud.colours(made.codes, made.palette);
    legend.replaceChildren(made.legend);
    map.redraw();
  };

  const filter = () => {
    keep = new Uint8Array(columns.count);
    const rows = chosenRows(columns, filters, "");
    for (const row of rows) keep[row] = 1;
    cloud.shown(keep);
    const placed = rows.filter((row) => !Number.isNaN(places.x[row])).length;
    said.textContent = `${count(placed)} of ${count(columns.count)} pictures on the map`;
    controls.draw(rows);
    map.redraw();
  };

  const remember = () => writeAddress("map", { ...writtenFilters(filters), colour: colour.value, ...written(examples) });
  let controls = null;

  /** Let the question of an address land amid its nearest pictures. */
  const land = async () => {
    landed = null;
    amid.textContent = "";
    const asked = question(examples);
    if (!asked) return;
    const exclude = examples.filter((one) => one.kind === "item").map(({ name }) => name);
    const body = { mean: Array.from(asked.mean), variance: Array.from(asked.variance), uncertainty: [asked.uncertainty], k: LANDED, exclude };
    const { neighbours } = (await post("search", body)).results[0];
    const ids = neighbours.map(({ id }) => id);
    if (!ids.length) return;
    amid.textContent = `The question lands amid ${neighbours.map(({ label, id }) => label ?? id.split("/").pop()).join(", ")}`;
    const rows = (await post("rows", { ids })).rows.filter((row) => row !== null && !Number.isNaN(places.x[row]));
    const mean = (values) => rows.reduce((sum, row) => sum + values[row], 0) / rows.length;
    if (rows.length) landed = { rows, x: mean(places.x), y: mean(places.y) };
    map.redraw();
  };

  const begin = async ({ renew = false, values = null } = {}) => {
    try {
      columns = await readColumns({ renew });
      const [x, y] = [columns.field("map.x"), columns.field("map.y")];
      if (!x || !y) {
        element.replaceChildren(make("section", { class: "card welcome" }, make("h1", { text: "This gallery has no map yet" }), make("p", { class: "soft", text: "Make one with: vssl gallery map GALLERY. Then reload the page." })));
        return;
      }
      places = new Places(x.data, y.data);
      cloud = pointCloud(map.canvas, x.data, y.data);
      if (values) filters = readFilters(columns, values);
      const shown = { ...columns, fields: columns.fields.filter(({ name }) => !name.startsWith("map.")) };
      controls = facets(shown, filters, (name, choice) => {
        if (choice) filters[name] = choice;
        else delete filters[name];
        filter();
        remember();
      });
      side.replaceChildren(controls.element);
      const wanted = values?.get("colour") ?? colour.value;
      colour.replaceChildren(...shown.fields.map(({ name }) => make("option", { value: name, text: name })));
      colour.value = columns.field(wanted) ? wanted : columns.field("match risk") ? "match risk" : "uncertainty";
      paint();
      filter();
      if (values) {
        map.fit(places);
        home = map.view.zoom;
        examples = await fromAddress(values, context.model.card.dim);
      }
      list([]);
      await land();
      remember();
    } catch (error) {
      context.tell(error, () => begin({ renew, values }));
    }
  };

  return { element, show: (values) => begin({ values }) };
}
