"""Encoded images of many requests -> batches of clean tensors -> one answer or error per image.

Two ways lead to the model. In general, worker threads take waiting images, decode them (this is
where bad ones drop out, alone), and whichever thread finds the model free runs it on everything
that is decoded by then: a lone image goes straight through without any timed wait, and under
load batches grow by themselves while the model is busy. But handing a thumbnail to a thread
costs more than decoding it, so where the model is fast too, small images that arrived together
are decoded and embedded in the event loop itself, a batch (a few milliseconds) at a time. There a batch
that is not full runs as soon as a turn of the loop brings no further image: who answers many clients at
once finds their next requests while it decodes the first of them, and a lone image waits for nobody. In a
flood of requests, batches get half of the loop's time.

The queue is bounded, and an image that waited past its deadline is answered without being
computed. Everything but `_work` and what it calls runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

import numpy as np

from serve.http.batching.admission import Room
from serve.http.batching.pending import Answer, Embedded, Item, Run, Ticket
from serve.http.errors import DeadlineError, internal_error
from serve.http.metrics import Metrics
from serve.http.settings import Settings
from serve.inference.cores import available_cores
from serve.inference.engine import Engine
from vssl.errors import ImageError, VsslError
from vssl.images.decode import DecodeLimits
from vssl.images.preprocess import Pixels, load_image

SMALL = DecodeLimits(max_bytes=32 * 1024, max_pixels=128 * 128)
"""What may be decoded in the event loop: well under a millisecond each."""

FAST_MODEL_S = 0.0005
"""Seconds an image below which a model is run in the event loop."""

SWEEP_S = 0.25

TURN_S = 0.25
"""No turn of the event loop's on small images begins another batch after so long."""


