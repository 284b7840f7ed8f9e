// Pictures that a person gives, and items of the gallery -> one question: a Gaussian to search with.
//
// An example is {kind: "picture" | "item", name, role, mean, variance, uncertainty}; role is 1 for "like
// this", -1 for "unlike this" and 0 for one that waits. Several become one by the centroid of the first
// minus half the centroid of the second (Rocchio 1971), of means at length one, with the variance that
// such a sum of independent Gaussians has.

import { floats, call, itemPath, read } from "../app/server.js";

const AWAY = 0.5;
const MOST_IN_ADDRESS = 512; // dimensions; more make an address that is too long to pass on

/** Return the example of a picture's bytes: the server embeds it. Raises ServerError. */
export async function embedded(blob, name, options = {}) {
  const answer = await call("embed?encoding_format=base64", { method: "POST", body: blob, ...options });
  const body = await answer.json();
  const { mean, variance, uncertainty } = body.results[0];
  const numbers = { mean: floats(mean), variance: floats(variance), uncertainty };
  return { kind: "picture", name, role: 1, model: body.model_id, ...numbers };
}

/** Return the example of an item of the gallery. Raises ServerError. */
export async function ofItem(id, role = 1) {
  const item = await read(`${itemPath("gallery", id)}?encoding_format=base64`);
  const mean = floats(item.mean);
  // Means without variances: what stands for them is not looked at.
  const numbers = { mean, variance: item.variance ? floats(item.variance) : mean.map(() => 1), uncertainty: item.uncertainty ?? 0 };
  return { kind: "item", name: id, role, label: item.label, ...numbers };
}

/** Return {mean, variance, uncertainty} of all examples together, null where none is to be like. */
export function question(examples) {
  const like = examples.filter(({ role }) => role > 0);
  const unlike = examples.filter(({ role }) => role < 0);
  if (!like.length) return null;
  if (like.length === 1 && !unlike.length) return like[0];
  const mean = new Float64Array(like[0].mean.length);
  const variance = new Float64Array(mean.length);
  for (const [group, share] of [[like, 1], [unlike, -AWAY]]) {
    for (const one of group) {
      const norm = Math.hypot(...one.mean) || 1;
      const weight = share / group.length / norm;
      one.mean.forEach((value, d) => (mean[d] += weight * value));
      one.variance.forEach((value, d) => (variance[d] += weight ** 2 * value));
    }
  }
  const uncertainty = like.reduce((sum, one) => sum + one.uncertainty, 0) / like.length;
  return { mean, variance, uncertainty };
}

/** Return what the address says of examples: ids of items, and Gaussians of pictures. */
export function written(examples) {
  const values = { like: [], unlike: [], picture: [], unpicture: [] };
  for (const example of examples) {
    if (example.role === 0) continue;
    const item = example.kind === "item";
    if (!item && example.mean.length > MOST_IN_ADDRESS) continue;
    const name = (example.role < 0 ? "un" : "") + (item ? "like" : "picture");
    values[name].push(item ? example.name : packed(example));
  }
  return values;
}

/** Return the examples that an address names. Raises ServerError for an item that is gone. */
export async function fromAddress(values, dim) {
  const pictures = [["picture", 1], ["unpicture", -1]].flatMap(([name, role]) =>
    values.getAll(name).map((text) => unpacked(text, role, dim)),
  );
  const items = [["like", 1], ["unlike", -1]].flatMap(([name, role]) => values.getAll(name).map((id) => ofItem(id, role)));
  return [...pictures.filter(Boolean), ...(await Promise.all(items))];
}

function packed({ mean, variance, uncertainty }) {
  const bytes = new Uint8Array(Float32Array.of(uncertainty, ...mean, ...variance).buffer);
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function unpacked(text, role, dim) {
  let numbers;
  try {
    numbers = floats(text.replaceAll("-", "+").replaceAll("_", "/"));
  } catch {
    return null;
  }
  if (numbers.length !== 2 * dim + 1) return null; // of another model
  const [mean, variance] = [numbers.slice(1, dim + 1), numbers.slice(dim + 1)];
  return { kind: "picture", name: "a picture from a link", role, mean, variance, uncertainty: numbers[0] };
}
