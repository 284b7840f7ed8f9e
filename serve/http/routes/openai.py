"""/v1/embeddings and /v1/models: the OpenAI dialect, with images as data URIs in `input`.

`embedding` is the mean; `variance` and `uncertainty` are further fields, which clients that do not
know them ignore. This dialect has no errors per item: a request with an image
that cannot be embedded fails, and the error says which one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypeAliasType, TypedDict

from serve.http.batching.models import ServedModel
from serve.http.errors import invalid
from serve.http.io.answers import base64_floats, json_response
from serve.http.io.base64 import decode_base64, located
from serve.http.io.body import too_many
from serve.http.io.schemas import Encoding, ModelName, Numbers, Whole
from serve.http.io.validation import Lenient
from serve.http.middleware.context import RequestContext
from serve.http.routes.embed import embed_images, raise_first
from serve.http.routes.routing import AnyQuery, Route
from serve.http.state import Runtime
from vssl.errors import ImageError, VsslError

EXPECTED = "data:image/png;base64,..."


class Url(Lenient):
    """An image as a data URI."""

    url: str


class ImagePart(Lenient):
    """An image as a part of a chat message would have it."""

    image_url: Url | str | None = None
    image: str | None = None


Inputs = TypeAliasType("Inputs", Annotated[list[str | ImagePart], Field(fail_fast=True)])


class EmbeddingsRequest(Lenient):
    """Images to embed: data URIs, or objects with image_url."""

    input: str | ImagePart | Inputs
    model: ModelName | None = None
    encoding_format: Encoding | None = None
    dimensions: Annotated[int, Field(ge=1), Whole] | None = None


class Embedding(TypedDict):
    """One image's mean, variance and uncertainty."""

    object: Literal["embedding"]
    index: int
    embedding: Numbers
    variance: Numbers
    uncertainty: float


class EmbeddingsAnswer(TypedDict):
    """One embedding an image, in order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: dict[str, int]


class ModelEntry(TypedDict):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    version: int
    model_id: str
    dim: int


class ModelList(TypedDict):
    """The models that are served."""

    object: Literal["list"]
    data: list[ModelEntry]


async def embeddings(runtime: Runtime, context: RequestContext, query: AnyQuery) -> Response:
    """OpenAI: embeddings.

    Images as data URIs in input; embedding is the mean; variance and uncertainty are further fields.
    """
    begun = time.perf_counter()
    body = await runtime.bodies.json(context, EmbeddingsRequest)
    served = runtime.models.find(body.model)
    dimensions = _dimensions(served, body)
    items = body.input if isinstance(body.input, list) else [body.input]
    if not items:
        raise invalid(f"input: found none, expected {EXPECTED}, or a list of them", "input")
    if len(items) > runtime.settings.max_items:
        raise too_many(runtime.settings.max_items, len(items))
    data = await runtime.bodies.aside(context.held_bytes, _images, items)
    context.timings["read"] = time.perf_counter() - begun
    answers = await embed_images(runtime, served, context, data)
    raise_first(answers, "input")
    begun = time.perf_counter()
    encoded = body.encoding_format == "base64"
    rows: list[Embedding] = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64_floats(mean) if encoded else mean,
            "variance": base64_floats(variance) if encoded else variance,
            "uncertainty": uncertainty,
        }
        for index, (mean, variance, uncertainty) in enumerate(
            zip(
                answers.mean[:, :dimensions],
                answers.variance[:, :dimensions],
                answers.uncertainty,
                strict=True,
            )
        )
    ]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    answer_body: EmbeddingsAnswer = {"object": "list", "data": rows, "model": served.name, "usage": usage}
    response = json_response(answer_body)
    context.timings["serialise"] = time.perf_counter() - begun
    return response


async def models(runtime: Runtime, context: RequestContext, query: AnyQuery) -> Response:
    """OpenAI: every model that is served."""
    body: ModelList = {"object": "list", "data": [_model(runtime, s) for s in runtime.models.all]}
    return json_response(body)


async def one_model(runtime: Runtime, context: RequestContext, query: AnyQuery) -> Response:
    """OpenAI: a model, by name or id."""
    return json_response(_model(runtime, runtime.models.find(context.path_params["model"])))


ROUTES = [
    Route(
        "POST",
        "/v1/embeddings",
        embeddings,
        AnyQuery,
        "curl $URL/v1/embeddings -H 'Content-Type: application/json' -d '{\"input\": \"data:image/png;base64,...\"}'",
        body=EmbeddingsRequest,
        answer=EmbeddingsAnswer,
        statuses=(404,),
    ),
    Route("GET", "/v1/models", models, AnyQuery, "curl $URL/v1/models", answer=ModelList),
    Route("GET", "/v1/models/{model}", one_model, AnyQuery, "curl $URL/v1/models/MODEL", answer=ModelEntry),
]


def _model(runtime: Runtime, served: ServedModel) -> ModelEntry:
    card = served.engine.card
    alone = [other.name for other in runtime.models.all].count(served.name) == 1
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


def _dimensions(served: ServedModel, body: EmbeddingsRequest) -> int:
    dim = served.engine.card.dim
    if body.dimensions is not None and body.dimensions > dim:
        raise invalid(
            f"dimensions: found {body.dimensions}, expected a whole number from 1 to {dim}", "dimensions"
        )
    return body.dimensions or dim


def _images(items: Sequence[str | ImagePart]) -> list[bytes | VsslError]:
    return [_image(item) for item in items]


def _image(item: str | ImagePart) -> bytes | VsslError:
    """Take a data URI or base64, bare or as {"image_url": {"url": ...}}."""
    if isinstance(item, ImagePart):
        found = item.image_url or item.image
        item = found.url if isinstance(found, Url) else found or ""
    if item[:8].lower().startswith(("http://", "https://")):
        return located(item)
    data = decode_base64(item)
    if isinstance(data, VsslError) and item[:5].lower() != "data:":
        return ImageError("unreadable", f"{data}; texts are not embedded here, send an image: {EXPECTED}")
    return data
