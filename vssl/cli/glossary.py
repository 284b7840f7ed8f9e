"""The words that vssl prints -> what each means, and whether high is good."""

from __future__ import annotations

HIGH, LOW, NEITHER = "higher", "lower", ""

WORDS: dict[str, tuple[str, str]] = {
    "distance": (LOW, "how far an answer is, in the unit of its distance; the nearest comes first"),
    "variance_score": (LOW, "share of the expected squared distance that is variance, 0 to 1; high: unsure"),
    "match_probability": (HIGH, "calibrated probability that an answer has the query's label, 0 to 1"),
    "uncertainty": (LOW, "how unsure the model is of one image, 0 to 1"),
    "percentile": (NEITHER, "share of the gallery's images below this one, 0 to 100"),
    "mAP@R": (HIGH, "precision over the first R ranks, where R items have the query's class"),
    "over cosine": (HIGH, "mAP@R above that of cosine on the same images; se: its standard error"),
    "recall@1": (HIGH, "share of the queries whose nearest neighbour has their class"),
    "variance times": (NEITHER, "fitted factor on the variances; 0 leaves the means alone"),
    "hub max": (LOW, "queries that share the most frequent neighbour"),
    "hub skew": (LOW, "skewness of how often items are neighbours"),
    "risk": (LOW, "share of the gallery's own answers that are safer than this one"),
    "abstain": (NEITHER, "true: at the risk that was asked for, this answer is not to be trusted"),
}
"""Of answers and tables: (what is better, meaning)."""

METRICS: dict[str, tuple[str, str]] = {
    "knn_top1": (HIGH, "class right by a weighted vote of the k nearest"),
    "knn_top5": (HIGH, "class among the five of most votes"),
    "knn200_top1": (HIGH, "the same vote with k = 200"),
    "knn_ece": (LOW, "calibration error of the vote's confidence"),
    "knn_best_top1": (HIGH, "the vote that did best on gallery images, named below"),
    "knn_best_ece": (LOW, "calibration error of its class probabilities"),
    "cosine_recall_at_1": (HIGH, "the control: nearest by cosine has the query's class"),
    "recall_at_1": (HIGH, "nearest neighbour has the query's class"),
    "map_at_r": (HIGH, "precision over the first R ranks, R items of the class"),
    "r_auroc": (HIGH, "uncertainty of the query predicts a wrong neighbour (0.5 chance)"),
    "r_auroc_norm": (HIGH, "the same by a short mean, which needs no variance"),
    "r_auroc_distance": (HIGH, "the same by a far neighbour, known after the search"),
    "r_auroc_risk": (HIGH, "the same by distance, uncertainty and dissent of the neighbours joined"),
    "r_auroc_match": (HIGH, "the same by the match probability of the nearest (needs labels in the gallery)"),
    "aurc": (LOW, "area under risk and coverage, by uncertainty"),
    "aurc_distance": (LOW, "the same, by distance"),
    "e_aurc": (LOW, "its excess over an oracle"),
    "augrc": (LOW, "area under generalised risk and coverage, by uncertainty"),
    "ause": (LOW, "area between sparsification curves (0 perfect)"),
    "risk_at_80": (LOW, "wrong neighbours among the 80 % surest queries"),
    "ece": (LOW, "calibration error of match probability"),
    "match_brier": (LOW, "mean squared error of match probability"),
    "match_prevalence": (NEITHER, "share of neighbours of the query's class"),
    "uncertainty_mean": (NEITHER, "of the queries"),
    "coverage_uncertainty": (HIGH, "queries answered within --max-risk, by uncertainty"),
    "coverage_distance": (HIGH, "the same, by distance"),
    "coverage_disagreement": (
        HIGH,
        "the same, by how many neighbours have another label than the nearest",
    ),
    "coverage_combined": (HIGH, "the same, by all three"),
    "coverage_best": (HIGH, "queries answered within --max-risk, by the score that orders errors best"),
    "risk_best": (LOW, "wrong ones among those answers"),
    "ood_auroc": (HIGH, "out-of-distribution images are less sure (0.5 chance)"),
    "ood_auroc_knn": (HIGH, "they are farther from their neighbours"),
    "ood_auroc_likelihood": (HIGH, "they are less likely among them"),
    "ood_auroc_mahalanobis": (HIGH, "they are farther from every class"),
    "ood_fpr95": (LOW, "queries taken for out-of-distribution where 95 % of those are"),
    "human_spearman": (HIGH, "rank correlation with the entropy of people's votes"),
    "instance_recall_at_1": (HIGH, "a corrupted image finds its original first"),
    "hub_max": (LOW, "queries that share the most frequent neighbour (of ten)"),
    "hub_skew": (LOW, "skewness of how often items are neighbours"),
}
"""Of `vssl evaluate`: (what is better, meaning)."""

SIGNED_NOTE = (
    "distance {name} is a logarithm of a density with its sign turned, so it may be negative; lower is nearer"
)
"""Said where distances of such a kind are printed."""
