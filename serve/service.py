"""What BentoML runs: `bentoml serve serve.service:Vssl`, named by bentofile.yaml.

BentoML starts and restarts the worker processes, packs Bentos and carries tracing; what is
answered over HTTP is `serve.http`. It is configured by VSSL_* variables (serve.http.settings);
VSSL_MODEL is the only one that must be set. Importing this module loads neither model nor torch.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from pathlib import Path
from typing import Any

import bentoml
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.http.app import Application
from serve.http.middleware.cors import parse_origins, with_cors
from serve.http.middleware.head_limit import bound_heads
from serve.http.settings import Settings
from serve.http.state import check
from serve.supervisor import follow_supervisor, is_supervised

application = Application()


class RequestsTo:
    """ASGI middleware: HTTP requests go to one application, life-cycle events to the application inside."""

    def __init__(self, app: ASGIApp, requests: ASGIApp) -> None:
        self._app, self._requests = app, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one ASGI connection on."""
        await (self._requests if scope["type"] == "http" else self._app)(scope, receive, send)


class AsgiService(bentoml.Service[Any]):  # type: ignore[misc]
    """A BentoML service whose HTTP requests all go to one ASGI application of our own.

    BentoML's own stack in front of a mounted application answers /livez and unknown routes in
    other forms and costs more than a small image does. It keeps the life cycle; requests pass
    through it only where they are traced.
    """

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the application that BentoML's worker runs."""
        settings = Settings.from_environment(os.environ)
        bound_heads()
        requests: ASGIApp = application
        if settings.cors_origins is not None:
            requests = with_cors(parse_origins(settings.cors_origins), requests)
        if settings.tracing:
            self.add_asgi_middleware(RequestsTo, requests=requests)
            bento: ASGIApp = super().to_asgi(is_main)
            return bento
        return RequestsTo(super().to_asgi(is_main), requests)


@bentoml.service(
    name="vssl",
    service_class=AsgiService,
    workers=int(os.environ.get("VSSL_WORKERS") or 1),
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Vssl:
    """Images to Gaussian embeddings, and search that knows how sure it is."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def verify() -> None:
        """Before any worker starts: refuse a model or gallery that would not serve; follow the supervisor."""
        root = str(Path(__file__).resolve().parent.parent)
        if root not in sys.path:  # BentoML removes a Bento's folder once this module is imported
            sys.path.append(root)
        if is_supervised():  # `vssl serve` has checked
            follow_supervisor()
        else:
            check(Settings.from_environment(os.environ))

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def open(self) -> None:
        """Load model and gallery in a worker."""
        await application.start(Settings.from_environment(os.environ))
        loop = asyncio.get_running_loop()
        follow_supervisor(functools.partial(loop.call_soon_threadsafe, application.drain))

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def close(self) -> None:
        """Let go of them once every accepted request is answered."""
        await application.stop()
