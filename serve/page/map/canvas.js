// Pointers, wheel and keys on the map -> where one looks, what one points at, and what one circles.

import { later, make } from "../app/dom.js";

const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/** Return {element, view, fit(places), redraw(), overlay}; `hover(x, y, event)`, `press(x, y)` and `circle(corners)` are called.
 *
 * view: {x, y, zoom, size}: the middle in the map's units, pixels a unit, and pixels of a point.
 */
export function mapCanvas({ draw, hover, press, circle }) {
  const canvas = make("canvas", { class: "points" });
  const overlay = make("canvas", { class: "points over" });
  const element = make("div", { class: "map-canvas", tabIndex: 0, role: "application", "aria-label": "Map of the gallery. Arrow keys move, plus and minus zoom, 0 shows all. Draw around points to list them." }, canvas, overlay);
  const view = { x: 0, y: 0, zoom: 1, size: 3 };
  let whole = null;
  let waiting = false;
  let moving = false;
  let lasso = false;
  const pointers = new Map();
  let line = null;

  const ratio = () => Math.min(2, window.devicePixelRatio || 1);
  const stand = later(() => {
    moving = false;
    redraw();
  }, 160);
  /** Draw while one moves: quickly now, and all of it when one stands still. */
  const move = () => {
    moving = true;
    redraw();
    stand();
  };
  const redraw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      for (const one of [canvas, overlay]) {
        const [width, height] = [Math.round(element.clientWidth * ratio()), Math.round(element.clientHeight * ratio())];
        if (one.width !== width || one.height !== height) [one.width, one.height] = [width, height];
      }
      if (canvas.width) draw(view, overlay, line, moving);
    });
  };
  const fit = (places) => {
    whole = places;
    const [width, height] = [element.clientWidth * ratio(), element.clientHeight * ratio()];
    view.x = (places.left + places.right) / 2;
    view.y = (places.bottom + places.top) / 2;
    view.zoom = 0.94 * Math.min(width / places.width, height / places.height);
    redraw();
  };
  /** Return the place in the map's units of a pointer's event. */
  const at = (event) => {
    const box = element.getBoundingClientRect();
    const x = (event.clientX - box.left - box.width / 2) * ratio();
    const y = (box.top + box.height / 2 - event.clientY) * ratio();
    return [view.x + x / view.zoom, view.y + y / view.zoom];
  };
  const zoom = (factor, [x, y] = [view.x, view.y]) => {
    view.x = x + (view.x - x) / factor;
    view.y = y + (view.y - y) / factor;
    view.zoom *= factor;
    move();
  };

  element.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.0015), at(event));
  }, { passive: false });
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
    if (pointers.size === 1 && (lasso || event.shiftKey)) line = [at(event)];
  });
  element.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) {
      hover(...at(event), event);
      return;
    }
    if (line) line.push(at(event));
    else if (pointers.size === 1) {
      view.x -= ((event.clientX - before.clientX) * ratio()) / view.zoom;
      view.y += ((event.clientY - before.clientY) * ratio()) / view.zoom;
      move();
    } else {
      const other = [...pointers.values()].find((one) => one.pointerId !== event.pointerId);
      const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
      zoom(apart(event) / apart(before), at(other));
    }
    event.travelled = (before.travelled ?? 0) + Math.abs(event.clientX - before.clientX) + Math.abs(event.clientY - before.clientY);
    pointers.set(event.pointerId, event);
    redraw();
  });
  const up = (event) => {
    const last = pointers.get(event.pointerId);
    pointers.delete(event.pointerId);
    if (line && line.length > 2) circle(line);
    else if (last && (last.travelled ?? 0) < 5) press(...at(event));
    line = null;
    redraw();
  };
  element.addEventListener("pointerup", up);
  element.addEventListener("pointercancel", up);
  element.addEventListener("pointerleave", () => hover(NaN, NaN, null));
  element.addEventListener("keydown", (event) => {
    if (event.key in KEYS) {
      const [x, y] = KEYS[event.key];
      const step = (80 * ratio()) / view.zoom;
      view.x += x * step;
      view.y += y * step;
      move();
    } else if (event.key === "+" || event.key === "=") zoom(1.4);
    else if (event.key === "-") zoom(1 / 1.4);
    else if (event.key === "0" && whole) fit(whole);
    else return;
    event.preventDefault();
  });
  new ResizeObserver(redraw).observe(element);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  return {
    element,
    canvas,
    view,
    fit,
    redraw,
    ratio,
    zoom,
    lasso(is) {
      lasso = is;
      element.classList.toggle("lasso", is);
    },
  };
}
