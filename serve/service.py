"""The BentoML service: `bentoml serve serve.service:Vssl`, named by bentofile.yaml.

BentoML starts and restarts the worker processes, packs Bentos and carries tracing; what is
answered over HTTP is `serve.http`. It is configured by VSSL_* variables (serve.http.settings);
VSSL_MODEL is the only one that must be set. Importing this module loads neither model nor torch.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bentoml
from bentoml._internal.configuration.containers import BentoMLContainer
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.http.app import Application
from serve.http.middleware.auth import Keys
from serve.http.middleware.cors import open_to, parse_origins
from serve.http.routes.abstention import check_risk
from serve.http.settings import Settings
from serve.http.state import open_engines, open_gallery
from serve.supervisor import shut_the_door_on_signals
from vssl.model.card import ModelCard

application = Application()


@dataclass(frozen=True)
class CheckedModel:
    """A model that would serve: what it is called, its card and its id."""

    name: str
    card: ModelCard
    model_id: str


@dataclass(frozen=True)
class Checked:
    """What is known of a server before it listens: its models, its gallery's size.

    answered: the share of its own images that the gallery answers at the risk given, None without one.
    """

    models: tuple[CheckedModel, ...]
    items: int | None
    answered: float | None


@functools.cache
def check(settings: Settings) -> Checked:
    """Load models, gallery and keys as a worker will; raises the error that would stop it."""
    root = str(Path(__file__).resolve().parent.parent)
    if root not in sys.path:  # BentoML takes a Bento's folder off again once this module is imported
        sys.path.append(root)
    engines = open_engines(settings, abreast=False)
    for engine in engines:
        engine.close()  # the workers have connections of their own
    gallery = open_gallery(settings, [engine.model_id for engine in engines], read_only=True)
    with gallery or contextlib.nullcontext():
        items = None if gallery is None else len(gallery)
        rule = check_risk(settings.max_risk, gallery)
    if settings.api_key_file is not None:
        Keys.read(settings.api_key_file)
    models = (
        CheckedModel(wanted.name or engine.card.name, engine.card, engine.model_id)
        for wanted, engine in zip(settings.models, engines, strict=True)
    )
    return Checked(tuple(models), items, None if rule is None else rule.best.coverage)


@functools.cache
def surrounded(settings: Settings) -> ASGIApp:
    """Return the application, with what stands around it: tracing and CORS, where they are asked for."""
    requests: ASGIApp = application
    if BentoMLContainer.tracing.exporter_type.get():
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        requests = OpenTelemetryMiddleware(requests, tracer_provider=BentoMLContainer.tracer_provider.get())
    if settings.cors_origins is not None:
        requests = open_to(parse_origins(settings.cors_origins), requests)
    return requests


class MannerlyService(bentoml.Service[Any]):  # type: ignore[misc]
    """A BentoML service whose HTTP requests all go to one ASGI application of our own.

    BentoML's own stack in front of a mounted application answers /livez and unknown routes in
    other forms and costs more than a small image does; it keeps the life cycle, and tracing
    when an exporter is configured.
    """

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the application that BentoML's worker runs."""
        lifecycle = super().to_asgi(is_main)
        requests = surrounded(Settings.from_environment(os.environ))

        async def face(scope: Scope, receive: Receive, send: Send) -> None:
            await (lifecycle if scope["type"] == "lifespan" else requests)(scope, receive, send)

        return face


@bentoml.service(
    name="vssl",
    service_class=MannerlyService,
    workers=int(os.environ.get("VSSL_WORKERS") or 1),
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Vssl:
    """Images to Gaussian embeddings, and search that knows how sure it is."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def verify() -> None:
        """Refuse to start with a model or gallery that would not serve, before any worker does."""
        check(Settings.from_environment(os.environ))
        shut_the_door_on_signals()

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def open(self) -> None:
        """Load model and gallery in a worker."""
        settings = Settings.from_environment(os.environ)
        await application.start(settings, wrapped=surrounded(settings) is not application)

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def close(self) -> None:
        """Let go of them once every accepted request is answered."""
        await application.stop()
