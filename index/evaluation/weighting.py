"""Neighbours with variances -> other weights for the vote, and temperatures fitted for them.

The control weighs a neighbour by exp(cos / T), T = 0.07. Beside it stand weights that read the
variance; each has a temperature of its own, fitted so that the vote's shares are calibrated
probabilities on images of the gallery that vote on one another.
Shape letters: Q queries, K neighbours, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.distances import DistanceParameters, gathered
from index.evaluation.vote import votes
from vssl.embeddings.gaussian import GaussianEmbedding

Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]
WEIGHTINGS = ("cosine", "inverse-variance", "attenuated", "likelihood", "posterior")
TEMPERATURES = tuple(0.01 * 2.0 ** (step / 2) for step in range(0, 33))  # 0.01 to 655
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Ballot:
    """What K neighbours of Q queries bring to a vote; codes -1 for no neighbour.

    cosine (Q, K); trace, attenuation (Q, K) of the items; likelihood, ratio (Q, K): the logarithms
    of the expected likelihood of the pair, and of its likelihood ratio "one class" against "two".
    """

    codes: Rows
    cosine: Doubles
    trace: Doubles
    attenuation: Doubles
    likelihood: Doubles
    ratio: Doubles

    def nearest(self, k: int) -> Ballot:
        """Return what the nearest k bring."""
        return self._at(np.s_[:, :k])

    def __getitem__(self, which: Rows | slice) -> Ballot:
        return self._at(which)

    def _at(self, which: Rows | slice | tuple[slice, slice]) -> Ballot:
        return Ballot(
            self.codes[which],
            self.cosine[which],
            self.trace[which],
            self.attenuation[which],
            self.likelihood[which],
            self.ratio[which],
        )


def ballot(
    queries: GaussianEmbedding,
    items: GaussianEmbedding,
    codes: Rows,
    rows: Rows,
    cosine: Doubles,
    constants: Mapping[str, DistanceParameters] | None = None,
) -> Ballot:
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
    return Ballot(own, np.where(there, cosine, -1.0), trace, attenuation, likelihood, ratio)


def log_weights(kind: str, ballot: Ballot, temperature: float) -> Doubles:
    """Return the logarithm (Q, K) of each neighbour's weight.

    cosine: cos / T; inverse-variance: cos / T - ln tr v; attenuated: rho cos / T, with rho the
    expected cosine of a draw to its mean; likelihood: ln N(m; mu, s + v) / T; posterior: minus the
    distance of that name / T.
    """
    if kind == "inverse-variance":
        return ballot.cosine / temperature - np.log(ballot.trace)
    if kind == "attenuated":
        return ballot.cosine * ballot.attenuation / temperature
    if kind == "likelihood":
        return ballot.likelihood / temperature
    if kind == "posterior":
        return ballot.ratio / temperature
    return ballot.cosine / temperature


def probabilities(shares: Doubles, k: int) -> Doubles:
    """Return class probabilities (Q, C): the shares of k votes and one vote spread over all classes."""
    result: Doubles = (shares * k + 1.0 / shares.shape[1]) / (k + 1.0)
    return result


def fit_temperature(kind: str, ballot: Ballot, truth: Rows, classes: int) -> float:
    """Return the temperature of least mean log loss of the true class, of a grid of factor 1.41."""
    losses = []
    for temperature in TEMPERATURES:
        shares = votes(ballot.codes, log_weights(kind, ballot, temperature), classes)
        chance = probabilities(shares, ballot.codes.shape[1])[np.arange(len(truth)), truth]
        losses.append(float(-np.log(np.maximum(chance, TINY)).mean()))
    best: float = TEMPERATURES[int(np.argmin(losses))]
    return best
