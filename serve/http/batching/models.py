"""Settings -> the models that are served: opened, found by name, checked, and replaced when their source changes."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from serve.http.batching.batcher import Batcher
from serve.http.batching.decoding import Decoder
from serve.http.errors import NotReadyError, RequestError
from serve.http.metrics import Metrics
from serve.http.settings import Settings
from serve.inference.backends.triton import TritonServerError
from serve.inference.engine import Engine
from serve.inference.model_sources import NamedModel, check_distinct
from vssl.errors import VsslError, shown
from vssl.model.identity import short_id

READY_FOR_S = 1.0
"""How long a golden pair that was answered holds."""

FAST_MODEL_S = 0.0005
"""Seconds an image below which a model runs on one core."""

log = logging.getLogger("vssl.serve")


@dataclass(frozen=True)
class ServedModel:
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
class _Slot:
    """One model's place in the server.

    wanted: what was asked for. served: what serves now. stamp: its source's state when it was loaded, None to
    look again. ready_until: when its golden pair is asked again.
    """

    wanted: NamedModel
    served: ServedModel
    stamp: Hashable | None
    ready_until: float = 0.0


class ServedModels:
    """The models of one server process, the default one first. Make it inside the event loop."""

    def __init__(
        self, settings: Settings, engines: Sequence[Engine], metrics: Metrics, decoder: Decoder
    ) -> None:
        self._settings, self._metrics, self._decoder = settings, metrics, decoder
        self._slots = [
            _Slot(wanted, self._serve(wanted, engine), engine.graph.stamp())
            for wanted, engine in zip(settings.models, engines, strict=True)
        ]
        self._checking = asyncio.Lock()

    def _serve(self, wanted: NamedModel, engine: Engine) -> ServedModel:
        batcher = Batcher(engine, self._settings, self._metrics, self._decoder)
        return ServedModel(engine, batcher, wanted.name or engine.card.name, wanted.version)

    @property
    def all(self) -> list[ServedModel]:
        """Every model, in the order they were named."""
        return [slot.served for slot in self._slots]

    @property
    def default(self) -> ServedModel:
        """The model of requests that name none: the first."""
        return self._slots[0].served

    def find(self, asked: Any, version: str | None = None) -> ServedModel:
        """Return the model that a request names, the newest version where it names none.

        Names, name@version and model ids are known; None is the default model. Raises RequestError 404.
        """
        if asked is None:
            return self.default
        known = [served for served in self.all if served.answers_to(asked)]
        if not known:
            names = ", ".join(repr(name) for name in dict.fromkeys(served.name for served in self.all))
            raise RequestError(
                404, "model_not_found", f"model: found {shown(asked)}, this server has {names}", param="model"
            )
        fitting = [served for served in known if version in (None, str(served.version))]
        if not fitting:
            versions = ", ".join(repr(str(served.version)) for served in known)
            raise RequestError(
                404, "model_not_found", f"version: found {shown(version)}, this server has {versions}"
            )
        return max(fitting, key=lambda served: served.version)

    async def reload(self) -> bool:
        """Take up replaced model files and newer versions on Triton servers; return whether any was taken up."""
        return any([await self._reload(slot) for slot in self._slots])

    async def _reload(self, slot: _Slot) -> bool:
        """Verify the new model while the old one serves, then swap.

        Requests under way stay with the model they began with; a model that does not load leaves
        the old one serving.
        """
        found = await asyncio.to_thread(slot.served.engine.graph.stamp)
        if found is None or found == slot.stamp:
            return False
        before, slot.stamp = slot.stamp, found
        try:
            engine = await asyncio.to_thread(open_engine, self._settings, slot.wanted.source)
        except TritonServerError:
            slot.stamp = before  # unreachable for now: it is asked again
            return False
        except VsslError as error:
            self._metrics.reload("refused")
            log.warning("the replaced model is not taken up, the old one goes on: %s", error)
            return False
        old, slot.served = slot.served, self._serve(slot.wanted, engine)
        slot.ready_until = 0.0
        self._metrics.reload("done")
        log.warning("now serving model %s (%s)", engine.model_id[:12], engine.card.name)
        await asyncio.to_thread(old.batcher.close)
        old.engine.close()
        return True

    async def check_ready(self, only: ServedModel | None = None) -> None:
        """Run the golden pair through every model, or one, at most once a second.

        Raises NotReadyError when a model does not answer as it should.
        """
        async with self._checking:
            for slot in self._slots:
                engine = slot.served.engine
                if only not in (None, slot.served) or time.monotonic() < slot.ready_until:
                    continue
                try:
                    await asyncio.to_thread(engine.check_golden)
                except VsslError as error:
                    if engine.remote:
                        slot.stamp = None  # what is there now may be another model
                    raise NotReadyError(str(error)) from error
                slot.ready_until = time.monotonic() + READY_FOR_S

    def close(self) -> None:
        """Answer what is queued and end the threads."""
        for served in self.all:
            served.batcher.close()
            served.engine.close()


def open_engines(settings: Settings, *, concurrent: bool = True) -> list[Engine]:
    """Load every model; raises InputError when two of them would answer to one name and version.

    concurrent: whether runs at the same time are to share the cores (`open_engine`).
    """
    engines = [open_engine(settings, wanted.source, concurrent=concurrent) for wanted in settings.models]
    check_distinct(
        [(w.name or e.card.name, w.version) for w, e in zip(settings.models, engines, strict=True)]
    )
    return engines


def open_engine(settings: Settings, source: str, *, concurrent: bool = True) -> Engine:
    """Load a model and run its golden pair.

    Unless `threads` says otherwise, a model that takes less than FAST_MODEL_S an image gets one thread: sharing
    out so little work costs more than it saves. Any other one shares its cores among batches
    that run at the same time, if they are to run `concurrent`.
    """
    opened = functools.partial(
        Engine.open, source, device=settings.device, engine=settings.engine, precision=settings.precision
    )
    engine = opened(threads=settings.threads, concurrent=concurrent)
    if settings.threads is None and engine.threads > 1 and _seconds_per_image(engine) < FAST_MODEL_S:
        return opened(threads=1)
    return engine


def _seconds_per_image(engine: Engine) -> float:
    """Return the seconds that the model takes for an image of its golden pair, the best of three."""
    images, best = engine.golden.images, math.inf
    for _ in range(3):
        begun = time.perf_counter()
        engine.run(images)
        best = min(best, time.perf_counter() - begun)
    return best / max(1, len(images))
