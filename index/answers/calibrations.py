"""A gallery's own items search it -> match probabilities, risks, and when to abstain.

What was calibrated is kept with the gallery, and made again when it has changed by a fifth or the
constants of its distance have. Shape letters: N items, n asking items, K neighbours.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from index.answers.view import SearchIndex, View
from index.arrays import Bools, Float64s, Int64s
from index.calibration.abstention import (
    NEIGHBOURS,
    AbstentionInputs,
    AbstentionRule,
    fit_rule,
)
from index.calibration.abstention_sample import AbstentionSample
from index.calibration.holdout import calibration_size
from index.calibration.match import VOTERS, MatchModel, Votes, fit_match, votes
from index.calibration.risk import CLUSTERED, FIT_QUERIES, RiskModel, fit_risk
from index.distances import SIGNED
from index.metrics.vote import class_codes
from index.search.neighbour_graph import leave_out_own
from vssl.errors import InputError

FIT_NEIGHBOURS = 10
RULES = 100  # that are kept: a client may name any risk
FIT_SHIFT = 0.2  # fitted again when this share of the gallery has changed


Calibrated = TypeVar("Calibrated", MatchModel, RiskModel)


class Facts(Protocol):
    """Named texts that are kept with a gallery."""

    def fact(self, name: str) -> str | None:
        """Return one, or None."""

    def set_fact(self, name: str, value: str) -> None:
        """Keep one."""


class Calibrations:
    """What was calibrated on one gallery's own labels, for each distance, and for each risk.

    folder: where files that can be made again are kept, by readers too.
    """

    def __init__(self, facts: Facts, folder: Path, *, writable: bool) -> None:
        self._facts = facts
        self._folder = folder
        self._writable = writable
        self._known: dict[str, Any] = {}
        self._without: dict[str, int] = {}
        self._samples: dict[str, AbstentionSample] = {}
        self._rules: dict[tuple[str, float], tuple[AbstentionRule, AbstentionSample]] = {}
        self._calibrating = threading.Lock()

    def invalidate(self) -> None:
        """Fit again at the next use: the gallery was compacted, or its constants changed."""
        self._known.clear()
        self._without.clear()
        self._samples.clear()
        self._rules.clear()

    def stored_match(self, distance: str) -> MatchModel | None:
        """Return the match calibration that is kept for a distance."""
        text = self._facts.fact(f"match.{distance}")
        return MatchModel.from_json(text) if text else None

    def match(self, view: View, index: SearchIndex) -> MatchModel | None:
        """Return the match calibration of an index's distance for this view, None where none can be had."""
        return self._fitted("match", view, index, MatchModel.from_json, _fit_match)

    def risk(self, view: View, index: SearchIndex) -> RiskModel | None:
        """Return the risk's calibration for this view, None where there are too few items."""
        return self._fitted("risk", view, index, RiskModel.from_json, _fit_risk)

    def _fitted(
        self,
        kind: str,
        view: View,
        index: SearchIndex,
        parse: Callable[[str], Calibrated],
        fit: Callable[[View, SearchIndex], Calibrated | None],
    ) -> Calibrated | None:
        name, constants = f"{kind}.{index.name}", index.parameters.digest
        text = None if name in self._known else self._facts.fact(name)
        known: Calibrated | None = self._known.get(name) if text is None else parse(text)
        # A calibration from before constants were recorded has none: it was made with the defaults.
        fits = known is not None and known.is_current and known.constants in ("", constants)
        if known is not None and fits and not _moved(view, known.rows, known.last_row):
            self._known[name] = known
            return known
        if self._without.get(name) == view.generation:
            return None
        fitted = fit(view, index)
        if fitted is None:
            self._without[name] = view.generation
            return None
        fitted = replace(
            fitted,
            generation=view.generation,
            rows=view.count,
            last_row=view.last_row,
            constants=constants,
        )
        self._known[name] = fitted
        if self._writable:
            self._facts.set_fact(name, fitted.to_json())
        return fitted

    def rule(self, view: View, index: SearchIndex, max_risk: float) -> AbstentionRule:
        """Return when to abstain at a risk. Raises InputError without labels.

        The labelled images search the gallery once, for all risks and for all processes that open it.
        """
        key = index.name, max_risk
        known = self._rules.get(key)
        if known is not None and _fits(known[1], view, index):
            return known[0]  # without waiting for another calibration
        with self._calibrating:  # one at a time: it takes seconds of both cores
            sample = self._sample(view, index)
            known = self._rules.get(key)
            if known is None or known[1] is not sample:
                rule = fit_rule(sample.inputs, sample.wrong, max_risk, signed=index.name in SIGNED)
                while len(self._rules) >= RULES:
                    self._rules.pop(next(iter(self._rules)))
                known = self._rules[key] = rule, sample
        return known[0]

    def _sample(self, view: View, index: SearchIndex) -> AbstentionSample:
        file = self._folder / f"abstention.{index.name}.npz"
        sample = self._samples.get(index.name) or AbstentionSample.load(file)
        if sample is None or not _fits(sample, view, index):
            sample = _draw_sample(view, index)
            with contextlib.suppress(OSError):  # of a folder that may not be written, or a full disk
                sample.save(file)
        self._samples[index.name] = sample
        return sample


