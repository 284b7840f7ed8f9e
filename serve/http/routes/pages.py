"""The pages for people, each one self-contained file: the search page and the API's description."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib import resources
from typing import Any

from starlette.responses import Response

from serve.http.io.answers import dumps
from serve.http.io.openapi import document, served_bounds
from serve.http.middleware.context import RequestContext
from serve.http.routes.routing import AnyQuery, Route
from serve.http.state import Runtime

# No page loads anything from elsewhere, and no other site may frame it.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "img-src 'self' blob: data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@functools.cache
def page(name: str) -> bytes:
    """Return the bytes of a page of this package."""
    return resources.files("serve.http.routes").joinpath("static", name).read_bytes()


async def ui(runtime: Runtime, context: RequestContext, query: AnyQuery) -> Response:
    """Answer GET /ui: drop an image, see how sure the model is and what is near."""
    return Response(page("search_page.html"), media_type="text/html", headers=HEADERS)


async def docs(runtime: Runtime, context: RequestContext, query: AnyQuery) -> Response:
    """Answer GET /docs: the OpenAPI document as a page."""
    return Response(page("docs_page.html"), media_type="text/html", headers=HEADERS)


def routes(described: Sequence[Route[Any]]) -> list[Route[AnyQuery]]:
    """Return the routes of the pages, and of the document that describes the others."""

    @functools.lru_cache(maxsize=4)
    def described_for(
        dims: frozenset[int], side: int, names: tuple[str, ...], versions: tuple[int, ...], max_items: int
    ) -> bytes:
        dim = next(iter(dims)) if len(dims) == 1 else None
        return dumps(document(described, served_bounds(dim, side, names, versions, max_items)))

    async def openapi_json(runtime: Runtime, context: RequestContext, query: AnyQuery) -> Response:
        """Answer GET /openapi.json, for the models that are served now."""
        served = runtime.models.all
        names = [n for s in served for n in (s.name, f"{s.name}@{s.version}", s.engine.model_id)]
        body = described_for(
            frozenset(s.engine.card.dim for s in served),
            runtime.models.default.engine.card.preprocess.size,
            tuple(dict.fromkeys(names)),
            tuple(sorted({s.version for s in served})),
            runtime.settings.max_items,
        )
        return Response(body, media_type="application/json")

    pages = {"/openapi.json": openapi_json, "/docs": docs, "/ui": ui, "/": ui}
    return [Route("GET", path, handler, AnyQuery, is_open=True) for path, handler in pages.items()]
