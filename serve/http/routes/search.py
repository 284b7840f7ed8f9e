"""POST /search: images or Gaussians -> neighbours with distance, variance score, match probability."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from starlette.responses import Response

from index.answers.filters import parse_filter
from index.answers.metadata_columns import compared_fields
from serve.http.batching.models import ServedModel
from serve.http.errors import RequestError, invalid
from serve.http.io.answers import failed_image, json_response
from serve.http.io.schemas import (
    FailedImage,
    FoundItem,
    GaussianSearch,
    SearchAnswer,
    SearchOptions,
    SearchRequest,
)
from serve.http.io.validation import with_param
from serve.http.middleware.context import RequestContext
from serve.http.routes.embed import embed_images, raise_single, read_images
from serve.http.routes.gallery.files import check_paths_told
from serve.http.routes.routing import Route
from serve.http.state import Runtime
from serve.inference.embedded import EmbeddedImages
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import InputError, shown
from vssl.model.identity import short_id

if TYPE_CHECKING:
    from index.answers.results import SearchResult
    from index.gallery.protocol import Gallery

DEFAULT_K = 10


async def search(runtime: Runtime, context: RequestContext, query: SearchOptions) -> Response:
    """Search with images or Gaussians.

    Images as in /embed, or the mean and variance of earlier answers. Of the neighbours, only those that
    `where` and `max_uncertainty` let through.
    """
    _ = runtime.gallery  # a server without one says so before it reads anything
    images = await read_images(runtime, context, SearchOptions, SearchRequest)
    body, options = images.options, query.merged(images.options)
    served = query_model(runtime, options)
    if isinstance(body, GaussianSearch):
        answers = await runtime.bodies.aside(context.held_bytes, gaussians_of, runtime, served, body)
        names: list[str | None] = [None] * len(answers)
        return await respond(runtime, served, context, answers, names, options, exclude=body.exclude or ())
    answers = await embed_images(runtime, served, context, images.data)
    raise_single(images, answers)
    return await respond(runtime, served, context, answers, images.names, options)


ROUTES = [
    Route(
        "POST",
        "/search",
        search,
        SearchOptions,
        "curl --data-binary @photo.jpg '$URL/search?k=5&where=label=cat'",
        body=SearchRequest,
        takes_images=True,
        answer=SearchAnswer,
        statuses=(403, 404, 409),
    )
]


def query_model(runtime: Runtime, options: SearchOptions) -> ServedModel:
    """Return the model that embeds queries: the gallery's own unless another is named."""
    return runtime.gallery_model if options.model is None else runtime.models.find(options.model)


async def respond(
    runtime: Runtime,
    served: ServedModel,
    context: RequestContext,
    answers: EmbeddedImages,
    names: list[str | None],
    options: SearchOptions,
    *,
    exclude: Sequence[str] = (),
) -> Response:
    """Search with what was embedded; a failed image keeps its error in its place.

    exclude: ids of items not to find.
    """
    if options.where is not None and "path" in compared_fields(parse_filter(options.where)):
        check_paths_told(runtime, "where")  # comparisons would tell them letter by letter
    k = options.k or DEFAULT_K
    found: list[SearchResult] = []
    queries = answers.gaussians
    if len(queries):
        begun = time.perf_counter()

        def work(gallery: Gallery) -> list[SearchResult]:
            return gallery.search(
                queries,
                k,
                distance=options.distance or None,
                max_uncertainty=options.max_uncertainty,
                where=without(options.where, exclude),
                model_id=served.engine.model_id,
                exclude=[exclude[0]] * len(queries) if len(exclude) == 1 else None,
                max_risk=options.max_risk or runtime.settings.max_risk,
            )

        found = await runtime.with_gallery(work)
        context.timings["search"] = time.perf_counter() - begun
    rest, own = iter(found), iter(queries.uncertainty.tolist())
    results: list[FoundItem | FailedImage] = []
    for position, name in enumerate(names):
        failure = answers.errors.get(position)
        item = describe_result(next(rest), next(own)) if failure is None else failed_image(failure)
        if name is not None:
            item["query"] = name
        results.append(item)
    body: SearchAnswer = {"model_id": served.engine.model_id, "k": k, "results": results}
    return json_response(body)


def without(where: Mapping[str, Any] | None, exclude: Sequence[str]) -> Mapping[str, Any] | None:
    """Return a filter that leaves out several items too; a single one the search leaves out itself."""
    if len(exclude) < 2:
        return where
    others = {"id": {"not in": list(exclude)}}
    return others if where is None else {"and": [where, others]}


def describe_result(result: SearchResult, own: float) -> FoundItem:
    """Return one query's result as plain values.

    own: the model's uncertainty of the query, for a gallery that knows none.
    """
    known = own if result.uncertainty is None else result.uncertainty
    return cast("FoundItem", result.to_dict() | {"uncertainty": known})


def gaussians_of(runtime: Runtime, served: ServedModel, body: GaussianSearch) -> EmbeddedImages:
    """Return the Gaussians of a body, one row or several, as if they had been embedded here.

    Raises RequestError 400 for what is no Gaussian of the model's size, 409 for another model's.
    """
    try:
        rows = GaussianEmbedding.from_lists(body.mean, body.variance)
    except InputError as error:
        raise invalid(str(error), with_param(error).param or "mean") from None
    if not len(rows) or rows.dim != served.engine.card.dim:
        raise invalid(
            f"mean: found {len(rows)} rows of {rows.dim} numbers, expected rows of {served.engine.card.dim}",
            "mean",
        )
    if len(rows) > runtime.settings.max_items:
        raise invalid(f"mean: found {len(rows)} rows, expected at most {runtime.settings.max_items}", "mean")
    if body.model_id is not None and body.model_id != served.engine.model_id:
        raise RequestError(
            409,
            "model_mismatch",
            f"model_id: found {shown(body.model_id)}, expected {served.engine.model_id}; embed the query with that "
            f"model: POST /embed?model={short_id(served.engine.model_id)}",
            param="model_id",
        )
    predicted = served.engine.card.uncertainty_fit is not None
    spread = np.array(_predicted(body, len(rows)), np.float32) if predicted else rows.uncertainty
    return EmbeddedImages(rows.mean, rows.variance, np.empty((len(rows), 0), np.float32), spread, predicted)


def _predicted(body: GaussianSearch, rows: int) -> list[float]:
    """Return the uncertainty given with the means; raises RequestError 400 where it is missing."""
    if body.uncertainty is None or len(body.uncertainty) != rows:
        found = "none" if body.uncertainty is None else f"{len(body.uncertainty)} numbers"
        raise invalid(
            f"uncertainty: found {found}, expected {rows}, as POST /embed answered them: this server's model "
            "predicts it, so it cannot be derived from mean and variance",
            "uncertainty",
        )
    return body.uncertainty