def _fits(sample: AbstentionSample, view: View, index: SearchIndex) -> bool:
    return index.parameters.digest == sample.constants and not _moved(view, sample.rows, sample.last_row)


def _moved(view: View, rows: int, last_row: int) -> bool:
    change = max(view.last_row - last_row, abs(view.count - rows))
    return change > FIT_SHIFT * rows


@dataclass(frozen=True, eq=False)
class _Pairs:
    """What labelled items of a view find among the others: all (n, K), `use` says where there is a pair.

    same: the neighbour has the asking item's label; agree: the first neighbour's. codes: the neighbours' labels.
    """

    use: Bools
    distance: Float64s
    query: Float64s
    item: Float64s
    same: Bools
    agree: Bools
    codes: Int64s


def _own_pairs(view: View, index: SearchIndex, most: int, k: int) -> _Pairs | None:
    """Let up to `most` labelled items search their own gallery, themselves left out; None below two."""
    codes = class_codes(view.labels)
    labelled = view.alive & (codes >= 0)
    members = np.flatnonzero(labelled)
    if len(members) < 2:
        return None
    asking = np.random.default_rng(0).permutation(members)[:most]
    wanted = min(k + 1, len(members))
    searched = index.search(view.items[asking], wanted, keep=None if labelled.all() else labelled)
    distances, found = leave_out_own(*searched, asking, wanted - 1)
    uncertainty = view.uncertainty.astype(np.float64)
    query = np.broadcast_to(uncertainty[asking][:, None], found.shape)
    same, agree = codes[found] == codes[asking][:, None], codes[found] == codes[found[:, :1]]
    there = np.where(found >= 0, codes[found], -1)
    return _Pairs(found >= 0, distances, query, uncertainty[found], same, agree, there)


def _draw_sample(view: View, index: SearchIndex) -> AbstentionSample:
    pairs = _own_pairs(view, index, calibration_size(view.count), NEIGHBOURS)
    if pairs is None:
        raise InputError(
            "the gallery has no labelled images to calibrate --max-risk on; extract them from IMAGES/CLASS/file.jpg"
        )
    use = pairs.use[:, 0]
    inputs = AbstentionInputs(pairs.query[:, 0], pairs.distance, pairs.agree & pairs.use)
    constants = index.parameters.digest
    return AbstentionSample(inputs[use], ~pairs.same[use, 0], view.count, view.last_row, constants)


def _fit_match(view: View, index: SearchIndex) -> MatchModel | None:
    pairs = _own_pairs(view, index, FIT_QUERIES, VOTERS)
    if pairs is None:
        return None
    use, signed = pairs.use.copy(), index.name in SIGNED
    use[:, FIT_NEIGHBOURS:] = False
    said = votes(pairs.distance, pairs.codes, signed=signed)
    heard = Votes(said.log_odds[use], said.is_nearest[use], said.length)
    found = pairs.distance[use], pairs.query[use], pairs.item[use], pairs.same[use]
    return fit_match(*found, signed=signed, heard=heard)


def _fit_risk(view: View, index: SearchIndex) -> RiskModel | None:
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(view.alive))
    asking, keep = drawn[:FIT_QUERIES], None if view.alive.all() else view.alive
    wanted = min(NEIGHBOURS + 1, len(drawn))
    if wanted < 2:
        return None
    found = leave_out_own(*index.search(view.items[asking], wanted, keep=keep), asking, wanted - 1)
    uncertainty, signed = view.uncertainty, index.name in SIGNED
    means = view.items.means(drawn[:CLUSTERED])
    return fit_risk(means, view.items, *found, uncertainty[asking], uncertainty, signed=signed)
