"""Labelled queries -> k-NN accuracy by the standard vote, by votes that read variance, and by the best.

The control is the vote that self-supervised methods report: k = 20 and 200 by cosine, T = 0.07.
Other weights for both k read the variance, each at a temperature fitted on one
half of the gallery images that ask one another, so that the shares are calibrated probabilities. The
other half judges: the vote that is right more often than the control, by more than two standard errors
of the paired difference, is the best one, and else the control's weights at their fitted temperature.
Shape letters: Q queries, K neighbours, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np

from index.arrays import Float64s, Int64s
from index.distances import DistanceParameters, gathered
from index.evaluation.context import EvaluationContext, Settings
from index.evaluation.report import MetricReport
from index.metrics.vote import in_top, votes
from vssl.embeddings.gaussian import GaussianEmbedding

WIDE = 200  # the second k, for comparison with published figures
ERRORS = 2.0  # standard errors by which another vote must beat the control
WEIGHTINGS = ("cosine", "inverse-variance", "attenuated", "likelihood", "posterior")
TEMPERATURES = tuple(0.01 * 2.0 ** (step / 2) for step in range(0, 33))  # 0.01 to 655
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class VoteInputs:
    """What K neighbours of Q queries bring to a vote; codes -1 for no neighbour.

    cosine (Q, K); trace, attenuation (Q, K) of the items; likelihood, ratio (Q, K): the logarithms
    of the expected likelihood of the pair, and of its likelihood ratio "one class" against "two".
    """

    codes: Int64s
    cosine: Float64s
    trace: Float64s
    attenuation: Float64s
    likelihood: Float64s
    ratio: Float64s

    def nearest(self, k: int) -> VoteInputs:
        """Return what the nearest k bring."""
        return self._at(np.s_[:, :k])

    def __getitem__(self, which: Int64s | slice) -> VoteInputs:
        return self._at(which)

    def _at(self, which: Int64s | slice | tuple[slice, slice]) -> VoteInputs:
        return VoteInputs(*(getattr(self, column.name)[which] for column in fields(self)))


def vote_inputs(
    queries: GaussianEmbedding,
    items: GaussianEmbedding,
    codes: Int64s,
    rows: Int64s,
    cosine: Float64s,
    constants: Mapping[str, DistanceParameters] | None = None,
) -> VoteInputs:
    """Gather what the found rows (Q, K), of classes codes (N,), bring; all Gaussians as compared.

    constants: of the distances mls and posterior, where they were fitted.
    """
    fitted = constants or {}
    there = rows >= 0
    trace = items.variance.sum(axis=1, dtype=np.float64)[rows]
    # The expected cosine to a draw of the item is shorter by 1 - its expected cosine spread.
    attenuation = 1.0 - items.uncertainty.astype(np.float64)[rows]
    likelihood, ratio = (
        -gathered(name, queries, items, rows, fitted.get(name)) for name in ("mls", "posterior")
    )
    own = np.where(there, codes[rows], -1)
    return VoteInputs(own, np.where(there, cosine, -1.0), trace, attenuation, likelihood, ratio)


def log_weights(kind: str, inputs: VoteInputs, temperature: float) -> Float64s:
    """Return the logarithm (Q, K) of each neighbour's weight.

    cosine: cos / T; inverse-variance: cos / T - ln tr v; attenuated: rho cos / T, with rho the
    expected cosine of a draw to its mean; likelihood: ln N(m; mu, s + v) / T; posterior: minus the
    distance of that name / T.
    """
    if kind == "inverse-variance":
        return inputs.cosine / temperature - np.log(inputs.trace)
    if kind == "attenuated":
        return inputs.cosine * inputs.attenuation / temperature
    if kind == "likelihood":
        return inputs.likelihood / temperature
    if kind == "posterior":
        return inputs.ratio / temperature
    return inputs.cosine / temperature


def probabilities(shares: Float64s, k: int) -> Float64s:
    """Return class probabilities (Q, C): the shares of k votes and one vote spread over all classes."""
    result: Float64s = (shares * k + 1.0 / shares.shape[1]) / (k + 1.0)
    return result


def fit_temperature(kind: str, inputs: VoteInputs, truth: Int64s, classes: int) -> float:
    """Return the temperature of least mean log loss of the true class, of a grid of factor 1.41."""
    losses = []
    for temperature in TEMPERATURES:
        shares = votes(inputs.codes, log_weights(kind, inputs, temperature), classes)
        chance = probabilities(shares, inputs.codes.shape[1])[np.arange(len(truth)), truth]
        losses.append(float(-np.log(np.maximum(chance, TINY)).mean()))
    best: float = TEMPERATURES[int(np.argmin(losses))]
    return best


@dataclass(frozen=True)
class Vote:
    """Weights of one kind over the k nearest, at a temperature.

    gain, gain_error: its accuracy above the control's on gallery images that neither was fitted
    on, and the standard error of that.
    """

    weighting: str
    k: int
    temperature: float
    gain: float
    gain_error: float

    def shares(self, inputs: VoteInputs, classes: int) -> Float64s:
        """Return class probabilities (Q, C)."""
        nearest = inputs.nearest(self.k)
        weights = log_weights(self.weighting, nearest, self.temperature)
        return probabilities(votes(nearest.codes, weights, classes), nearest.codes.shape[1])


def measure_votes(
    context: EvaluationContext,
    settings: Settings,
    which: Int64s,
    rows: Int64s,
    distances: Float64s,
    report: MetricReport,
) -> None:
    """Measure every vote on the cosine neighbours (Q, K) of labelled queries, K at least 200 where there are."""
    truth, codes = context.query_codes[which], context.codes(rows)
    for name, k in (("knn", settings.k), (f"knn{WIDE}", WIDE)):
        shares = _control(codes, distances, k, context.classes, settings.temperature)
        report.mean(f"{name}_top1", in_top(shares, truth, 1).astype(np.float64))
        report.mean(f"{name}_top5", in_top(shares, truth, min(5, k)).astype(np.float64))
        if k == settings.k:
            _calibration("knn_ece", shares, truth, report)
    constants = context.gallery.constants
    test = vote_inputs(
        context.query_gaussians[which], context.items, context.gallery_codes, rows, 1 - distances, constants
    )
    fitted = fit_votes(context, settings)
    for vote in fitted:
        shares = vote.shares(test, context.classes)
        kind, wide = vote.weighting.replace("-", "_"), "" if vote.k == settings.k else str(vote.k)
        report.mean(f"knn{wide}_top1_{kind}", in_top(shares, truth, 1).astype(np.float64))
        _calibration(f"knn{wide}_ece_{kind}", shares, truth, report)
    best = best_vote(fitted)
    shares = best.shares(test, context.classes)
    report.mean("knn_best_top1", in_top(shares, truth, 1).astype(np.float64))
    _calibration("knn_best_ece", shares, truth, report)
    report.chosen["vote"] = asdict(best)


def fit_votes(context: EvaluationContext, settings: Settings) -> list[Vote]:
    """Fit and judge every weighting at both k on gallery images that ask one another, the control's first."""
    asking, rows, distances = context.among_itself(max(WIDE, settings.k), settings.seed, control=True)
    known, codes = context.gallery_codes[asking], context.gallery_codes
    own = vote_inputs(
        context.items[asking], context.items, codes, rows, 1 - distances, context.gallery.constants
    )
    fit, judge = np.arange(0, len(asking), 2), np.arange(1, len(asking), 2)
    usual = _control(own.codes, distances, settings.k, context.classes, settings.temperature)
    control = in_top(usual[judge], known[judge], 1)
    found = []
    for k in dict.fromkeys((settings.k, WIDE)):
        for kind in WEIGHTINGS if context.gallery.card.has_variance else WEIGHTINGS[:1]:
            temperature = fit_temperature(kind, own[fit].nearest(k), known[fit], context.classes)
            vote = Vote(kind, k, temperature, 0.0, 0.0)
            right = in_top(vote.shares(own[judge], context.classes), known[judge], 1)
            difference = right.astype(np.float64) - control
            error = float(difference.std() / max(1, len(judge)) ** 0.5)
            gain = float(difference.mean()) if len(judge) else 0.0
            found.append(Vote(kind, k, temperature, gain, error))
    return found


def best_vote(fitted: list[Vote]) -> Vote:
    """Return the vote of highest accuracy of those that beat the control significantly, else the first."""
    sure = [vote for vote in fitted if vote.gain > ERRORS * vote.gain_error]
    return max(sure, key=lambda vote: vote.gain, default=fitted[0])


def _control(codes: Int64s, distances: Float64s, k: int, classes: int, temperature: float) -> Float64s:
    return votes(codes[:, :k], (1.0 - distances[:, :k]) / temperature, classes)


def _calibration(name: str, shares: Float64s, truth: Int64s, report: MetricReport) -> None:
    first = in_top(shares, truth, 1)
    report.calibration(name, shares.max(axis=1)[:, None], first[:, None])
