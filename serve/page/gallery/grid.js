// Rows -> a grid of pictures that scrolls through any number of them: only tiles in sight exist.
//
// A listbox for screen readers and keys: arrows move, Enter opens, Space chooses.

import { digits, make } from "../app/dom.js";
import { picture } from "../app/thumbnails.js";

const SIDE = 132; // pixels of a tile at least, and of its text below
const TEXT = 40;
const GAP = 8;
const AHEAD = 4; // lines of tiles above and below what is in sight, whose pictures come after those in sight
const HIGHEST = 15_000_000; // pixels that browsers let an element be high

let grids = 0;

/** Return {element, set(rows), redraw()}. `selected` is a Set of rows; `open(row)` and `onselect()` are called. */
export function pictureGrid(context, { label, selected, open, onselect }) {
  const canvas = make("div", { class: "canvas" });
  const element = make("div", { class: "grid", role: "listbox", tabIndex: 0, "aria-label": label, "aria-multiselectable": "true" }, canvas);
  const name = `tile-${(grids += 1)}`;
  let source = null;
  let rows = [];
  let active = 0;
  const tiles = new Map(); // position -> tile

  const measure = () => {
    const width = element.clientWidth - GAP;
    const across = Math.max(2, Math.floor(width / (SIDE + GAP)));
    const side = (width - GAP * across) / across;
    const line = side + TEXT + GAP;
    const lines = Math.ceil(rows.length / across);
    const height = Math.min(HIGHEST, lines * line);
    // Where there are more lines than pixels allow, scrolling is stretched over them.
    const stretch = height > element.clientHeight ? (lines * line - element.clientHeight) / (height - element.clientHeight) : 1;
    return { across, side, line, lines, height, stretch };
  };

  const draw = () => {
    if (!source || !element.clientWidth) return;
    const shape = measure();
    canvas.style.height = `${shape.height}px`;
    const top = element.scrollTop * shape.stretch;
    const [above, below] = [Math.floor(top / shape.line), Math.ceil((top + element.clientHeight) / shape.line)];
    const first = Math.max(0, above - AHEAD) * shape.across;
    const last = Math.min(rows.length, (below + AHEAD) * shape.across);
    const inSight = (position) => position >= above * shape.across && position < below * shape.across;
    for (const [position, tile] of tiles) {
      if (position >= first && position < last) continue;
      tile.remove();
      tiles.delete(position);
    }
    const fresh = [];
    for (let position = first; position < last; position += 1) {
      let tile = tiles.get(position);
      if (!tile) {
        tile = blank(position);
        tiles.set(position, tile);
        fresh.push(position);
      }
      tile.style.width = `${shape.side}px`;
      tile.style.height = `${shape.side + TEXT}px`;
      const y = Math.floor(position / shape.across) * shape.line + GAP - top + element.scrollTop;
      tile.style.transform = `translate(${GAP + (position % shape.across) * (shape.side + GAP)}px, ${y}px)`;
      mark(tile, position);
    }
    if (!tiles.has(active)) element.removeAttribute("aria-activedescendant");
    canvas.append(...fresh.map((position) => tiles.get(position)));
    fill(fresh.filter(inSight));
    fill(fresh.filter((position) => !inSight(position)));
  };

  const blank = (position) => make("div", { class: "tile-in-grid", role: "option", id: `${name}-${position}`, "aria-posinset": position + 1, "aria-label": `picture ${position + 1}` }, make("span", { class: "shot" }));

  const fill = (positions) => {
    source.items(positions.map((position) => rows[position])).forEach(async (found, at) => {
      try {
        const item = await found;
        const tile = tiles.get(positions[at]);
        if (!item || !tile || rows[positions[at]] !== item.row) return;
        const title = item.label ?? item.id.split("/").pop();
        const bar = make("i");
        bar.style.width = `${100 * item.uncertainty}%`;
        tile.setAttribute("aria-label", `${title}, uncertainty ${digits(item.uncertainty)}`);
        tile.title = item.id;
        tile.replaceChildren(picture(context, item.id, ""), make("span", { class: "name", text: title }), make("span", { class: "bar unsure-bar", title: `uncertainty ${digits(item.uncertainty)}` }, bar));
      } catch (error) {
        context.tell(error, redraw);
      }
    });
  };

  const mark = (tile, position) => {
    tile.setAttribute("aria-selected", String(selected.has(rows[position])));
    tile.setAttribute("aria-setsize", rows.length);
    tile.classList.toggle("active", position === active && document.activeElement === element);
    if (position === active) element.setAttribute("aria-activedescendant", tile.id);
  };

  const redraw = () => {
    for (const tile of tiles.values()) tile.remove();
    tiles.clear();
    draw();
  };

  const choose = (position, through) => {
    const [from, to] = through ? [Math.min(active, position), Math.max(active, position)] : [position, position];
    const is = through || !selected.has(rows[position]);
    for (let at = from; at <= to; at += 1) selected[is ? "add" : "delete"](rows[at]);
    active = position;
    onselect();
    draw();
  };

  const move = (to, through) => {
    const { across, line, stretch } = measure();
    const target = Math.max(0, Math.min(rows.length - 1, to));
    if (through) choose(target, true);
    active = target;
    const y = Math.floor(active / across) * line;
    const top = element.scrollTop * stretch;
    if (y < top) element.scrollTop = y / stretch;
    else if (y + line > top + element.clientHeight) element.scrollTop = (y + line + GAP - element.clientHeight) / stretch;
    draw();
  };

  element.addEventListener("keydown", (event) => {
    const { across } = measure();
    const page = across * Math.max(1, Math.floor(element.clientHeight / measure().line));
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across, PageDown: page, PageUp: -page, Home: -rows.length, End: rows.length };
    if (event.key in steps) move(active + steps[event.key], event.shiftKey);
    else if (event.key === "Enter" && rows.length) open(rows[active]);
    else if (event.key === " " && rows.length) choose(active, false);
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile-in-grid");
    if (!tile) return;
    const position = Number(tile.getAttribute("aria-posinset")) - 1;
    if (event.shiftKey || event.ctrlKey || event.metaKey || element.classList.contains("choosing")) choose(position, event.shiftKey);
    else {
      active = position;
      open(rows[position]);
    }
  });
  for (const name of ["scroll", "focus", "blur"]) element.addEventListener(name, () => requestAnimationFrame(draw));
  new ResizeObserver(() => draw()).observe(element);

  return {
    element,
    redraw,
    draw,
    set(columns, next) {
      source = columns;
      rows = next;
      active = 0;
      element.scrollTop = 0;
      redraw();
    },
  };
}
