"""Answers per image -> an Arrow stream: one row an image, nulls where it failed and the error beside them.

Arrow's own writer costs more than a small image does, and writes the same bytes each time but for the
numbers. So where nothing failed and no names came along, the stream of that many rows is written once
and the numbers are put into a copy.
Shape letters: N images, D embedding dimension.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from serve.http.batching.pending import Answer
from serve.http.errors import item_error
from serve.inference.engine import EmbeddedImage
from vssl.embeddings.gaussian import Floats
from vssl.embeddings.store import MODEL_ID_KEY
from vssl.model.card import CARD_KEY, ModelCard

TEMPLATES = 64  # numbers of rows whose streams are kept,
KEPT = 16 * 1024 * 1024  # and their bytes: 256 rows of 2,048 dimensions are four million


@dataclass(frozen=True)
class _Template:
    """A stream of N rows, and where its means, variances and uncertainties begin."""

    stream: bytes
    places: tuple[int, int, int]


_TEMPLATES: dict[tuple[int, str], _Template] = {}


def arrow_stream(
    answers: Sequence[Answer], names: Sequence[str | None], card: ModelCard, model_id: str
) -> bytes | bytearray:
    """Return the stream of answers in the order of the images."""
    rows = [a for a in answers if isinstance(a, EmbeddedImage)]
    if len(rows) < len(answers) or any(name is not None for name in names):
        return written(answers, names, card, model_id)
    template = _TEMPLATES.get((len(rows), model_id))  # the id is of the file that holds the card
    if template is None:
        if len(_TEMPLATES) >= TEMPLATES or sum(len(kept.stream) for kept in _TEMPLATES.values()) > KEPT:
            _TEMPLATES.clear()
        template = _TEMPLATES[len(rows), model_id] = _template(len(rows), card, model_id)
    stream = bytearray(template.stream)
    spread = np.array([row.uncertainty for row in rows], np.float32)
    columns = ([row.mean for row in rows], [row.variance for row in rows], [spread])
    for place, parts in zip(template.places, columns, strict=True):
        for part in parts:
            stream[place : place + part.nbytes] = part.tobytes()
            place += part.nbytes
    return stream


def written(answers: Sequence[Answer], names: Sequence[str | None], card: ModelCard, model_id: str) -> bytes:
    """Return the stream as Arrow's writer makes it, whatever the answers are."""

    def matrix(name: str) -> pa.Array:
        rows = [a for a in answers if isinstance(a, EmbeddedImage)]
        flat = np.concatenate([getattr(a, name) for a in rows]) if rows else np.empty(0, np.float32)
        values = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), card.dim)
        if len(rows) == len(answers):
            return values
        present = iter(range(len(rows)))
        return values.take(
            pa.array([next(present) if isinstance(a, EmbeddedImage) else None for a in answers], pa.int64())
        )

    errors = [None if isinstance(a, EmbeddedImage) else item_error(a)["error"] for a in answers]
    uncertainty = [a.uncertainty if isinstance(a, EmbeddedImage) else None for a in answers]
    arrays = [
        pa.array(names, pa.string()),
        matrix("mean"),
        matrix("variance"),
        pa.array(uncertainty, pa.float32()),
        pa.array([e["code"] if e else None for e in errors], pa.string()),
        pa.array([e["message"] if e else None for e in errors], pa.string()),
    ]
    return _serialised(arrays, _schema(card, model_id))


def _serialised(arrays: Sequence[pa.Array], schema: pa.Schema) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(list(arrays), schema=schema))
    return sink.getvalue()


def _schema(card: ModelCard, model_id: str) -> pa.Schema:
    vector = pa.list_(pa.float32(), card.dim)
    fields: list[tuple[str, Any]] = [("name", pa.string()), ("mean", vector), ("variance", vector)]
    fields += [("uncertainty", pa.float32()), ("error_code", pa.string()), ("error_message", pa.string())]
    return pa.schema(fields, metadata={CARD_KEY: card.to_json(), MODEL_ID_KEY: model_id})


def _template(count: int, card: ModelCard, model_id: str) -> _Template:
    """Write a stream of numbers that stand nowhere else in it, and find them."""
    dim = card.dim
    random = np.random.default_rng(0)
    while True:
        marks: list[Floats] = [random.random(size, np.float32) for size in (count * dim, count * dim, count)]
        lists = [pa.FixedSizeListArray.from_arrays(pa.array(m, pa.float32()), dim) for m in marks[:2]]
        nothing = pa.nulls(count, pa.string())
        arrays = [nothing, *lists, pa.array(marks[2], pa.float32()), nothing, nothing]
        stream = _serialised(arrays, _schema(card, model_id))
        found = [mark.tobytes() for mark in marks]
        if all(stream.count(mark) == 1 for mark in found):
            first, second, third = (stream.index(mark) for mark in found)
            return _Template(stream, (first, second, third))
