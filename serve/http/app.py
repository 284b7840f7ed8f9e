"""The ASGI application: routes, and around them request ids, keys, error bodies and counting."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve.http.errors import NotReadyError, RequestError, error_response, internal_error, out_of_memory
from serve.http.middleware.access_log import Log, access_log
from serve.http.middleware.auth import presented_key
from serve.http.middleware.context import RequestContext
from serve.http.middleware.head_limit import MAX_HEAD_BYTES, head_size, too_long
from serve.http.routes import embed, health, kserve, openai, pages, search
from serve.http.routes.gallery import changes, curation, export, item, listing, thumbnails
from serve.http.routes.routing import Route, Router, check_host, check_target
from serve.http.settings import Settings
from serve.http.state import Runtime
from serve.inference.memory import hand_back, resident_bytes
from vssl.errors import VsslError, is_lack

DESCRIBED: list[Route[Any]] = [
    *embed.ROUTES,
    *search.ROUTES,
    *item.ROUTES,
    *thumbnails.ROUTES,
    *listing.ROUTES,
    *curation.ROUTES,
    *changes.ROUTES,
    *export.ROUTES,
    *openai.ROUTES,
    *kserve.ROUTES,
    *health.ROUTES,
]
ROUTES: list[Route[Any]] = [*DESCRIBED, *pages.routes(DESCRIBED)]
ROUTER = Router(ROUTES)
ALIVE_PATHS = ("/livez", "/v2/health/live")
OPEN_PATHS = frozenset(route.path for route in ROUTES if route.is_open)
UPKEEP_S = 1.0
GARBAGE = 20_000  # new objects before the garbage collector runs
log = logging.getLogger("vssl.serve")


class Application:
    """The ASGI application of one process; answers 503 until `start`."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None
        self._log: Log | None = None
        self._upkeep: asyncio.Task[None] | None = None

    async def start(self, settings: Settings) -> None:
        """Load model and gallery inside the event loop; see `Runtime.start`."""
        runtime = self._runtime = Runtime.start(settings)
        self._log = access_log(settings.log)
        self._upkeep = asyncio.create_task(self._keep_up(runtime))
        # The access log is ours; uvicorn would format every request for a level that is not shown.
        logging.getLogger("uvicorn.access").propagate = False
        # What is loaded by now stays, and requests leave no large cycles: the collector need not look at either
        # after every few requests.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE)

    def drain(self) -> None:
        """From now on be not ready, and close each connection with its next answer; requests are still answered."""
        if self._runtime is not None:
            self._runtime.draining = True

    async def stop(self) -> None:
        """Answer what is queued and close everything."""
        runtime, self._runtime = self._runtime, None
        if self._upkeep is not None:
            self._upkeep.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._upkeep
        if runtime is not None:
            await asyncio.to_thread(runtime.stop)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; nothing but our own error body leaves here on failure."""
        if scope["type"] != "http":
            return
        begun = time.perf_counter()
        context = RequestContext.of(scope, receive)
        try:
            response = await self._answer(context)
        except VsslError as error:
            secret = self._runtime.settings.places if self._runtime is not None else ()
            response = error_response(error, plain=scope["path"].startswith("/v2"), secret=secret)
            error.with_traceback(None)  # its frames hold the images, and one of them this error
        except ClientDisconnect:
            response = Response(status_code=499)  # the client has left
        except Exception as error:
            log.exception("request %s failed", context.request_id)
            told = out_of_memory() if is_lack(error) else internal_error()
            response = error_response(told, plain=scope["path"].startswith("/v2"))
        seconds = time.perf_counter() - begun
        stages = [f"{stage};dur={1000 * s:.3f}, " for stage, s in context.timings.items()]
        extra = [
            (b"x-request-id", context.request_id.encode()),
            (b"server-timing", f"{''.join(stages)}total;dur={1000 * seconds:.3f}".encode()),
        ]
        if self._runtime is not None and self._runtime.draining and _is_read(context):
            extra.append((b"connection", b"close"))
        status = response.status_code
        try:
            await send(
                {"type": "http.response.start", "status": status, "headers": response.raw_headers + extra}
            )
            await send({"type": "http.response.body", "body": response.body, "more_body": False})
        finally:
            runtime = self._runtime
            if runtime is not None:
                runtime.bodies.release(context)
                spent = time.perf_counter() - begun
                runtime.metrics.request(context.route, status, spent, context.timings)
            if self._log is not None:
                self._log(context, status, time.perf_counter() - begun)

    async def _answer(self, context: RequestContext) -> Response:
        runtime, scope = self._runtime, context.scope
        path = scope["path"]
        if runtime is None:
            if path in ALIVE_PATHS:
                return Response(b'{"status":"alive"}', media_type="application/json")
            raise NotReadyError("the server is starting or stopping")
        if runtime.keys is not None and path not in OPEN_PATHS:
            _check_key(runtime, context)
        if head_size(scope) > MAX_HEAD_BYTES:
            raise too_long()
        check_host(scope)
        check_target(scope)
        route, context.path_params = ROUTER.find(scope["method"], path)
        context.route = route.path
        return await route.respond(runtime, context)

    async def _keep_up(self, runtime: Runtime) -> None:
        """Once a second: share the counts with other workers, hand memory back, look for replaced models."""
        level = resident_bytes()
        while True:
            await asyncio.sleep(UPKEEP_S)
            runtime.metrics.save()
            if not runtime.bodies.held:  # what requests hold is no garbage yet
                level = await asyncio.to_thread(hand_back, level)
            try:
                await runtime.reload_models()
            except Exception:
                log.exception("looking for replaced models failed")


def _is_read(context: RequestContext) -> bool:
    """Whether the client has sent all of its request.

    A socket that is closed with unread bytes resets the connection, and the client may see the reset instead of
    the answer.
    """
    headers = context.headers
    has_body = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
    return context.body_read or not has_body


def _check_key(runtime: Runtime, context: RequestContext) -> None:
    key = presented_key(context.headers)
    if key is None or runtime.keys is None or not runtime.keys.accept(key):
        found = "found no API key" if key is None else "the API key is not one of this server's"
        raise RequestError(
            401, "invalid_api_key", f"{found}; expected Authorization: Bearer KEY or X-API-Key: KEY"
        )
