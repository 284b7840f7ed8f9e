"""The pages for people, each one self-contained file: the search page and the API's description."""

from __future__ import annotations

import functools
from importlib import resources

from starlette.responses import Response

from serve.http.io.answers import dumps
from serve.http.io.openapi import specification
from serve.http.middleware.context import RequestContext
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


async def ui(runtime: Runtime, context: RequestContext) -> Response:
    """Answer GET /ui: drop an image, see how sure the model is and what is near."""
    return Response(page("search_page.html"), media_type="text/html", headers=HEADERS)


async def docs(runtime: Runtime, context: RequestContext) -> Response:
    """Answer GET /docs: the OpenAPI document as a page."""
    return Response(page("docs_page.html"), media_type="text/html", headers=HEADERS)


async def openapi_json(runtime: Runtime, context: RequestContext) -> Response:
    """Answer GET /openapi.json."""
    served = runtime.served
    names = [name for s in runtime.lineup for name in (s.name, f"{s.name}@{s.version}", s.engine.model_id)]
    document = specification(
        served.engine.card, served.name, list(dict.fromkeys(names)), runtime.settings.max_items
    )
    return Response(dumps(document), media_type="application/json")
