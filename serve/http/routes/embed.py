"""POST /embed: images -> Gaussians, one answer or one error per image."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydantic import BaseModel
from starlette.responses import Response

from serve.http.batching.models import ServedModel
from serve.http.errors import RequestError
from serve.http.io.answers import ARROW, NPZ, accepted, render
from serve.http.io.body import Images, media_type
from serve.http.io.schemas import EmbedAnswer, EmbedOptions, EmbedRequest, WithImages
from serve.http.io.validation import Strict
from serve.http.middleware.context import RequestContext
from serve.http.routes.routing import Route
from serve.http.state import Runtime
from serve.inference.embedded import EmbeddedImages
from vssl.errors import VsslError
from vssl.images.preprocess import Pixels


async def embed(runtime: Runtime, context: RequestContext, query: EmbedOptions) -> Response:
    """Embed images.

    One answer or one error per image, in order. Ask for another form with Accept
    (application/vnd.apache.arrow.stream, application/x-npz) or with encoding_format=base64.
    """
    images = await read_images(runtime, context, EmbedOptions, EmbedRequest)
    options = query.merged(images.options)
    served = runtime.models.find(options.model)
    answers = await embed_images(runtime, served, context, images.data)
    raise_single(images, answers)
    begun = time.perf_counter()
    form, encoding = accepted(context), options.encoding_format or "float"
    card, model_id = served.engine.card, served.engine.model_id
    response = render(answers, images.names, card, model_id, form=form, encoding=encoding)
    context.timings["serialise"] = time.perf_counter() - begun
    return response


ROUTES = [
    Route(
        "POST",
        "/embed",
        embed,
        EmbedOptions,
        "curl --data-binary @photo.jpg $URL/embed",
        body=EmbedRequest,
        takes_images=True,
        answer=EmbedAnswer,
        media=(ARROW, NPZ),
    )
]


async def read_images(
    runtime: Runtime, context: RequestContext, options: type[Strict], body: type[BaseModel]
) -> Images:
    """Read the images of a request; where the queue is full, the request is refused before its body is read.

    One that says that it is JSON is read first where it may hold Gaussians, which do not queue.
    """
    may_wait = issubclass(body, WithImages) or media_type(context) != "application/json"
    if may_wait and len(runtime.models.all) == 1:
        refusal = runtime.models.default.batcher.admission.refusal(1)
        if refusal is not None:
            raise refusal
    begun = time.perf_counter()
    images = await runtime.bodies.images(context, options, body)
    context.timings["read"] = time.perf_counter() - begun
    return images


async def embed_images(
    runtime: Runtime,
    served: ServedModel,
    context: RequestContext,
    images: Sequence[bytes | Pixels | VsslError],
) -> EmbeddedImages:
    """Embed a request's images in order, and count them."""
    answers, metrics = await served.batcher.embed(images, context.timings), runtime.metrics
    for error in answers.errors.values():
        metrics.images(error.code, 1)
    spread = answers.uncertainty[answers.embedded] if answers.errors else answers.uncertainty
    if len(spread):
        metrics.images("embedded", len(spread))
        metrics.uncertainty.observe_all(spread.tolist())
    return answers


def raise_single(images: Images, answers: EmbeddedImages) -> None:
    """Raise the error of a request's only image, so that the request answers its status."""
    if images.single and answers.errors:
        raise answers.errors[0]


def raise_first(answers: EmbeddedImages, name: str) -> None:
    """Raise the first error, for the dialects in which a request fails as a whole; `name` is the images' field."""
    if answers.errors:
        index, error = min(answers.errors.items())
        raise RequestError(error.status, error.code, f"{name}[{index}]: {error}", param=name)
