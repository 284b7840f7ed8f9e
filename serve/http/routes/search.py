"""POST /search: images or Gaussians -> neighbours with distance, variance score, match probability."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from starlette.responses import Response

from serve.http.batching.pending import Answer
from serve.http.batching.served import Served
from serve.http.errors import RequestError, invalid, item_error
from serve.http.io.answers import json_response
from serve.http.io.body import media_type
from serve.http.middleware.context import RequestContext
from serve.http.routes.embed import chosen, embed_images, note_stage, options_of, raise_lone, read_images
from serve.http.state import Runtime
from serve.inference.engine import EmbeddedImage
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import InputError

if TYPE_CHECKING:
    from index.answers.results import SearchResult

MAX_K = 1000


@dataclass(frozen=True)
class SearchOptions:
    """How to search: k neighbours by a distance (the gallery's own when None), within bounds."""

    k: int
    distance: str | None
    max_uncertainty: float | None
    where: Any


async def search(runtime: Runtime, context: RequestContext) -> Response:
    """Answer POST /search."""
    _ = runtime.gallery  # a server without one says so before it reads anything
    if media_type(context) == "application/json":
        begun = time.perf_counter()
        body = await runtime.bodies.json(context)
        note_stage(runtime, context, "read", time.perf_counter() - begun)
        if isinstance(body, dict) and "images" not in body:
            served = chosen(runtime, context, body) or runtime.searched
            answers, names, options = gaussians_of_json(runtime, served, body)
        else:
            images = await runtime.bodies.images_of(context, body)
            options, names = images.options, images.names
            parse_options(options_of(context, options, parse_options))
            served = chosen(runtime, context, options) or runtime.searched
            answers = await embed_images(runtime, served, context, images)
            raise_lone(images, answers)
    else:
        images = await read_images(runtime, context)
        options, names = images.options, images.names
        parse_options(options_of(context, options, parse_options))
        served = chosen(runtime, context, options) or runtime.searched
        answers = await embed_images(runtime, served, context, images)
        raise_lone(images, answers)
    wanted = parse_options(options_of(context, options, parse_options))
    results = await search_answers(runtime, served, context, answers, wanted)
    rendered = []
    for name, result in zip(names, results, strict=True):
        item: dict[str, Any] = {} if name is None else {"query": name}
        rendered.append(item | result)
    return json_response({"model_id": served.engine.model_id, "k": wanted.k, "results": rendered})


async def search_answers(
    runtime: Runtime, served: Served, context: RequestContext, answers: list[Answer], wanted: SearchOptions
) -> list[dict[str, Any]]:
    """Search with what was embedded; a failed image keeps its error in its place."""
    good = [a for a in answers if isinstance(a, EmbeddedImage)]
    found: list[SearchResult] = []
    if good:
        queries = GaussianEmbedding(np.stack([a.mean for a in good]), np.stack([a.variance for a in good]))
        begun = time.perf_counter()
        options: dict[str, Any] = {
            "distance": wanted.distance,
            "max_uncertainty": wanted.max_uncertainty,
            "where": wanted.where,
            "model_id": served.engine.model_id,
            "max_risk": runtime.settings.max_risk,
        }
        found = await runtime.with_gallery(lambda gallery: gallery.search(queries, wanted.k, **options))
        note_stage(runtime, context, "search", time.perf_counter() - begun)
    results = iter(found)
    return [
        describe_result(next(results)) if isinstance(a, EmbeddedImage) else item_error(a) for a in answers
    ]


def describe_result(result: SearchResult) -> dict[str, Any]:
    """Return one query's result as plain values, as `vssl search --json` prints it."""
    return {
        "uncertainty": result.uncertainty,
        "uncertainty_percentile": result.uncertainty_percentile,
        **({} if result.abstain is None else {"abstain": result.abstain}),
        "neighbours": [
            {
                "id": n.id,
                "label": n.label,
                "distance": n.distance,
                "variance_score": n.variance_score,
                "match_probability": n.match_probability,
                "uncertainty": n.uncertainty,
            }
            for n in result.neighbours
        ],
    }


def gaussians_of_json(
    runtime: Runtime, served: Served, body: dict[str, Any]
) -> tuple[list[Answer], list[str | None], dict[str, Any]]:
    """Take {"mean": ..., "variance": ...} (one row or several) out of a body."""
    if "mean" not in body or "variance" not in body:
        raise invalid('expected {"images": [...]}, or {"mean": [...], "variance": [...]}', "images")
    try:
        rows = GaussianEmbedding.from_lists(body["mean"], body["variance"])
    except InputError as error:
        raise invalid(str(error), "mean") from None
    if not len(rows) or rows.dim != served.engine.card.dim:
        raise invalid(
            f"mean: found {len(rows)} rows of {rows.dim} numbers, expected rows of {served.engine.card.dim}",
            "mean",
        )
    if len(rows) > runtime.settings.max_items:
        raise invalid(f"mean: found {len(rows)} rows, expected at most {runtime.settings.max_items}", "mean")
    asked = body.get("model_id")
    if asked is not None and asked != served.engine.model_id:
        raise RequestError(
            409,
            "model_mismatch",
            f"model_id: found {asked!r}, this server's model is {served.engine.model_id}; "
            "embed the query with this server's model: POST /embed",
            param="model_id",
        )
    spread = rows.uncertainty
    none = np.empty(0, np.float32)
    answers: list[Answer] = [
        EmbeddedImage(rows.mean[i], rows.variance[i], float(spread[i]), none) for i in range(len(rows))
    ]
    options = {key: value for key, value in body.items() if key not in ("mean", "variance", "model_id")}
    return answers, [None] * len(rows), options


def parse_options(options: dict[str, Any]) -> SearchOptions:
    """Check k, distance, max_uncertainty and filter; raises RequestError 400 for a wrong one."""
    distance = options.get("distance")
    if distance is not None and not isinstance(distance, str):
        raise invalid(f"distance: found {distance!r}, expected a name", "distance")
    bound = _number(options, "max_uncertainty")
    where = options.get("filter")
    if isinstance(where, str):
        try:
            where = orjson.loads(where)
        except orjson.JSONDecodeError as error:
            raise invalid(f"filter: expected JSON, {error}", "filter") from None
    return SearchOptions(_k(options), distance or None, bound, where)


def _k(options: dict[str, Any]) -> int:
    found = options.get("k", 10)
    try:
        k = int(found) if isinstance(found, str) else found
    except ValueError:
        k = None
    if type(k) is not int or not 1 <= k <= MAX_K:
        raise invalid(f"k: found {found!r}, expected a whole number from 1 to {MAX_K}", "k")
    return k


def _number(options: dict[str, Any], name: str) -> float | None:
    found = options.get(name)
    if found is None:
        return None
    try:
        number = float(found)
        if isinstance(found, bool) or math.isnan(number):
            raise ValueError(name)
        return number
    except (TypeError, ValueError):
        raise invalid(f"{name}: found {found!r}, expected a number", name) from None
