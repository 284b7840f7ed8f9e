"""POST /embed: images -> Gaussians, one answer or one error per image."""

from __future__ import annotations

import time

from starlette.responses import Response

from serve.http.batching.models import ServedModel
from serve.http.batching.pending import Answer
from serve.http.io.answers import ARROW, NPZ, accepted, render
from serve.http.io.body import Images
from serve.http.io.schemas import EmbedAnswer, EmbedOptions, EmbedRequest, WithImages
from serve.http.io.validation import Strict
from serve.http.middleware.context import RequestContext
from serve.http.routes.routing import Route
from serve.http.state import Runtime
from serve.inference.engine import EmbeddedImage
from vssl.errors import VsslError


async def embed(runtime: Runtime, context: RequestContext, query: EmbedOptions) -> Response:
    """Embed images.

    One answer or one error per image, in order. Ask for another form with Accept
    (application/vnd.apache.arrow.stream, application/x-npz) or with encoding_format=base64.
    """
    images = await read_images(runtime, context, EmbedOptions, EmbedRequest)
    options = query.merged(images.options)
    served = runtime.models.find(options.model)
    answers = await embed_images(runtime, served, context, images)
    raise_single(images, answers)
    begun = time.perf_counter()
    form, encoding = accepted(context), options.encoding_format or "float"
    card, model_id = served.engine.card, served.engine.model_id
    response = render(answers, images.names, card, model_id, form=form, encoding=encoding)
    note_stage(runtime, context, "serialise", time.perf_counter() - begun)
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
    runtime: Runtime, context: RequestContext, options: type[Strict], body: type[WithImages]
) -> Images:
    """Read the images of a request; where the queue is full, the request is refused before its body is read."""
    if len(runtime.models.all) == 1:
        refusal = runtime.models.default.batcher.admission.refusal(1)
        if refusal is not None:
            raise refusal
    begun = time.perf_counter()
    images = await runtime.bodies.images(context, options, body)
    note_stage(runtime, context, "read", time.perf_counter() - begun)
    return images


async def embed_images(
    runtime: Runtime, served: ServedModel, context: RequestContext, images: Images
) -> list[Answer]:
    """Embed a request's images in order."""
    good = [data for data in images.data if isinstance(data, bytes)]
    embedded = await served.batcher.embed(good) if good else None
    if embedded is not None:
        context.timings.update(embedded.timings)
        if "decode" in embedded.timings:
            runtime.metrics.stage["decode"].observe(embedded.timings["decode"])
    rest = iter(embedded.answers if embedded is not None else ())
    answers = [next(rest) if isinstance(data, bytes) else data for data in images.data]
    count(runtime, answers)
    return answers


def raise_single(images: Images, answers: list[Answer]) -> None:
    """Raise the error of a request's only image, so that the request answers its status."""
    if images.single and isinstance(answers[0], VsslError):
        raise answers[0]


def count(runtime: Runtime, answers: list[Answer]) -> None:
    """Count answers by outcome and observe their uncertainty."""
    embedded = 0
    for answer in answers:
        if isinstance(answer, EmbeddedImage):
            embedded += 1
            runtime.metrics.uncertainty.observe(answer.uncertainty)
        else:
            runtime.metrics.images(answer.code, 1)
    if embedded:
        runtime.metrics.images("embedded", embedded)


def note_stage(runtime: Runtime, context: RequestContext, stage: str, seconds: float) -> None:
    """Record one stage's seconds for the metrics and the Server-Timing header."""
    context.timings[stage] = seconds
    runtime.metrics.stage[stage].observe(seconds)
