"""The ASGI application: routes, and around them request ids, keys, error bodies and counting."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from serve.http import collection, embedding, health, kserve_dialect, openai_dialect, pages, searching
from serve.http.failures import NotReadyError, RequestError, error_response, internal_error, status_of
from serve.http.keys import presented_key
from serve.http.runtime import Runtime
from serve.http.settings import Settings
from vssl.errors import VsslError

Handler = Callable[[Runtime, Request], Awaitable[Response]]
OPEN_PATHS = frozenset(
    {"/", "/ui", "/docs", "/openapi.json", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready"}
)
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")
log = logging.getLogger("vssl.serve")


class Application:
    """The whole HTTP face of one process; empty-handed (503) until `start`."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None
        self._router = Router(self._routes())

    async def start(self, settings: Settings) -> None:
        """Load model and gallery inside the event loop."""
        self._runtime = Runtime.start(settings)

    async def stop(self) -> None:
        """Answer what is queued and let go of everything."""
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            await asyncio.to_thread(runtime.stop)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; nothing but our own error body leaves here on failure."""
        if scope["type"] != "http":
            return
        begun = time.perf_counter()
        answer = _Answer(send, scope, begun)
        scope["app"] = self  # makes the router raise for an absent route instead of answering in text
        scope["vssl.timings"] = {}
        try:
            self._guard(scope)
            await self._router(scope, receive, answer)
        except (VsslError, HTTPException) as error:
            await answer.fail(error, receive)
        except ClientDisconnect:
            answer.status = 499
        except Exception:
            log.exception("request %s failed", scope["vssl.request_id"])
            await answer.fail(internal_error(), receive)
        finally:
            runtime = self._runtime
            if runtime is not None:
                runtime.bodies.release(scope)
                runtime.metrics.request(
                    scope.get("vssl.route", "none"), answer.status, time.perf_counter() - begun
                )

    def _guard(self, scope: Scope) -> None:
        runtime = self._runtime
        if runtime is not None and runtime.keys is not None and scope["path"] not in OPEN_PATHS:
            key = presented_key(scope["headers"])
            if key is None or not runtime.keys.accept(key):
                raise RequestError(
                    401,
                    "invalid_api_key",
                    "found no API key"
                    if key is None
                    else "the API key is not one of this server's"
                    ", expected Authorization: Bearer KEY or X-API-Key: KEY",
                )

    def _bind(self, path: str, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            request.scope["vssl.route"] = path
            if self._runtime is None:
                if path in ("/livez", "/v2/health/live"):
                    return Response(b'{"status":"alive"}', media_type="application/json")
                raise NotReadyError("the server is starting or stopping")
            return await handler(self._runtime, request)

        return functools.wraps(handler)(endpoint)

    def _routes(self) -> list[Route]:
        table: list[tuple[str, str, Handler]] = [
            ("POST", "/embed", embedding.embed),
            ("POST", "/search", searching.search),
            ("GET", "/gallery", collection.describe_gallery),
            ("GET", "/gallery/{id:path}", collection.read_item),
            ("PUT", "/gallery/{id:path}", collection.put_item),
            ("DELETE", "/gallery/{id:path}", collection.delete_item),
            ("GET", "/thumbnails/{id:path}", collection.thumbnail),
            ("POST", "/v1/embeddings", openai_dialect.embeddings),
            ("GET", "/v1/models", openai_dialect.models),
            ("GET", "/v1/models/{model}", openai_dialect.one_model),
            ("GET", "/v2", kserve_dialect.server_metadata),
            ("GET", "/v2/health/live", kserve_dialect.live),
            ("GET", "/v2/health/ready", kserve_dialect.ready),
            ("GET", "/v2/models/{model}", kserve_dialect.model_metadata),
            ("GET", "/v2/models/{model}/ready", kserve_dialect.model_ready),
            ("POST", "/v2/models/{model}/infer", kserve_dialect.infer),
            ("GET", "/v2/models/{model}/versions/{version}", kserve_dialect.model_metadata),
            ("GET", "/v2/models/{model}/versions/{version}/ready", kserve_dialect.model_ready),
            ("POST", "/v2/models/{model}/versions/{version}/infer", kserve_dialect.infer),
            ("GET", "/model", health.model),
            ("GET", "/livez", health.livez),
            ("GET", "/readyz", health.readyz),
            ("GET", "/metrics", health.metrics),
            ("GET", "/openapi.json", pages.openapi_json),
            ("GET", "/docs", pages.docs),
            ("GET", "/ui", pages.ui),
            ("GET", "/", pages.ui),
        ]
        return [Route(path, self._bind(path, handler), methods=[method]) for method, path, handler in table]


class _Answer:
    """Passes messages on, remembering the status, and adds the request's id and timings."""

    def __init__(self, send: Send, scope: Scope, begun: float) -> None:
        self._send = send
        self._scope = scope
        self._begun = begun
        self._started = False
        self.status = 0
        scope["vssl.request_id"] = _request_id(scope)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            self.status = message["status"]
            message["headers"] = [
                *message["headers"],
                (b"x-request-id", self._scope["vssl.request_id"].encode()),
                (b"server-timing", self._server_timing()),
            ]
        await self._send(message)

    async def fail(self, error: VsslError | HTTPException, receive: Receive) -> None:
        """Send the error body, unless an answer is already on its way."""
        self.status = status_of(error)
        if not self._started:
            plain = self._scope["path"].startswith("/v2")
            await error_response(error, plain=plain)(self._scope, receive, self)

    def _server_timing(self) -> bytes:
        stages = {**self._scope["vssl.timings"], "total": time.perf_counter() - self._begun}
        return ", ".join([f"{name};dur={1000 * s:.3f}" for name, s in stages.items()]).encode()


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return uuid.uuid4().hex
