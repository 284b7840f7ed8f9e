"""Answers per image -> the body the client asked for: JSON, base64 in JSON, Arrow stream or npz.

JSON prints every float32 with the fewest digits that read back to the same float32.
Shape letters: N images, D embedding dimension.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pybase64
from starlette.responses import Response

from serve.http.errors import describe
from serve.http.io.schemas import EmbedAnswer, EmbeddedItem, FailedImage
from serve.http.middleware.context import RequestContext
from serve.inference.embedded import EmbeddedImages
from vssl.embeddings.gaussian import Floats
from vssl.embeddings.store import MODEL_ID_KEY
from vssl.errors import VsslError
from vssl.model.card import CARD_KEY, ModelCard

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
NPZ = "application/x-npz"
FORMS = {JSON: JSON, ARROW: ARROW, NPZ: NPZ, "application/npz": NPZ}
END = b"\xff\xff\xff\xff\0\0\0\0"
"""What ends a stream of Arrow messages: a message of length 0."""

_SCHEMAS: dict[str, tuple[pa.Schema, pa.Buffer]] = {}
"""Schema and the message of it, by model id: writing the card as JSON takes longer than the stream."""


def dumps(value: Any) -> bytes:
    """Return JSON; numpy float32 is printed as float32."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def json_response(value: Any, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(dumps(value), status, media_type=JSON)


def accepted(context: RequestContext) -> str:
    """Return the form that Accept wants most: the highest q, of several the first; JSON where it names none of ours."""
    wanted = context.headers.get(b"accept")
    if wanted is None or wanted == b"*/*":
        return JSON
    best, form = 0.0, JSON
    for part in wanted.decode("latin-1").lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        quality = next((_quality(word) for word in parameters if word.startswith("q=")), 1.0)
        if kind in FORMS and quality > best:
            best, form = quality, FORMS[kind]
    return form


def _quality(word: str) -> float:
    """Return the number of `q=0.5`; 1 for what is none."""
    return float(word[2:]) if re.fullmatch(r"q=(0(\.\d{0,3})?|1(\.0{0,3})?)", word, re.ASCII) else 1.0


def base64_floats(values: Floats) -> str:
    """Return little-endian float32 as base64."""
    return pybase64.b64encode_as_string(np.ascontiguousarray(values, dtype="<f4").data)


def render(
    answers: EmbeddedImages,
    names: Sequence[str | None],
    card: ModelCard,
    model_id: str,
    *,
    form: str,
    encoding: str,
) -> Response:
    """Render answers in the order of the images."""
    if form == ARROW:
        return Response(_arrow_stream(answers, names, card, model_id), media_type=ARROW)
    if form == NPZ:
        return Response(_npz(answers, model_id), media_type=NPZ)
    columns = (_rows(answers.mean, encoding), _rows(answers.variance, encoding), answers.uncertainty)
    results: list[EmbeddedItem | FailedImage] = [
        {"mean": mean, "variance": variance, "uncertainty": uncertainty}
        for mean, variance, uncertainty in zip(*columns, strict=True)
    ]
    for position, error in answers.errors.items():
        results[position] = failed_image(error)
    for item, name in zip(results, names, strict=True):
        if name is not None:
            item["name"] = name
    body: EmbedAnswer = {"model_id": model_id, "dim": card.dim, "results": results}
    return json_response(body)


def failed_image(error: VsslError) -> FailedImage:
    """Return what stands in the place of an image that was not embedded."""
    described = describe(error)
    return {"error": {"code": str(described["code"]), "message": str(described["message"])}}


def _rows(values: Floats, encoding: str) -> Floats | list[str]:
    """Return the rows of (N, D) as JSON holds them: numbers, or little-endian float32 as base64."""
    if encoding != "base64":
        return values
    return [pybase64.b64encode_as_string(row.data) for row in np.ascontiguousarray(values, "<f4")]


def _npz(answers: EmbeddedImages, model_id: str) -> bytes:
    """mean, variance (N, D), uncertainty (N,) with NaN rows where an image failed; error (N,) text."""
    codes = [""] * len(answers)
    for position, error in answers.errors.items():
        codes[position] = error.code
    failed = [code != "" for code in codes]
    mean, variance, uncertainty = (
        np.where(np.reshape(failed, (-1,) + (1,) * (values.ndim - 1)), np.float32(np.nan), values)
        for values in (answers.mean, answers.variance, answers.uncertainty)
    )
    sink = io.BytesIO()
    np.savez(
        sink,
        mean=mean,
        variance=variance,
        uncertainty=uncertainty,
        error=np.array(codes),
        model_id=np.array(model_id),
    )
    return sink.getvalue()


def _arrow_stream(
    answers: EmbeddedImages, names: Sequence[str | None], card: ModelCard, model_id: str
) -> bytes:
    """Return an Arrow stream: a row an image in their order, with nulls and the error where it failed.

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


def _texts(values: Sequence[str | None]) -> pa.Array:
    """Return a column of texts; the usual one, which holds none, is made without its builder."""
    none = all(value is None for value in values)
    return pa.nulls(len(values), pa.string()) if none else pa.array(values, pa.string())


def _schema(card: ModelCard, model_id: str) -> pa.Schema:
    vector = pa.list_(pa.float32(), card.dim)
    fields: list[tuple[str, Any]] = [("name", pa.string()), ("mean", vector), ("variance", vector)]
    fields += [("uncertainty", pa.float32()), ("error_code", pa.string()), ("error_message", pa.string())]
    return pa.schema(fields, metadata={CARD_KEY: card.to_json(), MODEL_ID_KEY: model_id})
