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

    described = [error and describe(error) for error in errors]
    arrays = [
        pa.array(names, pa.string()),
        matrix(answers.mean),
        matrix(answers.variance),
        pa.array(answers.uncertainty, mask=absent),
        pa.array([d and d["code"] for d in described], pa.string()),
        pa.array([d and d["message"] for d in described], pa.string()),
    ]
    schema = _SCHEMAS.get(model_id) or _SCHEMAS.setdefault(model_id, _schema(card, model_id))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


_SCHEMAS: dict[str, pa.Schema] = {}
"""By model id, which is of the file that holds the card: writing the card as JSON takes longer than the stream."""


def _schema(card: ModelCard, model_id: str) -> pa.Schema:
    vector = pa.list_(pa.float32(), card.dim)
    fields: list[tuple[str, Any]] = [("name", pa.string()), ("mean", vector), ("variance", vector)]
    fields += [("uncertainty", pa.float32()), ("error_code", pa.string()), ("error_message", pa.string())]
    return pa.schema(fields, metadata={CARD_KEY: card.to_json(), MODEL_ID_KEY: model_id})
