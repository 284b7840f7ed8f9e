// What each list of the curation is called, what it says of a picture, and why one would look at it.

import { digits, percent } from "../app/dom.js";

/** Lists by name: `title`, `why`, and `words(one)`: what stands below a picture. */
export const LISTS = {
  duplicates: {
    title: "Duplicates",
    why: "Pairs that may show the same, closest first. Keep the better one.",
    pairs: true,
    words: (one) => [`${percent(one.probability)} likely the same`, `closeness ${digits(one.closeness)}`],
  },
  uncertain: {
    title: "Least sure",
    why: "What the model is least sure of: damaged pictures, or unlike what it knows.",
    words: (one) => [`uncertainty ${digits(one.uncertainty)}`],
  },
  outliers: {
    title: "Outliers",
    why: "Farthest from everything else in the gallery.",
    words: (one) => [`farther than ${percent(one.percentile / 100)}`, `uncertainty ${digits(one.uncertainty)}`],
  },
  suspects: {
    title: "Label suspects",
    why: "Their neighbours vote for another label. Look before you change anything: most suspicions are wrong.",
    words: (one) => [`labelled ${one.label}`, `neighbours say ${one.suggested} (${percent(one.share)})`],
  },
  select: {
    title: "Label next",
    why: "Where a label helps most, of the pictures without one where there are any.",
    strategies: { typical: "typical", diverse: "diverse", uncertain: "uncertain" },
    words: (one) => [`uncertainty ${digits(one.uncertainty)}`],
  },
};
