"""Corrupted queries, or people's votes on them -> whether the uncertainty follows.

Compared image by image, never across images. Shape letters: Q queries, S severities.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from index.arrays import Float64s
from index.evaluation.dataset import Dataset
from index.evaluation.report import MetricReport
from vssl.errors import InputError, MismatchError
from vssl.rank_statistics import spearman

LEVEL = re.compile(r"^(.+?)[-_ ]?(\d+)$")


def measure_corruptions(queries: Dataset, corrupted: Sequence[Dataset], report: MetricReport) -> int:
    """Measure how often a corrupted image is less sure than its original; return the pairs.

    Images are paired by id. `uncertainty_increase_rate:NAME` is the share with higher uncertainty, NAME
    the folder's name. Folders that end in a number, as blur-1 to blur-5, are severities of one corruption:
    `severity_correlation:blur` is the mean rank correlation of severity and uncertainty within an image,
    the original being severity 0. Their curves: mean uncertainty by severity.
    """
    original = dict(zip(queries.ids, queries.gaussians.uncertainty.astype(np.float64).tolist(), strict=True))
    levels: dict[str, dict[int, dict[str, float]]] = {}
    pairs = 0
    for other in corrupted:
        if other.model_id != queries.model_id:
            raise MismatchError(
                f"{other.place} is of another model than {queries.place}; extract both with one model: "
                "vssl extract IMAGES EMBEDDINGS --model model.onnx"
            )
        unsure = dict(zip(other.ids, other.gaussians.uncertainty.astype(np.float64).tolist(), strict=True))
        shared = [id_ for id_ in queries.ids if id_ in unsure]
        if not shared:
            raise InputError(
                f"{other.place} shares no id with {queries.place}; corrupt the same images under the same names"
            )
        increased = np.array([float(unsure[id_] > original[id_]) for id_ in shared])
        report.mean(f"uncertainty_increase_rate:{other.name}", increased)
        pairs += len(shared)
        if match := LEVEL.match(other.name):
            levels.setdefault(match[1], {})[int(match[2])] = unsure
    by_severity = {kind: _by_severity(found, original) for kind, found in levels.items() if len(found) > 1}
    lines = {kind: values for kind, values in by_severity.items() if len(values)}
    for kind, values in lines.items():
        steps = np.arange(values.shape[1], dtype=np.float64)
        within = np.array([spearman(steps, row) for row in values])
        report.mean(f"severity_correlation:{kind}", np.nan_to_num(within))
    if lines:
        report.curve("corruptions", {kind: values.mean(axis=0) for kind, values in lines.items()})
        report.curve("severities", {kind: np.array([0.0, *sorted(levels[kind])]) for kind in lines})
    return pairs


def _by_severity(severities: dict[int, dict[str, float]], original: dict[str, float]) -> Float64s:
    """Return the uncertainty of each shared image (n, 1 + S): of the original, then by rising severity."""
    shared = [id_ for id_ in original if all(id_ in unsure for unsure in severities.values())]
    order = sorted(severities)
    return np.array([[original[id_], *(severities[level][id_] for level in order)] for id_ in shared])


def measure_human(queries: Dataset, votes: Path, report: MetricReport) -> int:
    """Measure the rank correlation of uncertainty and the entropy of people's votes; return the images.

    votes: a `.npy` of counts (n, C), as of CIFAR-10H; the row of an image is the last number in its
    id. Raises InputError for another form.
    """
    counts = _read_counts(votes)
    numbers = [re.findall(r"\d+", id_) for id_ in queries.ids]
    rows = np.array([int(found[-1]) if found else -1 for found in numbers], np.int64)
    there = np.flatnonzero((rows >= 0) & (rows < len(counts)))
    if not len(there) or len(np.unique(rows[there])) < len(there):
        raise InputError(
            f"{votes}: found {len(counts)} rows, and ids that name no row each, such as {queries.ids[0]!r}; "
            "expected ids that end in the number of their row"
        )
    share = counts[rows[there]] / counts[rows[there]].sum(axis=1, keepdims=True)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    unsure = queries.gaussians.uncertainty.astype(np.float64)[there]
    report.add("human_spearman", lambda r: spearman(unsure[r], entropy[r]), len(there))
    return len(there)


def _read_counts(path: Path) -> Float64s:
    try:
        counts = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: not readable as .npy ({error}); expected counts of shape (n, C)"
        ) from error
    if counts.ndim != 2 or not np.issubdtype(counts.dtype, np.number) or (counts.sum(axis=1) <= 0).any():
        raise InputError(
            f"{path}: found shape {counts.shape} of {counts.dtype}, expected counts (n, C), none all 0"
        )
    votes: Float64s = counts.astype(np.float64)
    return votes
