"""What the routes work with: models, gallery, keys and counters of one server process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import os
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from serve.http.batching.batcher import Batcher
from serve.http.errors import NotReadyError, RequestError
from serve.http.io.body import BodyReader
from serve.http.io.fetch import Fetcher
from serve.http.metrics import Metrics
from serve.http.middleware.auth import Keys
from serve.http.routes.abstention import Doubts, check_risk
from serve.http.settings import Settings
from serve.inference.backends.triton import FleetError
from serve.inference.engine import Engine
from serve.inference.model_sources import NamedModel, check_distinct
from vssl.errors import MismatchError, VsslError
from vssl.model.card import ModelCard
from vssl.model.identity import short_id

if TYPE_CHECKING:
    from index.gallery.gallery import Gallery

T = TypeVar("T")
READY_FOR_S = 1.0
FAST_MODEL_S = 0.0005
log = logging.getLogger("vssl.serve")


@dataclass(frozen=True)
class Served:
    """A model being served: a request takes it once and stays with it, whatever is reloaded."""

    engine: Engine
    batcher: Batcher
    name: str
    version: int

    def answers_to(self, asked: Any) -> bool:
        """Whether a request that asks for this name, name@version or model id means this model."""
        full, model_id = f"{self.name}@{self.version}", self.engine.model_id
        return asked in (self.name, full, model_id, short_id(model_id))


@dataclass(eq=False)
class _Place:
    """One model's place in the server: what was asked for, what serves now, what its source was then."""

    wanted: NamedModel
    served: Served
    seen: Hashable | None
    ready_until: float = 0.0


