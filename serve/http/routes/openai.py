"""/v1/embeddings and /v1/models: the OpenAI dialect, with images as data URIs in `input`.

`embedding` is the mean; `variance` and `uncertainty` stand beside it, where clients that know
nothing of them pass over them. This dialect has no errors per item: a request with an image
that cannot be embedded fails, and the error says which one.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from starlette.responses import Response

from serve.http.batching.served import Served
from serve.http.errors import RequestError, invalid
from serve.http.io.answers import base64_floats, encoding_of, json_response
from serve.http.io.body import Images, decode_base64, too_many
from serve.http.io.fetch import Link
from serve.http.middleware.context import RequestContext
from serve.http.routes.embed import embed_images, note_stage
from serve.http.state import Runtime
from serve.inference.engine import EmbeddedImage
from vssl.errors import ImageError


async def embeddings(runtime: Runtime, context: RequestContext) -> Response:
    """Answer POST /v1/embeddings."""
    begun = time.perf_counter()
    body = await runtime.bodies.json(context)
    if not isinstance(body, dict):
        raise invalid('the JSON body: expected {"model": "...", "input": ["data:image/...;base64,..."]}')
    served = runtime.find(body.get("model"))
    encoding, dimensions = encoding_of(body), _dimensions(served, body)
    items = _inputs(body.get("input"), runtime.settings.max_items)
    data = await runtime.bodies.fetched(context, [_image(item) for item in items])
    images = Images(data, [None] * len(items))
    note_stage(runtime, context, "read", time.perf_counter() - begun)
    answers = await embed_images(runtime, served, context, images)
    begun = time.perf_counter()
    rows = []
    for index, answer in enumerate(answers):
        if not isinstance(answer, EmbeddedImage):
            raise RequestError(answer.status, answer.code, f"input[{index}]: {answer}", param="input")
        mean, variance = answer.mean[:dimensions], answer.variance[:dimensions]
        encoded = encoding == "base64"
        rows.append(
            {
                "object": "embedding",
                "index": index,
                "embedding": base64_floats(mean) if encoded else mean,
                "variance": base64_floats(variance) if encoded else variance,
                "uncertainty": answer.uncertainty,
            }
        )
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    response = json_response({"object": "list", "data": rows, "model": served.name, "usage": usage})
    note_stage(runtime, context, "serialise", time.perf_counter() - begun)
    return response


async def models(runtime: Runtime, context: RequestContext) -> Response:
    """Answer GET /v1/models."""
    return json_response({"object": "list", "data": [_model(runtime, s) for s in runtime.lineup]})


async def one_model(runtime: Runtime, context: RequestContext) -> Response:
    """Answer GET /v1/models/{model}."""
    return json_response(_model(runtime, runtime.find(context.request.path_params["model"])))


def _model(runtime: Runtime, served: Served) -> dict[str, Any]:
    card = served.engine.card
    alone = [other.name for other in runtime.lineup].count(served.name) == 1
    try:
        created = int(datetime.fromisoformat(card.created).timestamp())
    except ValueError:
        created = 0
    return {
        "id": served.name if alone else f"{served.name}@{served.version}",
        "object": "model",
        "created": created,
        "owned_by": "vssl",
        "version": served.version,
        "model_id": served.engine.model_id,
        "dim": card.dim,
    }


def _dimensions(served: Served, body: dict[str, Any]) -> int:
    dim = served.engine.card.dim
    found = body.get("dimensions")
    if found is None:
        return dim
    if type(found) is not int or not 1 <= found <= dim:
        raise invalid(f"dimensions: found {found!r}, expected a whole number from 1 to {dim}", "dimensions")
    return found


def _inputs(found: Any, max_items: int) -> list[Any]:
    items = found if isinstance(found, list) else [found]
    if found is None or not items:
        raise invalid("input: expected a data URI of an image, or a list of them", "input")
    if len(items) > max_items:
        raise too_many(max_items, len(items))
    return items


def _image(item: Any) -> bytes | ImageError | Link:
    """Take a data URI, base64 or an https URL, bare or as {"image_url": {"url": ...}}."""
    if isinstance(item, dict):
        item = item.get("image_url") or item.get("image")
        if isinstance(item, dict):
            item = item.get("url")
    if not isinstance(item, str):
        return ImageError("unreadable", "expected a data URI: data:image/png;base64,...")
    return Link(item) if item[:8].lower().startswith(("http://", "https://")) else decode_base64(item)
