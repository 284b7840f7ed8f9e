"""Answers per image -> an Arrow stream: one row an image, nulls and the error where it failed.

Shape letters: N images, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from serve.http.batching.pending import Answer
from serve.http.errors import describe
from serve.inference.engine import EmbeddedImage
from vssl.embeddings.store import MODEL_ID_KEY
from vssl.model.card import CARD_KEY, ModelCard


def arrow_stream(
    answers: Sequence[Answer], names: Sequence[str | None], card: ModelCard, model_id: str
) -> bytes:
    """Return the stream of N answers in the order of the images.

    Columns: name, mean (D,), variance (D,), uncertainty, error_code, error_message. The schema's metadata
    holds the card and the model id.
    """
    rows = [a for a in answers if isinstance(a, EmbeddedImage)]
    present = iter(range(len(rows)))
    places = [next(present) if isinstance(a, EmbeddedImage) else None for a in answers]

    def matrix(name: str) -> pa.Array:
        flat = np.concatenate([getattr(a, name) for a in rows]) if rows else np.empty(0, np.float32)
        values = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), card.dim)
        return values if len(rows) == len(answers) else values.take(pa.array(places, pa.int64()))

    errors = [None if isinstance(a, EmbeddedImage) else describe(a) for a in answers]
    arrays = [
        pa.array(names, pa.string()),
        matrix("mean"),
        matrix("variance"),
        pa.array([a.uncertainty if isinstance(a, EmbeddedImage) else None for a in answers], pa.float32()),
        pa.array([e["code"] if e else None for e in errors], pa.string()),
        pa.array([e["message"] if e else None for e in errors], pa.string()),
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