class Runtime:
    """A started server's state. Build it with `Runtime.start` inside the event loop."""

    def __init__(
        self,
        settings: Settings,
        engines: Sequence[Engine],
        gallery: Gallery | None,
        *,
        writable: bool,
        fetcher: Fetcher | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics(settings.metrics_folder or bentoml_folder())
        self.draining = False
        self._places = [
            _Place(wanted, self._serve(wanted, engine), engine.graph.stamp())
            for wanted, engine in zip(settings.models, engines, strict=True)
        ]
        self.bodies = BodyReader(settings, fetcher)
        self.keys = Keys.read(settings.api_key_file) if settings.api_key_file else None
        self.doubts = Doubts(settings.max_risk)
        self._gallery = gallery
        self._writable = writable
        self._gallery_threads = ThreadPoolExecutor(4, thread_name_prefix="gallery")
        self._checked = asyncio.Lock()

    @classmethod
    def start(cls, settings: Settings, fetcher: Fetcher | None = None) -> Runtime:
        """Load models and gallery; raises the errors of `open_engines` and `open_gallery`.

        fetcher: what fetches images from URLs, instead of what the settings say.
        """
        engines = open_engines(settings)
        ids = [engine.model_id for engine in engines]
        gallery, writable = None, settings.gallery is not None and settings.workers == 1
        try:
            gallery = open_gallery(settings, ids, read_only=not writable)
        except VsslError as error:
            if not writable or error.code != "gallery_locked":
                raise
            writable = False
            gallery = open_gallery(settings, ids, read_only=True)
        return cls(settings, engines, gallery, writable=writable, fetcher=fetcher)

    def stop(self) -> None:
        """Answer what is queued and end the threads."""
        for served in self.lineup:
            served.batcher.close()
            served.engine.close()
        self.metrics.retire()
        self._gallery_threads.shutdown()
        if self._gallery is not None:
            self._gallery.close()

    def _serve(self, wanted: NamedModel, engine: Engine) -> Served:
        batcher = Batcher(engine, self.settings, self.metrics)
        return Served(engine, batcher, wanted.name or engine.card.name, wanted.version)

    @property
    def served(self) -> Served:
        """The model of requests that name none: the first."""
        return self._places[0].served

    @property
    def lineup(self) -> list[Served]:
        """Every model, in the order they were named."""
        return [place.served for place in self._places]

    @property
    def searched(self) -> Served:
        """The model that the gallery was built with; the first where none is."""
        if self._gallery is not None:
            for served in self.lineup:
                if served.engine.model_id == self._gallery.model_id:
                    return served
        return self.served

    def find(self, asked: Any, version: str | None = None) -> Served:
        """Return the model that a request names, the newest version where it names none.

        Names, name@version and model ids are known; None is the first model. Raises RequestError 404.
        """
        if asked is None:
            return self.served
        known = [served for served in self.lineup if served.answers_to(asked)]
        if not known:
            names = ", ".join(repr(name) for name in dict.fromkeys(served.name for served in self.lineup))
            raise RequestError(
                404, "model_not_found", f"model: found {asked!r}, this server has {names}", param="model"
            )
        fitting = [served for served in known if version in (None, str(served.version))]
        if not fitting:
            versions = ", ".join(repr(str(served.version)) for served in known)
            raise RequestError(
                404, "model_not_found", f"version: found {version!r}, this server has {versions}"
            )
        return max(fitting, key=lambda served: served.version)

    @property
    def gallery(self) -> Gallery:
        """The gallery; raises RequestError 404 when the server has none."""
        if self._gallery is None:
            raise RequestError(
                404, "no_gallery", "this server has no gallery; start it with: vssl serve --gallery GALLERY"
            )
        return self._gallery

    @property
    def has_gallery(self) -> bool:
        """Whether there is a gallery to search."""
        return self._gallery is not None

    @property
    def distances(self) -> list[str]:
        """The distances that a search may name; none without a gallery."""
        if self._gallery is None:
            return []
        from index.distances import NAMES

        return list(NAMES)

    async def with_gallery(self, work: Callable[[Gallery], T]) -> T:
        """Run `work(gallery)` in a thread of the gallery's and return its result."""
        gallery = self.gallery
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._gallery_threads, functools.partial(work, gallery))

    async def write_gallery(self, work: Callable[[Gallery], T]) -> T:
        """Run `work(gallery)`, which writes; raises RequestError 409 where the gallery is read-only."""
        if not self._writable:
            raise RequestError(
                409,
                "gallery_read_only",
                "this server searches its gallery but does not write to it: another process writes to it, or the "
                "server has several workers; write through the one server that is started with --workers 1",
            )
        return await self.with_gallery(work)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run other blocking work without blocking the loop."""
        return await asyncio.to_thread(work)

    async def follow_models(self) -> None:
        """Take up replaced model files and newer versions on Triton servers."""
        for place in self._places:
            await self._follow(place)

    async def _follow(self, place: _Place) -> None:
        """Verify what is new beside what serves, then swap.

        Requests under way stay with the model they began with; a model that does not load leaves
        the old one serving.
        """
        found = await asyncio.to_thread(place.served.engine.graph.stamp)
        if found is None or found == place.seen:
            return
        before, place.seen = place.seen, found
        try:
            engine = await asyncio.to_thread(open_engine, self.settings, place.wanted.source)
        except FleetError:
            place.seen = before  # away for now: it is asked again
            return
        except VsslError as error:
            self.metrics.reload("refused")
            log.warning("the replaced model is not taken up, the old one goes on: %s", error)
            return
        old, place.served = place.served, self._serve(place.wanted, engine)
        place.ready_until = 0.0
        self.metrics.reload("done")
        log.warning("now serving model %s (%s)", engine.model_id[:12], engine.card.name)
        if self._gallery is not None and self._gallery.model_id != self.searched.engine.model_id:
            log.warning("the gallery is of another model: searches answer 409 until the server has its own")
        await asyncio.to_thread(old.batcher.close)
        old.engine.close()

    async def check_ready(self, only: Served | None = None) -> None:
        """Run the golden pair through every model, or one, at most once a second.

        Raises NotReadyError when a model does not answer as it should, and while the server drains.
        """
        if self.draining:
            raise NotReadyError("the server is ending: send new requests to another one")
        async with self._checked:
            for place in self._places:
                engine = place.served.engine
                if only not in (None, place.served) or time.monotonic() < place.ready_until:
                    continue
                try:
                    await asyncio.to_thread(engine.check_golden)
                except VsslError as error:
                    if engine.remote:
                        place.seen = None  # whatever is there now may be another model: look anew
                    raise NotReadyError(str(error)) from error
                place.ready_until = time.monotonic() + READY_FOR_S


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


def check(settings: Settings) -> Checked:
    """Load models, gallery and keys as a worker will; raises the error that would stop it."""
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


def bentoml_folder() -> Path | None:
    """Return the folder that BentoML gives the workers of a server for their counts."""
    name = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(name) if name and Path(name).is_dir() else None


def open_engines(settings: Settings, *, abreast: bool = True) -> list[Engine]:
    """Load every model; raises InputError when two of them would answer to one name and version.

    abreast: whether runs at the same time are to share the cores (`open_engine`).
    """
    engines = [open_engine(settings, wanted.source, abreast=abreast) for wanted in settings.models]
    check_distinct(
        [(w.name or e.card.name, w.version) for w, e in zip(settings.models, engines, strict=True)]
    )
    return engines


def open_engine(settings: Settings, source: str, *, abreast: bool = True) -> Engine:
    """Load a model and run its golden pair.

    Unless told otherwise, a model that takes less than FAST_MODEL_S an image gets one thread: sharing
    out so little work costs more than it saves. Any other one shares its cores among batches
    that run at the same time, if they are to run `abreast`.
    """
    opened = functools.partial(
        Engine.open, source, device=settings.device, engine=settings.engine, precision=settings.precision
    )
    engine = opened(threads=settings.threads, abreast=abreast)
    if settings.threads is None and engine.threads > 1 and seconds_per_image(engine) < FAST_MODEL_S:
        return opened(threads=1)
    return engine


def seconds_per_image(engine: Engine) -> float:
    """Return the seconds that the model takes for an image of its golden pair, the best of three."""
    images, best = engine.golden.images, math.inf
    for _ in range(3):
        begun = time.perf_counter()
        engine.run(images)
        best = min(best, time.perf_counter() - begun)
    return best / max(1, len(images))


def open_gallery(settings: Settings, model_ids: Sequence[str], *, read_only: bool) -> Gallery | None:
    """Open the gallery, if one is given; raises MismatchError for one that no model here belongs to."""
    if settings.gallery is None:
        return None
    from index.gallery.gallery import Gallery

    gallery = Gallery.open(settings.gallery, read_only=read_only)
    if gallery.model_id in model_ids:
        return gallery
    try:
        gallery.check_model(model_ids[0], f"the answers of {settings.models[0].source}")
    except MismatchError:
        gallery.close()
        raise
    return gallery
