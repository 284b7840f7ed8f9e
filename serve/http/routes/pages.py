"""The pages for people: one HTML file each, and the scripts and styles that they load from this server."""

from __future__ import annotations

import functools
import hashlib
import mimetypes
from collections.abc import Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from starlette.responses import Response

from serve.http.io.answers import dumps
from serve.http.io.openapi import document, served_bounds
from serve.http.middleware.context import RequestContext
from serve.http.routes.routing import AnyQuery, Handler, Route
from serve.http.state import Runtime

# Nothing is loaded from elsewhere, no script or style stands in a page, and no other site may frame one.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
PAGES = {"/": "index.html", "/ui": "index.html", "/docs": "docs.html"}
TYPES = {".js": "text/javascript", ".css": "text/css"}


def files() -> dict[str, bytes]:
    """Return every file of `serve/page` by its path below it, with `/`."""

    def below(folder: Traversable, prefix: str) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for entry in folder.iterdir():
            if entry.is_dir():
                found |= below(entry, f"{prefix}{entry.name}/")
            else:
                found[prefix + entry.name] = entry.read_bytes()
        return found

    return below(resources.files("serve").joinpath("page"), "")


def page_file(name: str, body: bytes) -> Handler[AnyQuery]:
    """Return the handler that answers a file; a browser asks each time whether it has changed."""
    suffix = "." + name.rpartition(".")[2]
    kind = TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": etag, "Cache-Control": "no-cache"}

    async def answer(runtime: Runtime, context: RequestContext, query: AnyQuery) -> Response:
        """Answer a page, or what a page loads."""
        if etag.encode() in context.headers.get(b"if-none-match", b""):  # one of several, or W/ before it
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=kind, headers=headers)

    return answer


def routes(described: Sequence[Route[Any]]) -> list[Route[AnyQuery]]:
    """Return the routes of the pages, and of the document that describes the others.

    Each file has a route of its own, so that no path leads to any other file.
    """

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

    found = files()
    handlers = {
        f"/ui/{name}": page_file(name, body) for name, body in found.items() if name not in PAGES.values()
    }
    handlers |= {path: page_file(name, found[name]) for path, name in PAGES.items()}
    handlers["/openapi.json"] = openapi_json
    return [Route("GET", path, handler, AnyQuery, is_open=True) for path, handler in handlers.items()]
