// The gallery's columns, read once as binary numbers -> what every item has, by row.

import { call, post, read } from "../app/server.js";

const CHUNK = 60; // rows that are asked for together

/** All items of the gallery as of one generation. Its `fields` are {name, kind, data, values}. */
export class Columns {
  constructor({ generation, items, fields }) {
    this.generation = generation;
    this.count = items;
    this.fields = fields;
    this.known = new Map(); // row -> promise of the item
  }

  /** Read the columns that there are, all of them at once. Raises ServerError. */
  static async read() {
    const columns = new Columns(await read("columns"));
    await Promise.all(
      columns.fields.map(async (field) => {
        const answer = await call(`columns/${encodeURIComponent(field.name)}`);
        const bytes = await answer.arrayBuffer();
        field.data = field.kind === "number" ? new Float32Array(bytes) : new Uint16Array(bytes);
      }),
    );
    // What was written between two answers makes columns of different lengths.
    const torn = columns.fields.some((field) => field.data.length !== columns.count);
    return torn ? Columns.read() : columns;
  }

  /** Return the field of a name, undefined where there is none. */
  field(name) {
    return this.fields.find((field) => field.name === name);
  }

  /** Return promises of items by row; rows nobody asked for yet are read together. */
  items(rows) {
    const missing = rows.filter((row) => !this.known.has(row));
    for (let start = 0; start < missing.length; start += CHUNK) {
      const part = missing.slice(start, start + CHUNK);
      const answer = read(`items?rows=${part.join(",")}&generation=${this.generation}`);
      const byRow = answer.then(({ items }) => new Map(items.map((item) => [item.row, item])));
      for (const row of part) {
        const item = byRow.then((found) => found.get(row));
        item.catch(() => this.known.delete(row));
        this.known.set(row, item);
      }
    }
    return rows.map((row) => this.known.get(row));
  }
}

let current = null;

/** Return the gallery's columns, read once; `renew` reads them again after a change. */
export function columns({ renew = false } = {}) {
  if (renew) current = null;
  current ??= Columns.read().catch((error) => {
    current = null;
    throw error;
  });
  return current;
}

/** Return the neighbours of an item, itself left out. Raises ServerError. */
export async function neighboursOf(example, k) {
  const { mean, variance, uncertainty, name } = example;
  const body = { mean: Array.from(mean), variance: Array.from(variance), uncertainty: [uncertainty], k, exclude: [name] };
  return (await post("search", body)).results[0];
}
