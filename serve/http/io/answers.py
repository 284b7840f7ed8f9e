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
import pybase64
from starlette.responses import Response

from serve.http.batching.pending import Answer
from serve.http.errors import describe
from serve.http.io.arrow import arrow_stream
from serve.http.io.schemas import EmbedAnswer, EmbeddedItem, FailedImage
from serve.http.middleware.context import RequestContext
from serve.inference.engine import EmbeddedImage
from vssl.embeddings.gaussian import Floats
from vssl.errors import VsslError
from vssl.model.card import ModelCard

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
NPZ = "application/x-npz"


def dumps(value: Any) -> bytes:
    """Return JSON; numpy float32 is printed as float32."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def json_response(value: Any, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(dumps(value), status, media_type=JSON)


def accepted(context: RequestContext) -> str:
    """Return the first of our binary forms that Accept names, else JSON."""
    wanted = context.headers.get(b"accept")
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


def base64_floats(values: Floats) -> str:
    """Return little-endian float32 as base64."""
    return pybase64.b64encode_as_string(np.ascontiguousarray(values, dtype="<f4").data)


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
        return Response(arrow_stream(answers, names, card, model_id), media_type=ARROW)
    if form == NPZ:
        return Response(_npz(answers, model_id), media_type=NPZ)
    encode = base64_floats if encoding == "base64" else _as_is
    results: list[EmbeddedItem | FailedImage] = []
    for answer, name in zip(answers, names, strict=True):
        item: EmbeddedItem | FailedImage
        if isinstance(answer, EmbeddedImage):
            item = {
                "mean": encode(answer.mean),
                "variance": encode(answer.variance),
                "uncertainty": np.float32(answer.uncertainty),
            }
        else:
            item = failed_image(answer)
        if name is not None:
            item["name"] = name
        results.append(item)
    body: EmbedAnswer = {"model_id": model_id, "dim": card.dim, "results": results}
    return json_response(body)


def failed_image(error: VsslError) -> FailedImage:
    """Return what stands in the place of an image that was not embedded."""
    described = describe(error)
    return {"error": {"code": str(described["code"]), "message": str(described["message"])}}


def _as_is(values: Floats) -> Floats:
    return values


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
        error=np.array(["" if isinstance(a, EmbeddedImage) else describe(a)["code"] for a in answers]),
        model_id=np.array(model_id),
    )
    return sink.getvalue()
