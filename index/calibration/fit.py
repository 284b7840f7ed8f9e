"""A gallery's embeddings (and labels) -> the constants of every distance, and which distance to use.

What was fitted, on what, and how each distance did travels as one text with the records of the
gallery. Shape letters: N items.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from index.calibration.holdout import JUDGING, SEARCHED, searched_count, split
from index.calibration.selection import Quality, Trial, compare, fit_parameters, hubs, ranking, winner
from index.distances.parameters import DistanceParameters
from index.distances.prior import completed
from index.distances.table import NAMES, named
from index.metrics.vote import class_codes
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import FormatError, InputError

BEST = "best"  # asks for the distance that ranks held-out images best
LEAST = 30  # judging queries below which no distance can win
SHIFT = 0.2  # share of the gallery that may change before what was fitted on it is stale
PRIOR_ITEMS = 20_000  # that an unlabelled prior is estimated from


@dataclass(frozen=True)
class Fitting:
    """What a gallery uses and why.

    distance: the gallery's own; given: a person named it, otherwise it was the best. basis: what
    was fitted on, in words. trials: every distance, cosine first, its constants among them; asked,
    answered: images that judged. generation, rows, last_row: the gallery's state when it was fitted.
    """

    distance: str
    given: bool
    basis: str
    trials: tuple[Trial, ...]
    asked: int
    answered: int
    generation: int = 0
    rows: int = 0
    last_row: int = 0

    @property
    def constants(self) -> dict[str, DistanceParameters]:
        """The constants of each distance."""
        return {trial.name: trial.parameters for trial in self.trials}

    def stale(self, rows: int, last_row: int, folder: str | None = None) -> str | None:
        """Say why it no longer fits a gallery of that many rows, with what to do, or None while it does.

        folder: the gallery's, None for one in Milvus.
        """
        change = max(last_row - self.last_row, abs(rows - self.rows))
        if change <= SHIFT * self.rows:
            return None
        found = f"fitted on {self.rows} images, of now {rows} many are others"
        if folder is None:
            return f"{found}; move it to a folder, run vssl gallery refit there, and move it back"
        return f"{found}; run: {shlex.join(['vssl', 'gallery', 'refit', folder])}"

    def renamed(self, distance: str) -> Fitting:
        """Return the same constants with another distance of a person's choice."""
        named(distance)
        return replace(self, distance=distance, given=True)

    def moved(self, generation: int, last_row: int) -> Fitting:
        """Return it for a copy of the gallery, whose rows are renumbered; as stale as it was."""
        return replace(self, generation=generation, last_row=last_row)

    def to_json(self) -> str:
        """Return it as JSON; `from_json` reads it back exactly."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Fitting:
        """Parse `to_json`'s form. Raises FormatError for anything else."""
        try:
            values: dict[str, Any] = json.loads(text)
            trials = tuple(
                Trial(
                    **{
                        **trial,
                        "parameters": DistanceParameters.from_dict(trial["parameters"]),
                        "quality": Quality(**trial["quality"]) if trial["quality"] else None,
                    }
                )
                for trial in values["trials"]
            )
            return cls(**{**values, "trials": trials})
        except (ValueError, TypeError, KeyError) as error:
            raise FormatError(
                f"the gallery's fitted constants are not readable ({error}); run: vssl gallery refit GALLERY"
            ) from error

    def facts(self) -> dict[str, Any]:
        """Return what a person or a program asks about it, as plain values: the table and the constants."""
        return {
            "chosen": self._chosen(),
            "basis": self.basis,
            "asked": self.asked,
            "answered": self.answered,
            "generation": self.generation,
            "images": self.rows,
            "trials": {trial.name: _figures(trial) for trial in self.trials},
            "parameters": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in self.constants[self.distance].to_dict().items()
            },
        }

    def _chosen(self) -> str:
        if self.given:
            return "given"
        judged = any(trial.quality is not None for trial in self.trials)
        return "best on held-out images" if judged else "the default, nothing could be compared"


def _figures(trial: Trial) -> dict[str, float]:
    quality = asdict(trial.quality) if trial.quality is not None else {}
    return {
        "alpha": trial.parameters.alpha,
        **quality,
        "hub_max": trial.hub_max,
        "hub_skew": trial.hub_skew,
    }


def fit(
    items: GaussianEmbedding,
    labels: Sequence[str | None],
    *,
    distance: str | None = None,
    names: Sequence[str] = NAMES,
    seed: int = 0,
) -> Fitting:
    """Fit the constants of every distance of `names` to items (N, D) as they are compared, and choose one.

    distance: None or "best" for the one that ranks held-out labelled images best; with too few
    labels that is cosine. The cost does not grow with N. Raises InputError for an unknown distance.
    """
    given = distance not in (None, BEST)
    if given:
        named(str(distance))
    trials, basis, asked, answered = _labelled(items, labels, names, seed) or _unlabelled(items, names, seed)
    chosen = str(distance) if given else winner(trials).name if trials else "cosine"
    return Fitting(chosen, given, basis, tuple(trials), asked, answered)


Trials = tuple[list[Trial], str, int, int]


def _labelled(
    items: GaussianEmbedding, labels: Sequence[str | None], names: Sequence[str], seed: int
) -> Trials | None:
    """Fit and judge on labelled rows; None where too few could judge."""
    try:
        judges = split(labels, seed=seed, dim=items.dim)
        split(labels, seed=seed, fit=True, dim=items.dim)
    except InputError:
        return None
    if len(judges.queries) < LEAST:
        return None
    constants: Mapping[str, DistanceParameters] = {
        name: fit_parameters(items, labels, name=name, seed=seed) for name in names
    }
    asked, answered = len(judges.queries), len(judges.searched)
    basis = (
        f"labels: {asked} held-out images searched {answered} others, of {int((class_codes(labels) >= 0).sum())} "
        "labelled ones; constants fitted on images that did not judge"
    )
    return compare(items, labels, constants, names=names, seed=seed), basis, asked, answered


def _unlabelled(items: GaussianEmbedding, names: Sequence[str], seed: int) -> Trials:
    """Take constants from the embeddings themselves, and count hubs among images drawn at random."""
    drawn = np.random.default_rng(seed).permutation(len(items))
    queries = drawn[: min(JUDGING, len(items) // 2)]
    searched = drawn[len(queries) : len(queries) + searched_count(SEARCHED, items.dim)]
    trials = []
    for name in names:
        constants = completed(name, None, items[drawn[:PRIOR_ITEMS]])
        most, skew = 0, 0.0
        if len(queries):
            most, skew = hubs(ranking(name, items[queries], items[searched], constants), len(searched))
        trials.append(Trial(name, constants, None, most, skew))
    prior = (
        f"the prior of posterior comes from means and variances of {min(len(items), PRIOR_ITEMS)} images, "
    )
    basis = (
        f"too few labels to judge by: {prior if 'posterior' in names else ''}"
        f"hubs from {len(queries)} images that searched {len(searched)}"
    )
    return trials, basis, len(queries), len(searched)
