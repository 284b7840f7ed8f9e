"""What the routes work with: models, gallery, keys and counters of one server process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from serve.http.batching.decoding import Decoder
from serve.http.batching.models import ServedModel, ServedModels, open_engines
from serve.http.errors import NotReadyError, RequestError
from serve.http.io.body import BodyReader
from serve.http.io.validation import with_param
from serve.http.metrics import Metrics
from serve.http.middleware.auth import Keys
from serve.http.settings import Settings
from serve.inference.engine import Engine
from vssl.errors import InputError, MismatchError, VsslError, shown_path
from vssl.model.card import ModelCard

if TYPE_CHECKING:
    from index.calibration.abstention import AbstentionRule
    from index.gallery.protocol import Gallery

T = TypeVar("T")
THUMBNAILS = 5000  # that are kept in memory
log = logging.getLogger("vssl.serve")


class Runtime:
    """A started server's state. Build it with `Runtime.start` inside the event loop.

    curated: what curation found. removed: what was removed and can be put back. mapped: columns with the map's.
    thumbnails: the latest ones, of some 6 kB each.
    draining: whether the server is about to end: it is not ready, and still answers.
    """

    def __init__(
        self,
        settings: Settings,
        engines: Sequence[Engine],
        gallery: Gallery | None,
        *,
        writable: bool,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics(settings.metrics_folder or bentoml_folder())
        self.decoder = Decoder(settings.limits)
        self.models = ServedModels(settings, engines, self.metrics, self.decoder)
        self.bodies = BodyReader(settings)
        self.keys = Keys.read(settings.api_key_file) if settings.api_key_file else None
        self.draining = False
        self._gallery = gallery
        self._writable = writable
        self._gallery_threads = ThreadPoolExecutor(4, thread_name_prefix="gallery")
        self._writing = asyncio.Lock()  # what one write reads, no other changes before it has written
        self.curated = Recent()
        self.removed = Recent()
        self.mapped = Recent(2)
        self.thumbnails = Recent(THUMBNAILS)

    @classmethod
    def start(cls, settings: Settings) -> Runtime:
        """Load models and gallery; raises the errors of `open_engines` and `open_gallery`."""
        engines = open_engines(settings)
        gallery, writable = None, settings.gallery is not None and settings.workers == 1
        try:
            gallery = open_gallery(settings, engines, read_only=not writable)
        except VsslError as error:
            if not writable or error.code != "gallery_locked":
                raise
            writable = False
            gallery = open_gallery(settings, engines, read_only=True)
        return cls(settings, engines, gallery, writable=writable)

    def stop(self) -> None:
        """Answer what is queued and end the threads."""
        self.models.close()
        self.decoder.close()
        self.metrics.retire()
        self._gallery_threads.shutdown()
        self.bodies.close()
        if self._gallery is not None:
            self._gallery.close()

    @property
    def gallery_model(self) -> ServedModel:
        """The model that the gallery was built with; the first where none is."""
        if self._gallery is not None:
            for served in self.models.all:
                if served.engine.model_id == self._gallery.model_id:
                    return served
        return self.models.default

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
    def writable(self) -> bool:
        """Whether the gallery can be changed through this server."""
        return self._gallery is not None and self._writable

    @property
    def distances(self) -> list[str]:
        """The distances that a search may name; none without a gallery."""
        if self._gallery is None:
            return []
        from index.distances import NAMES

        return list(NAMES)

    async def with_gallery(self, work: Callable[[Gallery], T]) -> T:
        """Run `work(gallery)` in a thread of the gallery's and return its result.

        An InputError of it becomes the RequestError of its parameter.
        """
        gallery, loop = self.gallery, asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._gallery_threads, work, gallery)
        except InputError as error:
            raise with_param(error) from None

    async def write_gallery(self, work: Callable[[Gallery], T]) -> T:
        """Run `work(gallery)`, which writes, after the writes before it.

        Raises RequestError 409 where the gallery is read-only.
        """
        if not self._writable:
            raise RequestError(
                409,
                "gallery_read_only",
                "this server searches its gallery but does not write to it: another process writes to it, this one "
                "may not, or the server has several workers; write through one server that may, with --workers 1",
            )
        async with self._writing:
            return await self.with_gallery(work)

    async def reload_models(self) -> None:
        """Take up replaced model files and newer versions on Triton servers."""
        if (
            await self.models.reload()
            and self._gallery is not None
            and not self._gallery.card.from_elsewhere
            and self._gallery.model_id != self.gallery_model.engine.model_id
        ):
            log.warning("the gallery is of another model: searches answer 409 until the server has its own")

    async def check_ready(self, only: ServedModel | None = None) -> None:
        """Raise NotReadyError while the server drains, or a model does not answer its golden pair."""
        if self.draining:
            raise NotReadyError("the server is ending: send new requests to another one")
        await self.models.check_ready(only)


class Recent:
    """The latest values by name; of more than `most` the oldest is forgotten. May be used from several threads.

    lock: for whoever makes a value that takes long, so that it is made once.
    """

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self._values: dict[object, Any] = {}
        self._changing = threading.Lock()
        self.lock = threading.Lock()

    def get(self, name: object) -> Any:
        """Return a value, None for one that is not or no longer there."""
        return self._values.get(name)

    def made(self, name: object, make: Callable[[], T]) -> T:
        """Return a value, which is made and kept where it is not there."""
        known: T | None = self.get(name)
        if known is None:
            known = make()
            self.keep(name, known)
        return known

    def keep(self, name: object, value: object) -> None:
        """Keep a value."""
        with self._changing:
            self._values.pop(name, None)
            self._values[name] = value
            while len(self._values) > self._most:
                self._values.pop(next(iter(self._values)))

    def forget(self, name: object) -> None:
        """Forget a value, if it is there."""
        self._values.pop(name, None)


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
    engines = open_engines(settings, concurrent=False)
    for engine in engines:
        engine.close()  # the workers have connections of their own
    gallery = open_gallery(settings, engines, read_only=True)
    with gallery or contextlib.nullcontext():
        items = None if gallery is None else len(gallery)
        rule = check_risk(settings.max_risk, gallery)
    if settings.api_key_file is not None:
        Keys.read(settings.api_key_file)
    for folder in settings.picture_folders:
        if not folder.is_dir():
            raise InputError(f"--images: found no folder {shown_path(str(folder))}; expected one with images")
    models = (
        CheckedModel(wanted.name or engine.card.name, engine.card, engine.model_id)
        for wanted, engine in zip(settings.models, engines, strict=True)
    )
    return Checked(tuple(models), items, None if rule is None else rule.best.coverage)


def check_risk(max_risk: float | None, gallery: Gallery | None) -> AbstentionRule | None:
    """Return the rule of the gallery's own distance. Raises InputError where there is nothing to calibrate on."""
    if max_risk is None:
        return None
    if gallery is None:
        raise InputError("--max-risk is about a gallery's answers; name one: vssl serve --gallery GALLERY")
    return gallery.abstention(max_risk)


def bentoml_folder() -> Path | None:
    """Return the folder that BentoML gives the workers of a server for their counts."""
    name = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(name) if name and Path(name).is_dir() else None


def open_gallery(settings: Settings, engines: Sequence[Engine], *, read_only: bool) -> Gallery | None:
    """Open the gallery, if one is given; raises MismatchError for one that no model here belongs to."""
    if settings.gallery is None:
        return None
    from index.gallery import open as galleries

    gallery = galleries.open_gallery(settings.gallery, read_only=read_only)
    if any(engine.model_id == gallery.model_id for engine in engines):
        return gallery
    source, (first, *_) = settings.models[0].source, engines
    try:
        gallery.check_model(first.model_id, f"the answers of {source}")
        if first.card.dim != gallery.card.dim:
            raise MismatchError(
                f"{source} answers {first.card.dim} numbers an image, the gallery {gallery.place} holds "
                f"{gallery.card.name}; serve the model that made them: --model model.onnx"
            )
    except MismatchError:
        gallery.close()
        raise
    log.warning("%s: %s; nothing tells whether %s made them", gallery.place, gallery.card.name, source)
    return gallery
