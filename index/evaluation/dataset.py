"""A gallery or embeddings folder -> the columns that an evaluation reads.

Shape letters: N images, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from index.calibration.match import MatchModel
from index.distances import DistanceParameters
from index.gallery.open import is_gallery, open_gallery
from vssl.embeddings.arrays import read_rows
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import InputError, MismatchError
from vssl.model.card import ModelCard
from vssl.model.identity import short_id


@dataclass(frozen=True, eq=False)
class Dataset:
    """N embedded images: ids, labels (None: unknown), Gaussians as stored, and whose they are.

    distance, normalise: what a gallery searches by; an embeddings folder has cosine and yes.
    match: the gallery's calibration of match probabilities for its distance, if it has one.
    constants: what was fitted to the gallery for each distance; stale: why that is out of date, or None.
    """

    place: str
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

    def as_compared(self, gaussians: GaussianEmbedding) -> GaussianEmbedding:
        """Return Gaussians as this side compares them: normalised, unless the gallery says otherwise."""
        return gaussians.normalised() if self.normalise else gaussians

    @property
    def name(self) -> str:
        """The last part of its place."""
        return PurePath(self.place).name


def read_dataset(place: str | Path) -> Dataset:
    """Read a gallery, wherever it is, or an embeddings folder or file. Raises InputError when it is neither."""
    if not is_gallery(place):
        rows, card, model_id = read_rows(Path(place))
        return Dataset(str(place), rows.ids, rows.labels, rows.gaussians, card, model_id)
    with open_gallery(place, read_only=True) as gallery:
        rows, _ = gallery.contents()
        fitting = gallery.fitting
        return Dataset(
            str(place),
            rows.ids,
            rows.labels,
            rows.gaussians,
            gallery.card,
            gallery.model_id,
            gallery.distance,
            gallery.normalise,
            gallery.match_model(gallery.distance),
            fitting.constants if fitting is not None else {},
            gallery.stale,
        )


def check_together(gallery: Dataset, other: Dataset) -> None:
    """Raise MismatchError unless both are of one model, InputError when either is empty."""
    for dataset in (gallery, other):
        if not len(dataset):
            raise InputError(f"{dataset.place} holds no images; evaluation needs at least one")
    if gallery.model_id != other.model_id:
        raise MismatchError(
            f"{gallery.place} is of model {short_id(gallery.model_id)} ({gallery.card.name}), {other.place} of "
            f"{short_id(other.model_id)} ({other.card.name}); extract both with one model: "
            "vssl extract IMAGES EMBEDDINGS --model model.onnx"
        )
