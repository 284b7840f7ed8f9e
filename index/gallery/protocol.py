"""What every gallery answers, wherever it keeps its items: a folder or Milvus.

The command line, the server, evaluation and curation know this much and no more. What a gallery cannot do
it refuses with an InputError that says what to do instead.
Shape letters: Q queries, N items.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from index.answers.filters import Scalar
from index.answers.listing import Listing
from index.answers.results import GalleryItem, Neighbourhood, SearchResult
from index.answers.validation import Metadata, check_distance
from index.calibration.abstention import AbstentionRule
from index.calibration.fit import Fitting
from index.calibration.match import MatchModel
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import InputError, VsslError
from vssl.model.card import ModelCard

GALLERY_FORMAT = 1


class StorageError(VsslError):
    """The disk or the database refused a write: it is full, or cannot be written."""

    code = "storage"
    status = 507


class Gallery(Protocol):
    """Embedded images of one model, searched and changed. Close it, or use it in a `with` block."""

    card: ModelCard
    model_id: str
    normalise: bool

    @property
    def place(self) -> str:
        """Where it is, as `index.gallery.open.open_gallery` takes it."""

    @property
    def distance(self) -> str:
        """The distance that a search uses unless it names another."""

    @property
    def fitting(self) -> Fitting | None:
        """The constants that were fitted to this gallery and why it has its distance, or None."""

    @property
    def stale(self) -> str | None:
        """Why the fitted constants no longer fit what the gallery holds, or None while they do."""

    @property
    def generation(self) -> int:
        """How many writes the gallery has seen."""

    def __len__(self) -> int: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def close(self) -> None:
        """Let go of the gallery; what a later opening needs is kept."""

    def info(self) -> dict[str, Any]:
        """Return what a person asks about a gallery, as plain values."""

    def columns(self) -> Mapping[str, Mapping[str, int]]:
        """Return the names of its metadata, and how many items have a text, a number or true or false there."""

    def get(self, id_: str) -> GalleryItem:
        """Return one item. Raises InputError when there is none of that id."""

    def contents(self) -> tuple[Rows, list[dict[str, Scalar]]]:
        """Return every item and its metadata as they were added, in the order they were."""

    def check_model(self, model_id: str | None, what: str) -> None:
        """Raise MismatchError when `model_id` is given and is not the gallery's."""

    def search(
        self,
        queries: GaussianEmbedding,
        k: int = 10,
        *,
        distance: str | None = None,
        max_uncertainty: float | None = None,
        where: Mapping[str, object] | None = None,
        model_id: str | None = None,
        exclude: Sequence[str | None] | None = None,
        max_risk: float | None = None,
    ) -> list[SearchResult]:
        """Return the `k` nearest items of each of Q queries, as many as there are.

        Args:
            queries: Gaussians (Q, D) as the gallery's model embeds them.
            k: how many items.
            distance: one of `index.distances.table.NAMES`, the gallery's own by default.
            max_uncertainty: only items this sure; k results come back when k such exist.
            where: only items that a filter keeps (index.answers.filters), likewise.
            model_id: of the queries.
            exclude: one id (or None) a query, which that query does not return: itself, usually.
            max_risk: say of each answer whether to abstain, so that of the others at most this share
                has a wrong nearest image (`abstention`).

        Raises:
            InputError: a wrong argument, a filter on what no item has, or something that this kind of
                gallery cannot do.
            MismatchError: `model_id` is not the gallery's.
        """

    def match_model(self, distance: str) -> MatchModel | None:
        """Return the match calibration of a distance, None where there is none."""

    def abstention(self, max_risk: float, distance: str | None = None) -> AbstentionRule:
        """Return when to answer so that at most `max_risk` of the answers have a wrong nearest image.

        Raises InputError where there is nothing to calibrate on.
        """

    def neighbourhood(self, k: int, *, white: bool = False) -> Neighbourhood:
        """Return the `k` nearest others of every item (N, K), by the gallery's own distance.

        white: by cosine of whitened means (index.calibration.whitening), of the means where they are too few.
        """

    def listing(self) -> Listing:
        """Return every item without its Gaussian, as columns to browse and filter by.

        Raises InputError where items are not kept at hand.
        """

    def add(
        self,
        rows: Rows,
        *,
        replace: bool = False,
        metadata: Sequence[Metadata] | None = None,
        model_id: str | None = None,
    ) -> None:
        """Add N embedded images; they are kept when this returns.

        metadata: one flat mapping a row, for filters. Raises ExistsError for an id that is there
        when `replace` is false, InputError for an id given twice or vectors of another size,
        MismatchError when `model_id` is given and is not the gallery's.
        """

    def remove(self, ids: Sequence[str]) -> int:
        """Remove items by id; returns how many of them were there."""

    def remove_where(self, where: Mapping[str, object]) -> int:
        """Remove the items that a filter keeps; returns how many."""


def first_facts(card: ModelCard, model_id: str, distance: str, *, normalise: bool) -> dict[str, str]:
    """Return what every kind of gallery keeps of its model and of how it compares, as named texts.

    Raises InputError for a distance that is unknown, or that reads variances where there are none.
    """
    check_distance("this gallery", card, distance)
    return {
        "dim": str(card.dim),
        "model_id": model_id,
        "card": card.to_json(),
        "distance": distance,
        "normalise": "1" if normalise else "0",
    }


def common_info(gallery: Gallery) -> dict[str, Any]:
    """Return what `info` says of every kind of gallery."""
    fitting = gallery.fitting
    return {
        "path": gallery.place,
        "format": GALLERY_FORMAT,
        "model_id": gallery.model_id,
        "model": gallery.card.name,
        "items": len(gallery),
        "dim": gallery.card.dim,
        "variance": gallery.card.calibration.kind,
        "distance": gallery.distance,
        "normalise": gallery.normalise,
        "generation": gallery.generation,
        "metadata": {name: dict(kinds) for name, kinds in gallery.columns().items()},
        "fitting": {**fitting.facts(), "stale": gallery.stale} if fitting is not None else None,
    }


def match_info(match: MatchModel | None) -> dict[str, Any] | None:
    """Return a match calibration as plain values."""
    return None if match is None else dict(json.loads(match.to_json()))


def needs_a_folder(what: str, place: str) -> InputError:
    """Return the refusal of what only a gallery in a folder can do."""
    return InputError(
        f"{what} needs a gallery folder, found {place}; copy it to one with: vssl gallery move {place} FOLDER"
    )
