"""Labelled queries -> k-NN accuracy by the standard vote, by votes that read variance, and by the best.

The control is the vote that self-supervised methods report: k = 20 and 200 by cosine, T = 0.07.
Beside it stand the weightings of index.evaluation.weighting for both k, each at a temperature fitted on one
half of the gallery images that ask one another. The other half judges: the vote that is right more
often than the control, by more than two standard errors of the paired difference, is the best one,
and else the control's weights at their fitted temperature, whose shares are calibrated.
Shape letters: Q queries, K neighbours, C classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from index.evaluation.context import Doubles, Rows, Setting, Settings
from index.evaluation.report import Measures
from index.evaluation.vote import in_top, votes
from index.evaluation.weighting import WEIGHTINGS, Ballot, ballot, fit_temperature, log_weights, probabilities

WIDE = 200  # the second k, for comparison with published figures
ERRORS = 2.0  # standard errors by which another vote must beat the control


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

    def shares(self, ballot: Ballot, classes: int) -> Doubles:
        """Return class probabilities (Q, C)."""
        nearest = ballot.nearest(self.k)
        weights = log_weights(self.weighting, nearest, self.temperature)
        return probabilities(votes(nearest.codes, weights, classes), nearest.codes.shape[1])


def measure_votes(
    setting: Setting, settings: Settings, which: Rows, rows: Rows, distances: Doubles, measures: Measures
) -> None:
    """Measure every vote on the cosine neighbours (Q, K) of labelled queries, K at least 200 where there are."""
    truth, codes = setting.query_codes[which], setting.codes(rows)
    for name, k in (("knn", settings.k), (f"knn{WIDE}", WIDE)):
        shares = _control(codes, distances, k, setting.classes, settings.temperature)
        measures.mean(f"{name}_top1", in_top(shares, truth, 1).astype(np.float64))
        measures.mean(f"{name}_top5", in_top(shares, truth, min(5, k)).astype(np.float64))
        if k == settings.k:
            _calibration("knn_ece", shares, truth, measures)
    constants = setting.gallery.constants
    test = ballot(setting.asked[which], setting.items, setting.gallery_codes, rows, 1 - distances, constants)
    fitted = fit_votes(setting, settings)
    for vote in fitted:
        shares = vote.shares(test, setting.classes)
        kind, wide = vote.weighting.replace("-", "_"), "" if vote.k == settings.k else str(vote.k)
        measures.mean(f"knn{wide}_top1_{kind}", in_top(shares, truth, 1).astype(np.float64))
        _calibration(f"knn{wide}_ece_{kind}", shares, truth, measures)
    best = best_vote(fitted)
    shares = best.shares(test, setting.classes)
    measures.mean("knn_best_top1", in_top(shares, truth, 1).astype(np.float64))
    _calibration("knn_best_ece", shares, truth, measures)
    measures.chosen["vote"] = asdict(best)


def fit_votes(setting: Setting, settings: Settings) -> list[Vote]:
    """Fit and judge every weighting at both k on gallery images that ask one another, the control's first."""
    asking, rows, distances = setting.among_itself(max(WIDE, settings.k), settings.seed, control=True)
    known, codes = setting.gallery_codes[asking], setting.gallery_codes
    own = ballot(setting.items[asking], setting.items, codes, rows, 1 - distances, setting.gallery.constants)
    fit, judge = np.arange(0, len(asking), 2), np.arange(1, len(asking), 2)
    usual = _control(own.codes, distances, settings.k, setting.classes, settings.temperature)
    control = in_top(usual[judge], known[judge], 1)
    found = []
    for k in dict.fromkeys((settings.k, WIDE)):
        for kind in WEIGHTINGS:
            temperature = fit_temperature(kind, own[fit].nearest(k), known[fit], setting.classes)
            vote = Vote(kind, k, temperature, 0.0, 0.0)
            right = in_top(vote.shares(own[judge], setting.classes), known[judge], 1)
            difference = right.astype(np.float64) - control
            error = float(difference.std() / max(1, len(judge)) ** 0.5)
            gain = float(difference.mean()) if len(judge) else 0.0
            found.append(Vote(kind, k, temperature, gain, error))
    return found


def best_vote(fitted: list[Vote]) -> Vote:
    """Return the vote of highest accuracy of those that beat the control beyond doubt, else the first."""
    sure = [vote for vote in fitted if vote.gain > ERRORS * vote.gain_error]
    return max(sure, key=lambda vote: vote.gain, default=fitted[0])


def _control(codes: Rows, distances: Doubles, k: int, classes: int, temperature: float) -> Doubles:
    return votes(codes[:, :k], (1.0 - distances[:, :k]) / temperature, classes)


def _calibration(name: str, shares: Doubles, truth: Rows, measures: Measures) -> None:
    first = in_top(shares, truth, 1)
    measures.calibration(name, shares.max(axis=1)[:, None], first[:, None])
