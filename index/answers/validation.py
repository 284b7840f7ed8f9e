"""Rows, metadata and models -> what a gallery takes in, or why it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from index.answers.filters import COLUMNS, FIELD, Scalar
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import InputError, MismatchError, shown
from vssl.images.items import MAX_TEXT
from vssl.model.card import ModelCard
from vssl.model.identity import short_id

Metadata = Mapping[str, Scalar]
RESERVED = (*COLUMNS, "and", "or", "not")


def check_model(place: str, card: ModelCard, model_id: str, found: str | None, what: str) -> None:
    """Raise MismatchError when a model id was found and is not the one of the gallery at `place`."""
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
    if isinstance(value, (str, bool, type(None))):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, float) and np.isfinite(value):
        return value
    raise InputError(
        f"metadata: {name}: found {shown(value)}, expected a text, a finite number, true, false or null"
    )
