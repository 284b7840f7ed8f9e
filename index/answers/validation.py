"""Rows, metadata, models and questions -> what a gallery takes in and answers, or why it does not.

A gallery of means without variances, as its card says (`ModelCard.has_variance`), refuses by name what reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from index.answers.filters import COLUMNS, FIELD, Scalar, parse_filter
from index.answers.metadata_columns import compared_fields
from index.answers.results import GalleryItem, SearchResult
from index.distances.table import MEANS_ALONE, NAMES, named
from vssl.embeddings.arrays import is_elsewhere
from vssl.embeddings.gaussian import Floats, GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import InputError, MismatchError, shown
from vssl.images.items import MAX_TEXT
from vssl.model.card import ModelCard
from vssl.model.identity import short_id

Metadata = Mapping[str, Scalar]
RESERVED = (*COLUMNS, "and", "or", "not")
UNASKABLE = re.compile("[\0\ud800-\udfff]")
"""In a text of metadata: SQLite ends it at a zero byte, and half a surrogate pair is no character."""


def check_model(place: str, card: ModelCard, model_id: str, found: str | None, what: str) -> None:
    """Raise MismatchError when a model id was found and is not the one of the gallery at `place`.

    Nothing says which model made embeddings from elsewhere: a gallery of them believes any model.
    """
    if card.from_elsewhere and found is not None and not is_elsewhere(found):
        return
    if found is not None and found != model_id:
        raise MismatchError(
            f"{what} are of model {short_id(found)}, the gallery {place} of {short_id(model_id)} "
            f"({card.name}); use that model, or build a gallery for the new one: "
            "vssl extract IMAGES EMBEDDINGS --model model.onnx, then vssl index EMBEDDINGS GALLERY"
        )


def compared(gaussians: GaussianEmbedding, place: str, dim: int, *, normalise: bool) -> GaussianEmbedding:
    """Return Gaussians as a gallery compares them.

    Raises InputError for another dimension, and for a mean without a direction where means are normalised.
    """
    if gaussians.dim != dim:
        raise InputError(f"found vectors of {gaussians.dim} dimensions, the gallery {place} holds {dim}")
    return gaussians.normalised() if normalise else gaussians


def check_search(
    k: int, exclude: Sequence[str | None] | None, queries: int, *, most: int | None = None
) -> None:
    """Raise InputError for a number of neighbours, or of ids to leave out, that cannot be meant."""
    if k < 1 or (most is not None and k > most):
        raise InputError(f"k: found {k}, expected {'at least 1' if most is None else f'1 to {most}'}")
    if exclude is not None and len(exclude) != queries:
        raise InputError(f"exclude: found {len(exclude)} ids for {queries} queries")


def checked_metadata(rows: Rows, metadata: Sequence[Metadata] | None) -> list[dict[str, Scalar]]:
    """Return the metadata of N rows, one flat mapping each.

    Raises InputError for an id given twice, a label longer than `MAX_TEXT`, metadata of another length, and a
    name or a value that a filter could not ask for.
    """
    long = next((label for label in rows.labels if label is not None and len(label) > MAX_TEXT), None)
    if long is not None:
        raise InputError(f"label: found {shown(long)}, expected at most {MAX_TEXT} characters")
    if len(set(rows.ids)) != len(rows):
        seen: set[str] = set()
        for id_ in rows.ids:
            if id_ in seen:
                raise InputError(f"the id {shown(id_)} is given twice; ids must be unique")
            seen.add(id_)
    if metadata is None:
        return [{} for _ in range(len(rows))]
    if len(metadata) != len(rows):
        raise InputError(f"metadata: found {len(metadata)} entries for {len(rows)} rows")
    return [{name: _value(name, value) for name, value in entry.items()} for entry in metadata]


def _value(name: object, value: object) -> Scalar:
    if not isinstance(name, str) or not FIELD.fullmatch(name) or name in RESERVED:
        raise InputError(
            f"metadata: found the name {shown(name)}, expected letters, digits, '_', '.', '-', "
            f"and none of {', '.join(RESERVED)}"
        )
    if isinstance(value, np.generic):  # as pandas hands out the cells of a table
        value = value.item()
    if isinstance(value, bool | None) or (isinstance(value, str) and not UNASKABLE.search(value)):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, float) and np.isfinite(value):
        return value
    raise InputError(
        f"metadata: {name}: found {shown(value)}, expected a text without zero bytes, a finite number, true, "
        "false or null"
    )


def distances_of(card: ModelCard) -> tuple[str, ...]:
    """Return the distances that can be had: all, or those that read no variance."""
    return NAMES if card.has_variance else MEANS_ALONE


def needs_variances(place: str, card: ModelCard, what: str) -> None:
    """Raise InputError where `what` is asked of means without variances."""
    if not card.has_variance:
        raise InputError(
            f"{place} holds means without variances, so it has no {what}; index a file that has a `variance` too: "
            "vssl index FILE.npz GALLERY"
        )


def check_distance(place: str, card: ModelCard, distance: str | None) -> None:
    """Raise InputError for an unknown distance, and for one that reads variances where there are none."""
    if distance is not None and named(distance).name not in distances_of(card):
        raise InputError(
            f"{place} holds means without variances, which the distance {distance} reads; use "
            f"{' or '.join(MEANS_ALONE)}, or index a file that has a `variance` too: vssl index FILE.npz GALLERY"
        )


def check_asked(
    place: str,
    card: ModelCard,
    distance: str | None,
    max_uncertainty: float | None,
    where: Mapping[str, object] | None,
) -> None:
    """Raise InputError for a search that asks for what there is not."""
    check_distance(place, card, distance)
    if max_uncertainty is not None and not 0 <= max_uncertainty <= 1:
        raise InputError(f"max_uncertainty: found {max_uncertainty}, expected a number from 0 to 1")
    if max_uncertainty is not None or (
        where is not None and "uncertainty" in compared_fields(parse_filter(where))
    ):
        needs_variances(place, card, "uncertainty")


def as_held(card: ModelCard, gaussians: GaussianEmbedding) -> GaussianEmbedding:
    """Return Gaussians without their variances where the gallery has none."""
    return gaussians if card.has_variance else GaussianEmbedding.of_means(gaussians.mean)


def as_added(card: ModelCard, gaussians: GaussianEmbedding, uncertainty: Floats) -> GaussianEmbedding:
    """Return stored Gaussians with the uncertainty that was stored for them, unless it is derived from them."""
    if card.uncertainty_fit is None:
        return as_held(card, gaussians)
    return GaussianEmbedding(gaussians.mean, gaussians.variance, uncertainty)


def as_answered(card: ModelCard, results: Sequence[SearchResult]) -> list[SearchResult]:
    """Return results without the numbers that stand for variances where the gallery has none."""
    if card.has_variance:
        return list(results)
    return [
        replace(
            result,
            uncertainty=None,
            uncertainty_percentile=None,
            neighbours=[replace(n, variance_score=None, uncertainty=None) for n in result.neighbours],
        )
        for result in results
    ]


def item_as_answered(card: ModelCard, item: GalleryItem) -> GalleryItem:
    """Return an item without the numbers that stand for its variance where the gallery has none."""
    return item if card.has_variance else replace(item, variance=None, uncertainty=None)
