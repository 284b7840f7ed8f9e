"""Encoded images of many requests -> batches of clean tensors -> one answer or error per image.

Worker threads take waiting images, decode them (this is where bad ones drop out, alone), and
whichever thread finds the model free runs it on everything that is decoded by then. So a lone
image goes straight through without any timed wait, and under load batches grow by themselves
while the model is busy. The queue is bounded, and an image that waited past its deadline is
answered without being computed.

Everything but `_work` and what it calls runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

import numpy as np

from serve.engine import EmbeddedImage, Engine
from serve.http.failures import BusyError, DeadlineError, internal_error
from serve.http.metrics import Metrics
from serve.http.settings import Settings
from vssl.errors import ImageError, VsslError
from vssl.preprocess import Pixels, load_image

Answer = EmbeddedImage | VsslError


@dataclass(eq=False)
class _Ticket:
    """One request's images on their way: answers fill up in place, then `done` is set."""

    answers: list[Answer | None]
    missing: int
    deadline: float
    done: asyncio.Future[None]
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(eq=False)
class _Item:
    """One image: encoded bytes, then pixels."""

    ticket: _Ticket
    position: int
    data: bytes | Pixels
    pixels: Pixels | None = None
    ready_at: float = 0.0


@dataclass(frozen=True)
class Embedded:
    """One request's answers in the order of its images, with seconds spent by stage."""

    answers: list[Answer]
    timings: dict[str, float]


class Batcher:
    """The bounded queue in front of one engine, its threads and its batches."""

    def __init__(self, engine: Engine, settings: Settings, metrics: Metrics) -> None:
        self.engine = engine
        self._settings = settings
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._waiting: SimpleQueue[_Item | None] = SimpleQueue()
        self._ready: deque[_Item] = deque()
        self._model_free = threading.Lock()
        self._pending = 0
        self._seconds_per_image = 0.0
        self._last_delivery = 0.0
        self._threads = [
            threading.Thread(target=self._work, name=f"embed-{n}", daemon=True) for n in range(engine.threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pending(self) -> int:
        """Images accepted and not yet answered."""
        return self._pending

    async def embed(self, images: Sequence[bytes | Pixels]) -> Embedded:
        """Embed encoded images or pixels (S, S, 3); each gets its own answer or error.

        Raises BusyError when the queue has no room, or would not be worked off in time.
        """
        count = len(images)
        self._admit(count)
        now = time.perf_counter()
        if self._pending == 0:
            self._last_delivery = now
        deadline = now + self._settings.deadline_s
        ticket = _Ticket([None] * count, count, deadline, self._loop.create_future())
        expiry = self._loop.call_later(self._settings.deadline_s, self._expire, ticket)
        self._pending += count
        self._metrics.queue.set(self._pending)
        for position, data in enumerate(images):
            self._waiting.put(_Item(ticket, position, data))
        try:
            await ticket.done
        finally:
            expiry.cancel()
        late = DeadlineError(self._settings.deadline_s)
        return Embedded([late if a is None else a for a in ticket.answers], ticket.timings)

    async def replace(self, engine: Engine) -> None:
        """Run every batch from now on with another engine; images in flight keep their batch's."""
        self.engine = engine

    def close(self) -> None:
        """Let the threads end once the queue is empty."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _admit(self, count: int) -> None:
        wait = self._pending * self._seconds_per_image
        if not self._pending:
            return
        if self._pending + count > self._settings.max_queue:
            raise BusyError(f"{self._pending} images are waiting and there is no room for {count} more", wait)
        if wait > self._settings.deadline_s / 2:
            raise BusyError(f"{self._pending} images are waiting, about {wait:.0f} s of work", wait)

    def _expire(self, ticket: _Ticket) -> None:
        if not ticket.done.done():
            ticket.done.set_result(None)

    def _deliver(self, finished: list[tuple[_Item, Answer]]) -> None:
        now = time.perf_counter()
        sample = (now - self._last_delivery) / len(finished)
        self._last_delivery = now
        self._seconds_per_image += 0.1 * (sample - self._seconds_per_image)
        self._pending -= len(finished)
        self._metrics.queue.set(self._pending)
        for item, answer in finished:
            ticket = item.ticket
            ticket.answers[item.position] = answer
            ticket.missing -= 1
            if not ticket.missing and not ticket.done.done():
                ticket.done.set_result(None)

    def _work(self) -> None:
        while True:
            first = self._waiting.get()
            if first is None:
                return
            chunk = [first]
            share = min(32, self._waiting.qsize() // len(self._threads))
            last = False
            for _ in range(share):
                try:
                    more = self._waiting.get_nowait()
                except Empty:
                    break
                if more is None:
                    last = True
                    break
                chunk.append(more)
            self._decode(chunk)
            self._infer_all()
            if last:
                return

    def _decode(self, chunk: list[_Item]) -> None:
        """Decode items in place; the bad and the late ones are answered here and go no further."""
        finished: list[tuple[_Item, Answer]] = []
        recipe, limits = self.engine.card.preprocess, self._settings.limits
        for item in chunk:
            begun = time.perf_counter()
            if begun > item.ticket.deadline:
                finished.append((item, DeadlineError(self._settings.deadline_s)))
                continue
            try:
                data = item.data
                item.pixels = data if isinstance(data, np.ndarray) else load_image(data, recipe, limits)
            except ImageError as error:
                finished.append((item, error))
            except Exception:
                finished.append((item, internal_error()))
            item.data = b""
            item.ready_at = time.perf_counter()
            _add(item.ticket.timings, "decode", item.ready_at - begun)
            if item.pixels is not None:
                self._ready.append(item)
        self._hand_over(finished)

    def _infer_all(self) -> None:
        """Run the model on all that is ready, unless another thread does.

        That thread looks again after it has let go of the model, so nothing is left lying.
        """
        while self._ready:
            if not self._model_free.acquire(blocking=False):
                return
            try:
                batch: list[_Item] = []
                while self._ready and len(batch) < self.engine.buckets[-1]:
                    batch.append(self._ready.popleft())
                self._infer(batch)
            finally:
                self._model_free.release()

    def _infer(self, batch: list[_Item]) -> None:
        begun = time.perf_counter()
        finished: list[tuple[_Item, Answer]] = []
        on_time = []
        for item in batch:
            if begun > item.ticket.deadline:
                finished.append((item, DeadlineError(self._settings.deadline_s)))
            else:
                on_time.append(item)
        if on_time:
            answers: Sequence[Answer]
            try:
                answers = self.engine.embed_pixels([i.pixels for i in on_time if i.pixels is not None])
            except Exception as error:
                answers = [error if isinstance(error, VsslError) else internal_error()] * len(on_time)
            seconds = time.perf_counter() - begun
            self._metrics.batch_size.observe(len(on_time))
            self._metrics.stage["inference"](seconds)
            for item, answer in zip(on_time, answers, strict=True):
                timings = item.ticket.timings
                timings["inference"] = seconds
                timings["queue"] = begun - item.ready_at
                finished.append((item, answer))
            self._metrics.stage["queue"](begun - on_time[0].ready_at)
        self._hand_over(finished)

    def _hand_over(self, finished: list[tuple[_Item, Answer]]) -> None:
        if finished:
            self._loop.call_soon_threadsafe(self._deliver, finished)


def _add(timings: dict[str, float], stage: str, seconds: float) -> None:
    timings[stage] = timings.get(stage, 0.0) + seconds
