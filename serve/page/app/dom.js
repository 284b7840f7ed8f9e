// Names and values -> elements; numbers -> how they are written.

/** Return a new element. `on...` adds a listener, `class`, `text` and properties are set, other names are attributes. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name in element && !name.includes("-") && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return a labelled slider; `written` says what a value means. Its `input` is the range itself. */
export function slider(label, { min, max, step = 1, value, written, oninput, title }) {
  const shown = make("output", { class: "num" });
  const input = make("input", { type: "range", min, max, step, value, title });
  const tell = () => {
    shown.textContent = written(Number(input.value));
    input.setAttribute("aria-valuetext", shown.textContent);
  };
  input.addEventListener("input", () => {
    tell();
    oninput(Number(input.value));
  });
  tell();
  const row = make("label", { class: "row" }, make("span", { text: label }), input, shown);
  return Object.assign(row, {
    input,
    set(next) {
      input.value = next;
      tell();
    },
  });
}

/** Return a number as a person reads it: three digits that matter. */
export function digits(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "none";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(1);
  return size >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}

/** Return a share 0..1 as whole percent; what is not all or nothing is never written as 0 or 100. */
export function percent(share) {
  const whole = Math.round(100 * share);
  if (whole <= 0 && share > 0) return "under 1 %";
  if (whole >= 100 && share < 1) return "over 99 %";
  return `${whole} %`;
}

/** Return where something stands in the gallery, of which a share is surer. */
export function standing(share) {
  if (share <= 0) return "surer than all others of the gallery";
  if (share >= 1) return "less sure than all others of the gallery";
  return `${share > 0.5 ? `less sure than ${percent(share)}` : `surer than ${percent(1 - share)}`} of the gallery`;
}

/** Return a count with the thousands apart. */
export const count = (number) => number.toLocaleString("en");

/** Return a function that runs `work` once, `wait` ms after its last call. */
export function later(work, wait) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), wait);
  };
}

/** Return the colour of a probability that something is right: from vermilion over yellow to blue-green. */
export function sureness(probability) {
  const share = Math.min(1, Math.max(0, probability));
  return share >= 0.8 ? "var(--sure)" : share >= 0.5 ? "var(--middling)" : "var(--unsure)";
}
