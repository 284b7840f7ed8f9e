// What a search found -> how sure the answer is, as one sentence, and why it is not surer.

import { digits, make, percent, standing } from "../app/dom.js";

const SURE = 0.8;
const EVEN = 0.5;
const AGREED = 0.75; // of the neighbours, by their match probability, which has heard their votes
const RISKY = 0.95; // rank of an answer's risk
const UNCLEAR = 95; // percent of the gallery that is surer than the query

/** Return {level, sentence}: level is `sure`, `middling`, `unsure` or `unknown`. */
export function judge(result, { risk = null } = {}) {
  const near = result.neighbours;
  if (!near.length) {
    return { level: "unknown", sentence: "Nothing to show: no picture of the gallery fits. Loosen “only surer”." };
  }
  const first = near[0];
  const probability = first.match_probability;
  if (probability === null) {
    const risky = typeof result.risk === "number" ? ` Riskier than ${percent(result.risk)} of the gallery's own answers.` : "";
    const sentence = `How likely these are right cannot be said: the gallery needs some hundred labelled pictures to calibrate on.${risky} ${unclear(result, "The picture")}`;
    return { level: "unknown", sentence: sentence.trim() };
  }
  const votes = tally(near);
  const agreed = votes.length ? votes[0].share : 0;
  const name = first.label ?? "no label";
  const same = votes.filter(({ label }) => label === first.label).reduce((sum, vote) => sum + vote.count, 0);
  const why = reason(result, votes, probability);
  const right = `the nearest, “${name}”, is right with a chance of ${percent(probability)}`;
  if (result.abstain) {
    return { level: "unsure", sentence: `Not to be trusted at a risk of ${percent(risk ?? 0)}: ${right}${why ? `; ${why}` : ""}.` };
  }
  if (probability >= SURE && agreed >= AGREED && votes[0].label === first.label && !why) {
    return { level: "sure", sentence: `Likely “${name}”: the nearest is right with a chance of ${percent(probability)}, and ${same} of ${near.length} neighbours agree.` };
  }
  const start = probability >= EVEN ? "Perhaps" : "Unsure";
  const level = probability >= EVEN ? "middling" : "unsure";
  return { level, sentence: `${start}: ${right}${why ? `; ${why}` : ""}.` };
}

/** Return why an answer is not surer, in words; empty where nothing stands out. */
function reason(result, votes, probability) {
  const hard = unclear(result, "the picture itself");
  if (hard) return hard.replace(/\.$/, "");
  const risky = riskier(result.risk);
  if (probability < 0.3) return "nothing in the gallery is like it";
  if (votes.length > 1 && votes[0].share < AGREED) {
    const kinds = votes.slice(0, 3).map(({ label, count }) => `${label} (${count})`);
    return `several labels lie near: ${kinds.join(", ")}`;
  }
  return risky;
}

/** Return in words that an answer is among the riskiest, by its rank among those that the gallery gives to its own pictures. */
function riskier(rank) {
  return rank !== null && rank >= RISKY ? `this answer is riskier than ${Math.floor(100 * rank)} % of those to the gallery’s own pictures` : "";
}

function unclear(result, subject) {
  const percentile = result.uncertainty_percentile;
  if (percentile === null || percentile === undefined || percentile < UNCLEAR) return "";
  return `${subject} is unclear to the model (less sure than ${Math.floor(percentile)} % of the gallery): damaged, or unlike what it knows.`;
}

/** Return [{label, count, share}] of the labelled neighbours, most first; shares are of their match probabilities. */
export function tally(near) {
  const votes = new Map();
  let total = 0;
  for (const { label, match_probability: weight } of near) {
    if (label === null) continue;
    const vote = votes.get(label) ?? { label, count: 0, share: 0 };
    vote.count += 1;
    vote.share += weight ?? 1;
    total += weight ?? 1;
    votes.set(label, vote);
  }
  const sorted = [...votes.values()].sort((a, b) => b.share - a.share);
  return sorted.map((vote) => ({ ...vote, share: total ? vote.share / total : 0 }));
}

/** Return the card that stands above the results: the sentence, the labels near, and the query's own uncertainty. */
export function answerCard(result, judged, distribution) {
  const bars = tally(result.neighbours)
    .slice(0, 5)
    .map(({ label, count, share }) => bar(label, share, `${count}/${result.neighbours.length}`));
  const side = bars.length ? make("div", { class: "votes" }, make("h2", { text: "What the neighbours are" }), ...bars) : null;
  return make(
    "section",
    { class: `card pad answer ${judged.level}`, "aria-live": "polite" },
    make("p", { class: "sentence", text: judged.sentence }),
    make("div", { class: "beside" }, make("div", {}, make("h2", { text: "How clear the picture is to the model" }), distribution), side),
  );
}

function bar(label, share, text) {
  const fill = make("i");
  fill.style.width = `${100 * share}%`;
  return make("div", { class: "vote" }, make("span", { text: label, title: label }), make("span", { class: "bar" }, fill), make("span", { class: "num soft", text }));
}

/** Return the gallery's uncertainties as a histogram with the query's place in it. */
export function placeOf(result, uncertainty) {
  const percentile = result.uncertainty_percentile;
  const words =
    percentile === null || percentile === undefined
      ? `Uncertainty ${digits(result.uncertainty)} (0 is sure, 1 is anything).`
      : `Uncertainty ${digits(result.uncertainty)}: ${standing(percentile / 100)}.`;
  const said = make("p", { class: "soft small", text: words });
  if (!uncertainty?.length) return make("div", {}, said);
  const canvas = make("canvas", { class: "histogram", width: 600, height: 64, role: "img", "aria-label": words });
  draw(canvas, uncertainty, result.uncertainty);
  return make("div", {}, canvas, make("div", { class: "ends" }, make("span", { text: "clear" }), make("span", { text: "unclear" })), said);
}

function draw(canvas, uncertainty, own) {
  const bins = new Float64Array(60);
  let low = Math.min(own, 1);
  let high = Math.max(own, 0);
  for (const value of uncertainty) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const width = high - low || 1;
  const place = (value) => Math.min(bins.length - 1, Math.floor(((value - low) / width) * bins.length));
  for (const value of uncertainty) bins[place(value)] += 1;
  const most = Math.max(...bins);
  const ink = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const step = canvas.width / bins.length;
  ink.fillStyle = style.getPropertyValue("--faint");
  bins.forEach((number, at) => ink.fillRect(at * step, canvas.height * (1 - (0.9 * number) / most), step - 1, canvas.height));
  ink.fillStyle = style.getPropertyValue("--ink");
  ink.fillRect(((own - low) / width) * (canvas.width - 4), 0, 4, canvas.height);
}
