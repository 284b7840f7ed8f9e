"""Answers per image -> the body the client asked for: JSON, base64 in JSON, Arrow stream or npz.

JSON prints every float32 with the fewest digits that read back to the same float32.
Shape letters: N images, D embedding dimension.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pybase64
from starlette.requests import Request
from starlette.responses import Response

from serve.engine import EmbeddedImage
from serve.http.batcher import Answer
from serve.http.failures import describe, invalid
from vssl.card import CARD_KEY, ModelCard
from vssl.gaussian import Floats
from vssl.store import MODEL_ID_KEY

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
NPZ = "application/x-npz"
ENCODINGS = ("float", "base64")
_SCHEMAS: dict[str, pa.Schema] = {}


def dumps(value: Any) -> bytes:
    """Return JSON; numpy float32 is printed as float32."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def json_response(value: Any, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(dumps(value), status, media_type=JSON)


def accepted(request: Request) -> str:
    """Return the first of our binary forms that Accept names, else JSON."""
    wanted = request.scope["vssl.headers"].get(b"accept")
    if wanted is None or wanted == b"*/*":
        return JSON
    for kind in (part.partition(";")[0].strip().lower() for part in wanted.decode("latin-1").split(",")):
        if kind == ARROW:
            return ARROW
        if kind in (NPZ, "application/npz"):
            return NPZ
        if kind == JSON:
            return JSON
    return JSON


def encoding_of(options: dict[str, Any]) -> str:
    """Return the asked `encoding_format`; raises RequestError for an unknown one."""
    found = options.get("encoding_format", "float")
    if found not in ENCODINGS:
        raise invalid(f"encoding_format: found {found!r}, expected float or base64", "encoding_format")
    return str(found)


def base64_floats(values: Floats) -> str:
    """Return little-endian float32 as base64."""
    return pybase64.b64encode_as_string(np.ascontiguousarray(values, dtype="<f4").data)


def item_error(answer: Any) -> dict[str, Any]:
    """Return {"error": {"code", "message"}} of one failed image."""
    described = describe(answer)
    return {"error": {"code": described["code"], "message": described["message"]}}


def render(
    answers: Sequence[Answer],
    names: Sequence[str | None],
    card: ModelCard,
    model_id: str,
    *,
    form: str,
    encoding: str,
) -> Response:
    """Render answers in the order of the images."""
    if form == ARROW:
        return Response(_arrow(answers, names, card, model_id), media_type=ARROW)
    if form == NPZ:
        return Response(_npz(answers, model_id), media_type=NPZ)
    encode = base64_floats if encoding == "base64" else _as_is
    results = []
    for answer, name in zip(answers, names, strict=True):
        item: dict[str, Any] = {} if name is None else {"name": name}
        if isinstance(answer, EmbeddedImage):
            item["mean"] = encode(answer.mean)
            item["variance"] = encode(answer.variance)
            item["uncertainty"] = np.float32(answer.uncertainty)
        else:
            item |= item_error(answer)
        results.append(item)
    return json_response({"model_id": model_id, "dim": card.dim, "results": results})


def _as_is(values: Floats) -> Floats:
    return values


def _arrow(answers: Sequence[Answer], names: Sequence[str | None], card: ModelCard, model_id: str) -> bytes:
    """One row an image, in order: nulls where it failed, with the error beside them."""

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
    batch = pa.RecordBatch.from_arrays(arrays, schema=_schema(card, model_id))
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def _schema(card: ModelCard, model_id: str) -> pa.Schema:
    """Return the schema of an Arrow answer, made once for each model."""
    if model_id not in _SCHEMAS:
        vector = pa.list_(pa.float32(), card.dim)
        fields = [
            ("name", pa.string()),
            ("mean", vector),
            ("variance", vector),
            ("uncertainty", pa.float32()),
        ]
        fields += [("error_code", pa.string()), ("error_message", pa.string())]
        _SCHEMAS.clear()
        _SCHEMAS[model_id] = pa.schema(fields, metadata={CARD_KEY: card.to_json(), MODEL_ID_KEY: model_id})
    return _SCHEMAS[model_id]


def _npz(answers: Sequence[Answer], model_id: str) -> bytes:
    """mean, variance (N, D), uncertainty (N,) with NaN rows where an image failed; error (N,) text."""
    rows = [a if isinstance(a, EmbeddedImage) else None for a in answers]
    width = next((len(a.mean) for a in rows if a is not None), 0)
    nothing = np.full(width, np.nan, np.float32)
    sink = io.BytesIO()
    np.savez(
        sink,
        mean=np.stack([nothing if a is None else a.mean for a in rows]),
        variance=np.stack([nothing if a is None else a.variance for a in rows]),
        uncertainty=np.array([np.nan if a is None else a.uncertainty for a in rows], np.float32),
        error=np.array(
            ["" if isinstance(a, EmbeddedImage) else item_error(a)["error"]["code"] for a in answers]
        ),
        model_id=np.array(model_id),
    )
    return sink.getvalue()
