"""What the routes work with: engine, gallery, batcher, keys and counters of one server process."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from serve.engine import Engine
from serve.fleet import FleetError
from serve.http.batcher import FAST_MODEL_S, Batcher, seconds_per_image
from serve.http.bodies import BodyReader
from serve.http.failures import NotReadyError, RequestError
from serve.http.keys import Keys
from serve.http.metrics import Metrics
from serve.http.settings import Settings
from vssl.errors import MismatchError, VsslError

if TYPE_CHECKING:
    from index.gallery import Gallery

T = TypeVar("T")
READY_FOR_S = 1.0
log = logging.getLogger("vssl.serve")


@dataclass(frozen=True)
class Served:
    """The model being served: a request takes it once and stays with it, whatever is reloaded."""

    engine: Engine
    batcher: Batcher


class Runtime:
    """A started server's state. Build it with `Runtime.start` inside the event loop."""

    def __init__(
        self, settings: Settings, engine: Engine, gallery: Gallery | None, *, writable: bool
    ) -> None:
        self.settings = settings
        self.metrics = Metrics(shared_folder())
        self.served = Served(engine, Batcher(engine, settings, self.metrics))
        self.bodies = BodyReader(settings)
        self.keys = Keys.read(settings.api_key_file) if settings.api_key_file else None
        self._gallery = gallery
        self._writable = writable
        self._gallery_threads = ThreadPoolExecutor(4, thread_name_prefix="gallery")
        self._seen = engine.graph.stamp()
        self._checked = asyncio.Lock()
        self._ready_until = 0.0

    @classmethod
    def start(cls, settings: Settings) -> Runtime:
        """Load model and gallery; raises the errors of `open_engine` and `open_gallery`."""
        engine = open_engine(settings)
        gallery, writable = None, settings.gallery is not None and settings.workers == 1
        try:
            gallery = open_gallery(settings, engine.model_id, read_only=not writable)
        except VsslError as error:
            if not writable or error.code != "gallery_locked":
                raise
            writable = False
            gallery = open_gallery(settings, engine.model_id, read_only=True)
        return cls(settings, engine, gallery, writable=writable)

    def stop(self) -> None:
        """Answer what is queued and end the threads."""
        self.served.batcher.close()
        self.served.engine.close()
        self.metrics.retire()
        self._gallery_threads.shutdown()
        if self._gallery is not None:
            self._gallery.close()

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

    async def follow_model_file(self) -> None:
        """Take up a replaced model file, or a newer version on a Triton server: verify, then swap.

        Requests under way stay with the model they began with; a model that does not load leaves
        the old one serving.
        """
        found = await asyncio.to_thread(self.served.engine.graph.stamp)
        if found is None or found == self._seen:
            return
        before, self._seen = self._seen, found
        try:
            engine = await asyncio.to_thread(open_engine, self.settings)
        except FleetError:
            self._seen = before  # away for now: it is asked again
            return
        except VsslError as error:
            self.metrics.reload("refused")
            log.warning("the replaced model is not taken up, the old one goes on: %s", error)
            return
        old, self.served = self.served, Served(engine, Batcher(engine, self.settings, self.metrics))
        self._ready_until = 0.0
        self.metrics.reload("done")
        log.warning("now serving model %s (%s)", engine.model_id[:12], engine.card.name)
        if self._gallery is not None and self._gallery.model_id != engine.model_id:
            log.warning("the gallery is of another model: searches answer 409 until the server has its own")
        await asyncio.to_thread(old.batcher.close)
        old.engine.close()

    async def check_ready(self) -> None:
        """Run the golden pair through the model, at most once a second.

        Raises NotReadyError when the model does not answer as it should.
        """
        async with self._checked:
            if time.monotonic() < self._ready_until:
                return
            engine = self.served.engine
            try:
                await asyncio.to_thread(engine.check_golden)
            except VsslError as error:
                if engine.remote:
                    self._seen = None  # whatever is there now may be another model: look anew
                raise NotReadyError(str(error)) from error
            self._ready_until = time.monotonic() + READY_FOR_S


def shared_folder() -> Path | None:
    """Return the folder in which BentoML lets the workers of a server share their counts."""
    name = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(name) if name and Path(name).is_dir() else None


def open_engine(settings: Settings) -> Engine:
    """Load the model and run its golden pair.

    Unless told otherwise, a model that is run in the event loop gets one thread: sharing out
    less than a millisecond costs more than it saves.
    """
    engine = Engine.open(settings.model, device=settings.device, threads=settings.threads)
    if settings.threads is None and engine.threads > 1 and seconds_per_image(engine) < FAST_MODEL_S:
        return Engine.open(settings.model, device=settings.device, threads=1)
    return engine


def open_gallery(settings: Settings, model_id: str, *, read_only: bool) -> Gallery | None:
    """Open the gallery, if one is given; raises MismatchError for a gallery of another model."""
    if settings.gallery is None:
        return None
    from index.gallery import Gallery

    gallery = Gallery.open(settings.gallery, read_only=read_only)
    try:
        gallery.check_model(model_id, f"the answers of {settings.model}")
    except MismatchError:
        gallery.close()
        raise
    return gallery
