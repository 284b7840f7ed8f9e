"""A gallery -> the images whose label their neighbours vote against.

Shape letters: N items, K neighbours, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from index.answers.results import Neighbourhood
from index.gallery.protocol import Gallery
from index.metrics.vote import TEMPERATURE, class_codes, votes
from vssl.errors import InputError

VOTERS = 20
BLOCK = 4096  # images judged at once


@dataclass(frozen=True)
class Suspect:
    """One image whose neighbours say another label.

    suggested, share: the label that most of the vote goes to, and its share of it; own_share: the
    vote of its own label; score: how much the first outweighs the second, times how sure the
    image is, where that is known.
    """

    id: str
    path: str
    label: str | None
    suggested: str
    share: float
    own_share: float
    uncertainty: float | None
    score: float


def suspects(gallery: Gallery, *, limit: int = 100, k: int = VOTERS) -> list[Suspect]:
    """Return the images whose label their neighbours contradict most.

    Each of the k nearest others votes for its label with weight exp(-distance / 0.07) times its
    certainty. Neighbours are those by the gallery's distance or those in the whitened space,
    whichever agree with more of the labels. Raises InputError for a gallery without labels.
    """
    best: list[Suspect] = []
    agreed = -1
    for white in (False, True):
        near = gallery.neighbourhood(k, white=white)
        if not any(near.labels):
            raise InputError("this gallery has no labels; extract images from class folders to have some")
        found, right = _suspects(near)
        if right > agreed:
            best, agreed = found, right
    return sorted(best, key=lambda suspect: -suspect.score)[:limit]


def _suspects(near: Neighbourhood) -> tuple[list[Suspect], int]:
    """Return the images that are voted for another label than theirs, and how many are voted for theirs."""
    codes = class_codes(near.labels)
    names = dict(zip(codes.tolist(), near.labels, strict=True))
    unsure = near.uncertainty_or_zero.astype(np.float64)
    certainty = np.log(np.maximum(1.0 - unsure, np.finfo(np.float64).tiny))
    found: list[Suspect] = []
    right = 0
    for start in range(0, len(near), BLOCK):
        rows, distances = near.graph.rows[start : start + BLOCK], near.graph.distances[start : start + BLOCK]
        voters = np.where(rows >= 0, codes[rows], -1)
        shares = votes(voters, certainty[rows] - distances / TEMPERATURE, len(names))
        labelled = np.flatnonzero((codes[start : start + BLOCK] >= 0) & (shares.sum(axis=1) > 0))
        for at, code in zip(labelled.tolist(), shares[labelled].argmax(axis=1).tolist(), strict=True):
            row = start + at
            if code == codes[row]:
                right += 1
                continue
            share, own = float(shares[at, code]), float(shares[at, codes[row]])
            score = (share - own) * (1.0 - float(unsure[row]))
            said = names[code] or "", share, own
            found.append(Suspect(*near.item(row), *said, near.uncertainty_of(row), score))
    return found, right
