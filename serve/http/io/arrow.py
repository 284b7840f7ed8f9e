"""Answers per image -> an Arrow stream: one row an image, nulls and the error where it failed.

Shape letters: N images, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from serve.http.errors import describe
from serve.inference.embedded import EmbeddedImages
from vssl.embeddings.gaussian import Floats
from vssl.embeddings.store import MODEL_ID_KEY
from vssl.model.card import CARD_KEY, ModelCard


def arrow_stream(
    answers: EmbeddedImages, names: Sequence[str | None], card: ModelCard, model_id: str
) -> bytes:
    """Return the stream of N answers in the order of the images.

    Columns: name, mean (D,), variance (D,), uncertainty, error_code, error_message. The schema's metadata
    holds the card and the model id.
    """
    errors = [answers.errors.get(n) for n in range(len(answers))]
    absent = np.array([error is not None for error in errors]) if answers.errors else None

    def matrix(values: Floats) -> pa.Array:
        mask = None if absent is None else pa.array(absent)
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), card.dim, mask=mask)

    arrays = [
        _texts(names),
        matrix(answers.mean),
        matrix(answers.variance),
        pa.array(answers.uncertainty, mask=absent),
        _texts([None if error is None else error.code for error in errors]),
        _texts([None if error is None else describe(error)["message"] for error in errors]),
    ]
    if model_id not in _SCHEMAS:
        schema = _schema(card, model_id)
        _SCHEMAS[model_id] = schema, schema.serialize()
    schema, head = _SCHEMAS[model_id]
    return b"".join((head, pa.RecordBatch.from_arrays(arrays, schema=schema).serialize(), END))


END = b"\xff\xff\xff\xff\0\0\0\0"
"""What ends a stream of Arrow messages: a message of length 0."""

_SCHEMAS: dict[str, tuple[pa.Schema, pa.Buffer]] = {}
"""Schema and the message of it, by model id: writing the card as JSON takes longer than the stream."""


def _texts(values: Sequence[str | None]) -> pa.Array:
    """Return a column of texts; the usual one, which holds none, is made without its builder."""
    none = all(value is None for value in values)
    return pa.nulls(len(values), pa.string()) if none else pa.array(values, pa.string())


def _schema(card: ModelCard, model_id: str) -> pa.Schema:
    vector = pa.list_(pa.float32(), card.dim)
    fields: list[tuple[str, Any]] = [("name", pa.string()), ("mean", vector), ("variance", vector)]
    fields += [("uncertainty", pa.float32()), ("error_code", pa.string()), ("error_message", pa.string())]
    return pa.schema(fields, metadata={CARD_KEY: card.to_json(), MODEL_ID_KEY: model_id})