class Batcher:
    """The bounded queue in front of one engine, its threads and its batches."""

    def __init__(self, engine: Engine, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._waiting: SimpleQueue[Item | None] = SimpleQueue()
        self._ready: deque[Item] = deque()
        self._small: deque[Item] = deque()
        self._turn_planned = False
        self._gathering = False  # whether what is decoded waits for what the next turn brings
        self._last_run = 0  # images in the loop's last run of the model
        self._left_off = math.inf  # when the last turn ended that left something
        self._tickets: deque[Ticket] = deque()  # by deadline, since all wait equally long
        self._sweeping: asyncio.TimerHandle | None = None
        self._model_free = threading.Semaphore(engine.graph.lanes)
        self.engine = engine
        self._fast = not engine.remote and seconds_per_image(engine) < FAST_MODEL_S
        self.room = Room(settings, rests=not (self._fast or engine.on_gpu or engine.remote))
        # Threads that wait for a Triton server leave the cores to others, which decode meanwhile.
        count = (settings.threads or available_cores()) + (engine.graph.lanes if engine.remote else 0)
        self._threads = [
            threading.Thread(target=self._work, name=f"embed-{n}", daemon=True) for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    async def embed(self, images: Sequence[bytes | Pixels]) -> Embedded:
        """Embed encoded images or pixels (S, S, 3); each gets its own answer or error.

        Raises BusyError when the queue has no room, or would not be worked off in time.
        """
        count = len(images)
        refusal = self.room.refusal(count)
        if refusal is not None:
            raise refusal
        self.room.take(count)
        now = time.perf_counter()
        seconds = self._settings.deadline_s
        ticket = Ticket([None] * count, count, now + seconds, self._loop.create_future())
        self._metrics.queue += count
        self._tickets.append(ticket)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)
        for position, data in enumerate(images):
            item = Item(ticket, position, data, None, now)
            if self._fast and len(data) <= SMALL.max_bytes:
                self._small.append(item)
            else:
                self._waiting.put(item)
        if self._small and not self._turn_planned:
            self._turn_planned = True
            self._loop.call_soon(self._turn)
        await ticket.done
        if ticket.missing:
            late = DeadlineError(seconds)
            return Embedded([late if a is None else a for a in ticket.answers], ticket.timings)
        return Embedded(ticket.answers, ticket.timings)  # type: ignore[arg-type]

    def close(self) -> None:
        """Let the threads end once the queue is empty."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _sweep(self) -> None:
        """Answer requests whose deadline has passed, whatever became of their images."""
        now = time.perf_counter()
        while self._tickets and (self._tickets[0].done.done() or now > self._tickets[0].deadline):
            ticket = self._tickets.popleft()
            if not ticket.done.done():
                ticket.done.set_result(None)
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep) if self._tickets else None

    def _deliver(self, run: Run) -> None:
        finished, metrics = run.finished, self._metrics
        self.room.leave(len(finished))
        metrics.queue -= len(finished)
        if run.images:
            metrics.batch_size.observe(run.images)
            metrics.stage["inference"].observe(run.inference_s)
            metrics.stage["queue"].observe(run.queue_s)
        for item, answer in finished:
            ticket = item.ticket
            ticket.answers[item.position] = answer
            ticket.missing -= 1
            if not ticket.missing and not ticket.done.done():
                ticket.done.set_result(None)

    # --- small images, in the event loop -----------------------------------------------

    def _turn(self) -> None:
        """Work on what arrived together, a batch at a time; what is left waits for the next turn.

        Where batches are left over from turn to turn, they get half of the loop's time: in a flood, saying no
        to many must not take it all from those who were let in.
        """
        begun = time.perf_counter()
        until = begun + min(begun - self._left_off, TURN_S)
        self._one_batch()
        while self._small and time.perf_counter() < until:
            self._one_batch()
        self._turn_planned = bool(self._small) or self._gathering
        self._left_off = time.perf_counter() if self._small else math.inf
        if self._small:
            self._loop.call_soon(self._turn)
        elif self._gathering:  # twice: what the loop reads now becomes images before the turn, not after it
            self._loop.call_soon(self._loop.call_soon, self._turn)

    def _one_batch(self) -> None:
        most = self.engine.buckets[-1]
        chunk = [self._small.popleft() for _ in range(min(most, len(self._small)))]
        finished, rest = self._decode(chunk, SMALL)
        for item in rest:  # small in bytes, not in pixels
            self._waiting.put(item)
        if finished:
            self._deliver(Run(finished))
        crowd = max(len(chunk), self._last_run) > 1
        self._gathering = bool(chunk) and crowd and not self._small and 0 < len(self._ready) < most
        if self._gathering:
            return
        if self._ready and self._model_free.acquire(blocking=False):
            try:
                run = self._infer(self._next_batch())
            finally:
                self._model_free.release()
            self._last_run = run.images
            if run.finished:
                self._deliver(run)
        with suppress(IndexError):  # a thread was at the model meanwhile: one looks after what is left
            self._waiting.put(_nothing(self._ready[0].ticket))

    # --- any image, in the threads -----------------------------------------------------

    def _work(self) -> None:
        while True:
            first = self._waiting.get()
            if first is None:
                return
            chunk, last = [first], False
            for _ in range(min(32, self._waiting.qsize() // len(self._threads))):
                try:
                    more = self._waiting.get_nowait()
                except Empty:
                    break
                if more is None:
                    last = True
                    break
                chunk.append(more)
            finished, _ = self._decode([i for i in chunk if i.position >= 0], self._settings.limits)
            if finished:
                self._loop.call_soon_threadsafe(self._deliver, Run(finished))
            self._infer_all()
            if last:
                return

    def _decode(
        self, chunk: list[Item], limits: DecodeLimits
    ) -> tuple[list[tuple[Item, Answer]], list[Item]]:
        """Decode items into the ready ones; return the answers of bad and late ones, and what is too large."""
        finished: list[tuple[Item, Answer]] = []
        too_large: list[Item] = []
        recipe = self.engine.card.preprocess
        begun = time.perf_counter()
        for item in chunk:
            timings = item.ticket.timings
            if begun > item.ticket.deadline:
                finished.append((item, DeadlineError(self._settings.deadline_s)))
                continue
            data = item.data
            try:
                item.pixels = load_image(data, recipe, limits) if isinstance(data, bytes) else data
            except ImageError as error:
                if limits is SMALL and error.code == "too_many_pixels":
                    too_large.append(item)
                    continue
                # Anew: the frames of this one hold the image, and itself.
                finished.append((item, ImageError(error.code, str(error))))
            except Exception:
                finished.append((item, internal_error()))
            now = item.ready_at = time.perf_counter()
            timings["decode"] = timings.get("decode", 0.0) + now - begun
            begun = now
            if item.pixels is not None:
                item.data = b""
                self._ready.append(item)
        return finished, too_large

    def _infer_all(self) -> None:
        """Run the model on all that is ready, unless other threads keep it busy.

        Such a thread looks again after it has let go of the model, so nothing is left lying.
        """
        while self._ready:
            if not self._model_free.acquire(blocking=False):
                return
            try:
                run = self._infer(self._next_batch())
            finally:
                self._model_free.release()
            if run.finished:
                self._loop.call_soon_threadsafe(self._deliver, run)

    def _next_batch(self) -> list[Item]:
        batch: list[Item] = []
        with suppress(IndexError):  # where the model takes several batches at once, another took the rest
            while len(batch) < self.engine.buckets[-1]:
                batch.append(self._ready.popleft())
        return batch

    def _infer(self, batch: list[Item]) -> Run:
        begun = time.perf_counter()
        finished: list[tuple[Item, Answer]] = []
        on_time = batch
        if any(begun > item.ticket.deadline for item in batch):
            on_time = [item for item in batch if begun <= item.ticket.deadline]
            late = DeadlineError(self._settings.deadline_s)
            finished = [(item, late) for item in batch if begun > item.ticket.deadline]
        if not on_time:
            return Run(finished)
        answers: Sequence[Answer]
        pixels = [item.pixels for item in on_time if item.pixels is not None]
        try:
            answers = self.engine.embed_pixels(pixels, crowd=self.room.waiting > len(pixels))
        except Exception as error:
            answers = [error if isinstance(error, VsslError) else internal_error()] * len(on_time)
        seconds = time.perf_counter() - begun
        for item, answer in zip(on_time, answers, strict=True):
            timings = item.ticket.timings
            timings["queue"] = begun - item.ready_at
            timings["inference"] = seconds
            finished.append((item, answer))
        return Run(finished, len(on_time), seconds, begun - on_time[0].ready_at)


def seconds_per_image(engine: Engine) -> float:
    """Return the seconds that the model takes for an image of its golden pair, the best of three."""
    images, best = engine.golden.images, math.inf
    for _ in range(3):
        begun = time.perf_counter()
        engine.run(images)
        best = min(best, time.perf_counter() - begun)
    return best / max(1, len(images))


def _nothing(ticket: Ticket) -> Item:
    """Return an item that carries no image and only wakes a thread."""
    return Item(ticket, -1, np.empty(0, np.uint8))
