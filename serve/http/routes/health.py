"""/livez, /readyz, /model, /metrics: what a supervisor, an operator and Prometheus ask."""

from __future__ import annotations

from typing import Any, NotRequired

from starlette.responses import Response
from typing_extensions import TypedDict

from serve.http.io.answers import json_response
from serve.http.io.schemas import ModelOptions
from serve.http.middleware.context import RequestContext
from serve.http.routes.routing import AnyQuery, Route
from serve.http.state import Runtime
from vssl.images.decode import formats


class Health(TypedDict):
    """The process answers; every model answers its golden pair."""

    status: str
    model_id: NotRequired[str]


async def livez(runtime: Runtime, context: RequestContext, query: AnyQuery) -> Response:
    """Alive: the event loop turns; nothing else is asked."""
    return json_response({"status": "alive"})


async def readyz(runtime: Runtime, context: RequestContext, query: AnyQuery) -> Response:
    """Ready: every model answers its golden pair; 503 when one does not."""
    await runtime.check_ready()
    return json_response({"status": "ready", "model_id": runtime.models.default.engine.model_id})


async def model(runtime: Runtime, context: RequestContext, query: ModelOptions) -> Response:
    """The model: its card and id, where it runs, what else is served, formats and limits."""
    settings = runtime.settings
    served = runtime.models.find(query.model)
    engine = served.engine
    body = {
        "name": served.name,
        "version": served.version,
        "model_id": engine.model_id,
        "card": engine.card.to_dict(),
        "engine": engine.graph.engine,
        "precision": engine.precision,
        "providers": engine.providers,
        "threads": engine.threads,
        "models": [
            {"name": s.name, "version": s.version, "model_id": s.engine.model_id} for s in runtime.models.all
        ],
        "formats": formats(),
        "gallery": runtime.has_gallery,
        "distances": runtime.distances,
        "show_images": settings.show_images,
        "limits": {
            "max_body_bytes": settings.max_body_bytes,
            "max_items": settings.max_items,
            "max_pixels": settings.max_pixels,
            "deadline_seconds": settings.deadline_s,
        },
    }
    return json_response(body)


async def metrics(runtime: Runtime, context: RequestContext, query: AnyQuery) -> Response:
    """Prometheus metrics: requests, stages in seconds, batch sizes, queue, uncertainty."""
    return Response(runtime.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


ROUTES: list[Route[Any]] = [
    Route("GET", "/model", model, ModelOptions, "curl $URL/model", answer=dict[str, Any]),
    Route("GET", "/livez", livez, AnyQuery, "curl $URL/livez", answer=Health, is_open=True),
    Route(
        "GET", "/readyz", readyz, AnyQuery, "curl $URL/readyz", answer=Health, statuses=(503,), is_open=True
    ),
    Route("GET", "/metrics", metrics, AnyQuery, "curl $URL/metrics", media=("text/plain",)),
]
