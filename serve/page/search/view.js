// The search view: what is asked about, how, and the answer; all of it stands in the address.

import { addressOf, writeAddress } from "../app/address.js";
import { later, make, percent, slider } from "../app/dom.js";
import { call, post, read } from "../app/server.js";
import { picture } from "../app/thumbnails.js";
import { answerCard, judge, placeOf } from "./answer.js";
import { disturbControls, disturbed, isDisturbed } from "./disturb.js";
import { embedded, fromAddress, ofItem, question, written } from "./examples.js";
import { neighbourList } from "./neighbours.js";
import { dropZone } from "./pick.js";
import { profile } from "./profile.js";
import { tiles } from "./tiles.js";

const MOST_EXAMPLES = 24;
const ANY_RISK = 51; // the slider's right end: nothing is withheld
const SAMPLES = 18;
const DEFAULTS = { k: 12, distance: "", risk: ANY_RISK, surer: 100 };

/** Return the view: its element, and `show(values)` that takes up an address. */
export function searchView(context) {
  const { model, gallery, tell } = context;
  const state = { examples: [], ...DEFAULTS };
  let uncertainty = null;
  let running = null;
  let taken = ""; // the address that the state was last read from, or written to

  const ask = async ({ step = false } = {}) => {
    remember(step);
    const asked = question(state.examples);
    if (!asked) {
      welcome();
      return;
    }
    running?.abort();
    running = new AbortController();
    const { signal } = running;
    results.classList.add("busy");
    try {
      const result = gallery ? await search(asked, signal) : asked;
      if (signal.aborted) return;
      tell(null);
      results.replaceChildren(...(gallery ? answered(result) : [profile(asked)]));
    } catch (error) {
      tell(error, () => ask());
    } finally {
      if (!signal.aborted) results.classList.remove("busy");
    }
  };

  const search = async (asked, signal) => {
    const body = {
      mean: Array.from(asked.mean),
      variance: Array.from(asked.variance),
      uncertainty: [asked.uncertainty],
      k: state.k,
      exclude: [...new Set(state.examples.filter((one) => one.kind === "item" && one.role).map((one) => one.name))],
    };
    if (state.distance) body.distance = state.distance;
    if (state.risk < ANY_RISK) body.max_risk = state.risk / 100;
    if (state.surer < 100) body.max_uncertainty = await quantile(state.surer / 100);
    return (await post("search", body, { signal })).results[0];
  };

  const answered = (result) => {
    const judged = judge(result, { risk: state.risk / 100 });
    const card = answerCard(result, judged, placeOf(result, uncertainty));
    if (!uncertainty) distribution().then(() => card.querySelector(".beside > div > div")?.replaceWith(placeOf(result, uncertainty)));
    if (gallery.map) card.append(make("a", { class: "small", href: addressOf("map", written(state.examples)), text: "Show where it lands on the map" }));
    return [card, neighbourList(context, result.neighbours, addItem)];
  };

  /** Read the gallery's uncertainties, once. */
  const distribution = async () => {
    uncertainty ??= new Float32Array(await (await call("columns/uncertainty")).arrayBuffer());
    return uncertainty;
  };
  const quantile = async (share) => {
    const sorted = (await distribution()).slice().sort();
    return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 1;
  };

  // --- what is asked about ---------------------------------------------------------------

  const takeFiles = async (files) => {
    for (const file of files) {
      try {
        const example = await embedded(file, file.name);
        example.url = URL.createObjectURL(file);
        example.bitmap = await createImageBitmap(file).catch(() => null);
        for (const one of state.examples) one.role = 0;
        state.examples.push(example);
        refresh();
        await ask({ step: true });
      } catch (error) {
        tell(error.status ? new Error(`${file.name}: ${error.message}`) : error, () => takeFiles([file]));
      }
    }
  };

  const addItem = async (id, role, { alone = false } = {}) => {
    try {
      const known = state.examples.find((one) => one.kind === "item" && one.name === id);
      const example = known ?? (await ofItem(id));
      if (!known) state.examples.push(example);
      if (alone) for (const one of state.examples) one.role = 0;
      example.role = role;
      refresh();
      await ask({ step: true });
    } catch (error) {
      tell(error, () => addItem(id, role, { alone }));
    }
  };

  const change = (example, role) => {
    if (role === null) state.examples = state.examples.filter((one) => one !== example);
    else example.role = role;
    refresh();
    ask({ step: true });
  };
  const only = (example) => {
    for (const one of state.examples) one.role = one === example ? 1 : 0;
    refresh();
    ask({ step: true });
  };

  const refresh = () => {
    state.examples.splice(0, state.examples.length - MOST_EXAMPLES).forEach((one) => one.url && URL.revokeObjectURL(one.url));
    shown.replaceChildren(tiles(context, state.examples, { change, only }));
    disturb.element.hidden = !alone()?.bitmap;
  };
  const alone = () => {
    const asked = state.examples.filter((one) => one.role);
    return asked.length === 1 ? asked[0] : null;
  };

  const disturb = disturbControls(
    later(async (amounts) => {
      const example = alone();
      if (!example?.bitmap) return;
      try {
        example.original ??= { mean: example.mean, variance: example.variance, uncertainty: example.uncertainty };
        let numbers = example.original;
        example.canvas = null;
        if (isDisturbed(amounts)) {
          example.canvas = disturbed(example.bitmap, amounts);
          numbers = await embedded(await new Promise((done) => example.canvas.toBlob(done, "image/png")), example.name);
        }
        Object.assign(example, { mean: numbers.mean, variance: numbers.variance, uncertainty: numbers.uncertainty });
        refresh();
        await ask();
      } catch (error) {
        tell(error);
      }
    }, 120),
  );

  // --- the page ----------------------------------------------------------------------------

  const set = (name) => (value) => {
    state[name] = value;
    askSoon();
  };
  const askSoon = later(ask, 60);
  const controls = {
    k: slider("Neighbours", { min: 1, max: 60, value: state.k, written: String, oninput: set("k") }),
    risk: slider("Risk", { min: 1, max: ANY_RISK, value: state.risk, written: (v) => (v >= ANY_RISK ? "any" : `${v} %`), oninput: set("risk"), title: "How often a trusted answer may be wrong; other answers are marked" }),
    surer: slider("Only surer", { min: 1, max: 100, value: 100, written: (v) => (v >= 100 ? "all" : `${v} %`), oninput: set("surer"), title: "Only the pictures of the gallery that the model is surest of" }),
  };
  const names = model.distances ?? [];
  const distance = make(
    "select",
    { onchange: () => set("distance")(distance.value === gallery.distance ? "" : distance.value) },
    ...names.map((name) => make("option", { value: name, text: name === gallery?.distance ? `${name} (the gallery’s)` : name })),
  );
  controls.risk.hidden = !gallery?.labels;
  const options = make(
    "details",
    { class: "card pad", hidden: !gallery, open: matchMedia("(min-width: 900px)").matches },
    make("summary", { text: "How to search" }),
    controls.k,
    make("label", { class: "row" }, make("span", { text: "Distance" }), distance),
    controls.risk,
    controls.surer,
  );
  const shown = make("div");
  const results = make("div", { class: "results" });
  const element = make(
    "div",
    { class: "search" },
    make("div", { class: "aside" }, make("section", { class: "card pad" }, dropZone(takeFiles), shown), options, disturb.element),
    results,
  );

  const welcome = async () => {
    running?.abort();
    results.classList.remove("busy");
    const invite = gallery
      ? "Drop, paste or choose one, or begin with a picture of the gallery."
      : "Drop, paste or choose one: you see how unclear it is to the model. (This server has no gallery to search.)";
    const samples = make("ul", { class: "samples" });
    results.replaceChildren(make("section", { class: "card welcome" }, make("h1", { text: "What are you looking for?" }), make("p", { class: "soft", text: invite }), samples));
    if (!gallery?.items) return;
    try {
      const step = Math.max(1, Math.floor(gallery.items / SAMPLES));
      const rows = Array.from({ length: SAMPLES }, (_, at) => at * step).filter((row) => row < gallery.items);
      const { items } = await read(`items?rows=${rows.join(",")}`);
      const button = ({ id, label }) =>
        make("button", { class: "picture", "aria-label": `Search for pictures similar to ${label ?? id}`, title: id, onclick: () => addItem(id, 1, { alone: true }) }, picture(context, id, ""));
      samples.replaceChildren(...items.map((item) => make("li", {}, button(item))));
    } catch (error) {
      if (error.status !== 400) tell(error); // a gallery that cannot be browsed is still searched
    }
  };

  // --- the address -------------------------------------------------------------------------

  const remember = (step) => {
    const values = { ...written(state.examples), distance: state.distance };
    if (state.k !== DEFAULTS.k) values.k = state.k;
    if (state.risk !== DEFAULTS.risk) values.risk = state.risk;
    if (state.surer !== DEFAULTS.surer) values.surer = state.surer;
    writeAddress("search", values, { step });
    taken = location.hash;
  };

  const show = async (values) => {
    if (taken === location.hash && results.childElementCount) return;
    taken = location.hash;
    for (const name of ["k", "risk", "surer"]) {
      const given = Number(values.get(name));
      const { min, max } = controls[name].input;
      state[name] = Number.isInteger(given) && given >= min && given <= max ? given : DEFAULTS[name];
      controls[name].set(state[name]);
    }
    state.distance = names.includes(values.get("distance")) ? values.get("distance") : "";
    distance.value = state.distance || gallery?.distance || "";
    try {
      state.examples = await fromAddress(values, model.card.dim);
    } catch (error) {
      state.examples = [];
      tell(error);
    }
    refresh();
    await ask();
  };

  return { element, show };
}
