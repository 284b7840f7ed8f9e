// What a person chose to see -> the rows that are shown, in order.
//
// A filter is {field: [low, high]} for numbers and {field: Set of texts} for texts ("" is no value);
// fields are joined by and, the texts of one field by or.

const SEPARATOR = "..";

/** Return the rows that every filter keeps, sorted by `sort`: "" as added, "name" ascending, "-name" descending. */
export function chosenRows(columns, filters, sort) {
  const keep = new Uint8Array(columns.count).fill(1);
  for (const [name, chosen] of Object.entries(filters)) apply(columns.field(name), chosen, keep);
  const rows = [];
  for (let row = 0; row < keep.length; row += 1) if (keep[row]) rows.push(row);
  const field = columns.field(sort.replace("-", ""));
  if (!field) return rows;
  const sign = sort.startsWith("-") ? -1 : 1;
  const { data } = field;
  const last = field.kind === "number" ? (row) => Number.isNaN(data[row]) : (row) => data[row] === 0;
  return rows.sort((a, b) => last(a) - last(b) || sign * (data[a] - data[b]) || a - b);
}

/** Take out of `keep` the rows that one field's choice leaves out. */
function apply(field, chosen, keep) {
  if (!field) return;
  const { data } = field;
  if (field.kind === "number") {
    const [low, high] = chosen;
    for (let row = 0; row < keep.length; row += 1) if (!(data[row] >= low && data[row] <= high)) keep[row] = 0;
    return;
  }
  const wanted = new Uint8Array(field.values.length + 1);
  field.values.forEach((text, at) => (wanted[at + 1] = chosen.has(text) ? 1 : 0));
  wanted[0] = chosen.has("") ? 1 : 0;
  for (let row = 0; row < keep.length; row += 1) keep[row] &= wanted[data[row]];
}

/** Return what of a choice stands in the address: names with a dot before them are fields. */
export function writtenFilters(filters) {
  const values = {};
  for (const [name, chosen] of Object.entries(filters)) {
    values[`.${name}`] = chosen instanceof Set ? [...chosen].map((text) => text || " ") : chosen.map((v) => String(v)).join(SEPARATOR);
  }
  return values;
}

/** Return the choice that an address names; what no field has is passed over. */
export function readFilters(columns, values) {
  const filters = {};
  for (const field of columns.fields) {
    const given = values.getAll(`.${field.name}`);
    if (!given.length) continue;
    if (field.kind === "text") filters[field.name] = new Set(given.map((text) => (text === " " ? "" : text)));
    else {
      const range = given[0].split(SEPARATOR).map(Number);
      if (range.length === 2 && !range.some(Number.isNaN)) filters[field.name] = range;
    }
  }
  return filters;
}

/** Return {low, high, bins}: how many of the rows lie in each of `size` equal parts of the field's range. */
export function histogram(field, size, rows = null) {
  let [low, high] = field.range ?? [Infinity, -Infinity];
  if (!field.range) {
    for (const value of field.data) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (low > high) [low, high] = [0, 1];
    field.range = [low, high];
  }
  const bins = new Uint32Array(size);
  const scale = size / (high - low || 1);
  const add = (value) => {
    if (!Number.isNaN(value)) bins[Math.min(size - 1, Math.floor((value - low) * scale))] += 1;
  };
  if (rows) for (const row of rows) add(field.data[row]);
  else for (const value of field.data) add(value);
  return { low, high, bins };
}

/** Return how many of the rows have each text of a field: of none first. */
export function counts(field, rows) {
  const found = new Uint32Array(field.values.length + 1);
  for (const row of rows) found[field.data[row]] += 1;
  return found;
}
