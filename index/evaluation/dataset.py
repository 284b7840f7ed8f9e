"""A gallery or embeddings folder -> the columns that an evaluation reads.

Shape letters: N images, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.answers.view import read_view
from index.calibration.match import MatchModel
from index.distances import DistanceParameters
from index.gallery.gallery import Gallery
from index.gallery.store import STORE, Records
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import read_embeddings
from vssl.errors import InputError, MismatchError
from vssl.model.card import ModelCard
from vssl.model.identity import short_id


@dataclass(frozen=True, eq=False)
class Corpus:
    """N embedded images: ids, labels (None: unknown), Gaussians as stored, and whose they are.

    distance, normalise: what a gallery searches by; an embeddings folder has cosine and yes.
    match: the gallery's calibration of match probabilities for its distance, if it has one.
    constants: what was fitted to the gallery for each distance; stale: why that is out of date, or None.
    """

    path: Path
    ids: list[str]
    labels: list[str | None]
    gaussians: GaussianEmbedding
    card: ModelCard
    model_id: str
    distance: str = "cosine"
    normalise: bool = True
    match: MatchModel | None = None
    constants: Mapping[str, DistanceParameters] = field(default_factory=dict)
    stale: str | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def compared(self) -> GaussianEmbedding:
        """The Gaussians as they are compared: normalised, unless the gallery says otherwise."""
        return self.gaussians.normalised() if self.normalise else self.gaussians

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which images have a label, (N,)."""
        return np.array([label is not None for label in self.labels], np.bool_)


def read_corpus(path: Path) -> Corpus:
    """Read a gallery or an embeddings folder. Raises InputError when it is neither."""
    if not (path / STORE).is_file():
        stored = read_embeddings(path)
        rows = stored.rows
        return Corpus(path, rows.ids, rows.labels, rows.gaussians, stored.card, stored.model_id)
    with Gallery.open(path, read_only=True) as gallery:
        card, model_id = gallery.card, gallery.model_id
        distance, normalise = gallery.distance, gallery.normalise
        constants = gallery.fitting.constants if gallery.fitting else {}
        stale = gallery.stale
    records = Records(path / STORE, read_only=True)
    try:
        view = read_view(records, normalise=False)
        text = records.fact(f"match.{distance}")
    finally:
        records.close()
    match = MatchModel.from_json(text) if text else None
    return Corpus(
        path,
        view.ids,
        view.labels,
        view.items[:],
        card,
        model_id,
        distance,
        normalise,
        match,
        constants,
        stale,
    )


def check_together(gallery: Corpus, other: Corpus) -> None:
    """Raise MismatchError unless both are of one model, InputError when either is empty."""
    for corpus in (gallery, other):
        if not len(corpus):
            raise InputError(f"{corpus.path} holds no images; evaluation needs at least one")
    if gallery.model_id != other.model_id:
        raise MismatchError(
            f"{gallery.path} is of model {short_id(gallery.model_id)} ({gallery.card.name}), {other.path} of "
            f"{short_id(other.model_id)} ({other.card.name}); extract both with one model: "
            "vssl extract IMAGES EMBEDDINGS --model model.onnx"
        )
