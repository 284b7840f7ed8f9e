"""Encoded images of many requests -> batches of clean tensors -> one answer or error per image.

Worker threads take waiting images and decode them (this is where bad ones drop out, alone). Whichever
thread finds the model free runs it on everything that is decoded by then: a lone image goes straight
through without any timed wait, and under load batches grow by themselves while the model is busy.

The queue is bounded, and an image that waited past its deadline is answered without being
computed. Everything but `_work` and what it calls runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

from serve.http.batching.admission import Admission
from serve.http.batching.pending import Answer, Embedded, Item, Run, Ticket
from serve.http.errors import DeadlineError, internal_error
from serve.http.metrics import Metrics
from serve.http.settings import Settings
from serve.inference.cores import available_cores
from serve.inference.engine import Engine
from vssl.errors import ImageError, VsslError
from vssl.images.preprocess import Pixels, load_image

SWEEP_S = 0.25
"""How often requests past their deadline are looked for."""

MAX_CHUNK = 32
"""Images from which on a thread takes no more before it looks for the model."""


class Batcher:
    """The bounded queue in front of one engine, its threads and its batches."""

    def __init__(self, engine: Engine, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._waiting: SimpleQueue[list[Item] | None] = SimpleQueue()
        self._decoded: deque[Item] = deque()
        self._tickets: deque[Ticket] = deque()  # by deadline, since all wait equally long
        self._sweeping: asyncio.TimerHandle | None = None
        self._model_free = threading.Semaphore(engine.graph.lanes)
        self.engine = engine
        self.admission = Admission(settings.max_queue, settings.deadline_s)
        # Threads that wait for a Triton server leave the cores to others, which decode meanwhile.
        count = available_cores() + engine.graph.lanes if engine.remote else engine.threads
        self._threads = [
            threading.Thread(target=self._work, name=f"embed-{n}", daemon=True) for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    async def embed(self, images: Sequence[bytes | Pixels]) -> Embedded:
        """Embed encoded images or pixels (S, S, 3); each gets its own answer or error.

        Raises BusyError when the queue is full, or its wait would be too long.
        """
        count = len(images)
        refusal = self.admission.refusal(count)
        if refusal is not None:
            raise refusal
        self.admission.accept(count)
        now = time.perf_counter()
        seconds = self._settings.deadline_s
        ticket = Ticket([None] * count, count, now + seconds, self._loop.create_future())
        self._metrics.queue += count
        self._tickets.append(ticket)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)
        items = [Item(ticket, position, data, None, now) for position, data in enumerate(images)]
        # By parts and not one by one: each put wakes a thread, which costs as much as an image.
        part = min(MAX_CHUNK, -(-count // len(self._threads)))
        for start in range(0, count, part):
            self._waiting.put(items[start : start + part])
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
        self.admission.release(len(finished))
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

    # --- in the worker threads ---------------------------------------------------------

    def _work(self) -> None:
        while True:
            chunk = self._waiting.get()
            if chunk is None:
                return
            last = False
            for _ in range(self._waiting.qsize() // len(self._threads)):
                if len(chunk) >= MAX_CHUNK:
                    break
                try:
                    more = self._waiting.get_nowait()
                except Empty:
                    break
                if more is None:
                    last = True
                    break
                chunk += more
            finished = self._decode(chunk)
            if finished:
                self._loop.call_soon_threadsafe(self._deliver, Run(finished))
            self._run_model()
            if last:
                return

    def _decode(self, chunk: list[Item]) -> list[tuple[Item, Answer]]:
        """Decode items; return the answers of bad and late ones."""
        finished: list[tuple[Item, Answer]] = []
        recipe, limits = self.engine.card.preprocess, self._settings.limits
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
                # A new error: the frames of this one hold the image, and the error itself.
                finished.append((item, ImageError(error.code, str(error))))
            except Exception:
                finished.append((item, internal_error()))
            now = item.ready_at = time.perf_counter()
            timings["decode"] = timings.get("decode", 0.0) + now - begun
            begun = now
            if item.pixels is not None:
                item.data = b""
                self._decoded.append(item)
        return finished

    def _run_model(self) -> None:
        """Run the model on all that is decoded, unless other threads keep it busy.

        Such a thread looks again after it has released the model, so no image is left behind.
        """
        while self._decoded:
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
                batch.append(self._decoded.popleft())
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
            answers = self.engine.embed_pixels(pixels, more_waiting=self.admission.waiting > len(pixels))
        except Exception as error:
            answers = [error if isinstance(error, VsslError) else internal_error()] * len(on_time)
        seconds = time.perf_counter() - begun
        for item, answer in zip(on_time, answers, strict=True):
            timings = item.ticket.timings
            timings["queue"] = begun - item.ready_at
            timings["inference"] = seconds
            finished.append((item, answer))
        return Run(finished, len(on_time), seconds, begun - on_time[0].ready_at)
