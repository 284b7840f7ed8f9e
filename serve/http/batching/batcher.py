"""Encoded images of many requests -> batches of clean tensors -> one answer or error per image.

Worker threads take waiting images and decode them (this is where bad ones drop out, alone). Whichever
thread finds the model free runs it on everything that is decoded by then: a lone image goes straight
through without any timed wait, and under load batches grow by themselves while the model is busy.
Large images go to a thread of their own, which has another process decode them: the others do not wait for them.

The queue is bounded, and an image that waited past its deadline is answered without being
computed. Everything but `_work` and what it calls runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from queue import Empty, SimpleQueue

from serve.http.batching.admission import Admission
from serve.http.batching.decoding import Decoder, LargeImageError
from serve.http.batching.pending import Decoded, Failed, Part, Run, Ticket
from serve.http.errors import DeadlineError, internal_error, out_of_memory
from serve.http.metrics import Metrics
from serve.http.settings import Settings
from serve.inference.cores import available_cores
from serve.inference.embedded import EmbeddedImages
from serve.inference.engine import Engine
from vssl.errors import ImageError, VsslError, is_lack
from vssl.images.preprocess import Pixels, load_image

MAX_CHUNK = 32
"""Images from which on a thread takes no more before it looks for the model."""


class Batcher:
    """The bounded queue in front of one engine, its threads and its batches."""

    def __init__(self, engine: Engine, settings: Settings, metrics: Metrics, decoder: Decoder) -> None:
        self._settings = settings
        self._metrics = metrics
        self._decoder = decoder
        self._loop = asyncio.get_running_loop()
        self._waiting: SimpleQueue[Part | None] = SimpleQueue()
        self._large: SimpleQueue[Part | None] = SimpleQueue()
        self._decoded: deque[Decoded] = deque()
        self._model_free = threading.Semaphore(engine.graph.lanes)
        self.engine = engine
        self.admission = Admission(settings.max_queue, settings.deadline_s)
        # Threads that wait for a Triton server leave the cores to others, which decode meanwhile.
        count = available_cores() + engine.graph.lanes if engine.remote else engine.threads
        self._threads = [
            threading.Thread(target=self._work, name=f"embed-{n}", daemon=True) for n in range(count)
        ]
        self._aside = threading.Thread(target=self._work_aside, name="embed-large", daemon=True)
        for thread in (*self._threads, self._aside):
            thread.start()

    async def embed(
        self, images: Sequence[bytes | Pixels | VsslError], timings: dict[str, float] | None = None
    ) -> EmbeddedImages:
        """Embed encoded images or pixels (S, S, 3); each gets its own answer or error. Errors stay in their places.

        timings: takes the seconds spent by stage. Raises BusyError when the queue is full, or its wait would be
        too long.
        """
        seconds, now = self._settings.deadline_s, time.perf_counter()
        waiting = [(n, data) for n, data in enumerate(images) if not isinstance(data, VsslError)]
        errors = {n: data for n, data in enumerate(images) if isinstance(data, VsslError)}
        ticket = Ticket(len(waiting), now + seconds, self._loop.create_future(), errors)
        if waiting:
            self._queue(ticket, waiting)
            limit = self._loop.call_later(seconds, ticket.end)
            await ticket.done
            limit.cancel()
        if ticket.missing:
            answered = {n for positions, _ in ticket.answers for n in positions}
            late = DeadlineError(seconds)
            errors |= {n: late for n, _ in waiting if n not in answered and n not in errors}
        if timings is not None:
            timings |= ticket.timings  # a copy: threads may still write to the other for late images
        shapes = self.engine.card.output_shapes
        return EmbeddedImages.assembled(shapes, len(images), ticket.answers, errors)

    def _queue(self, ticket: Ticket, images: list[tuple[int, bytes | Pixels]]) -> None:
        count = len(images)
        refusal = self.admission.refusal(count)
        if refusal is not None:
            raise refusal
        self.admission.accept(count)
        self._metrics.queue += count
        # By parts and not one by one: each put wakes a thread, which costs as much as an image.
        size = min(MAX_CHUNK, -(-count // len(self._threads)))
        for start in range(0, count, size):
            self._waiting.put(Part(ticket, images[start : start + size]))

    def close(self) -> None:
        """Let the threads end once the queue is empty."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()
        self._large.put(None)
        self._aside.join()

    def _deliver(self, run: Run) -> None:
        count, metrics = len(run.failed) + len(run.batch), self._metrics
        self.admission.release(count)
        metrics.queue -= count
        for ticket, position, error in run.failed:
            ticket.errors[position] = error
            ticket.settle(1)
        if run.answers is None:
            return
        metrics.batch_size.observe(len(run.batch))
        metrics.stage["inference"].observe(run.inference_s)
        metrics.stage["queue"].observe(run.begun - run.batch[0].ready_at)
        start = 0
        for ticket, group in groupby(run.batch, attrgetter("ticket")):
            images = list(group)
            positions = [image.position for image in images]
            stop = start + len(positions)
            ticket.timings["queue"] = run.begun - images[0].ready_at
            ticket.timings["inference"] = run.inference_s
            ticket.answers.append((positions, run.answers.between(start, stop)))
            ticket.settle(len(positions))
            start = stop

    # --- in the worker threads ---------------------------------------------------------

    def _work(self) -> None:
        last = False
        while not last and (part := self._waiting.get()) is not None:
            parts, images = [part], len(part.images)
            for _ in range(self._waiting.qsize() // len(self._threads)):
                if images >= MAX_CHUNK:
                    break
                try:
                    more = self._waiting.get_nowait()
                except Empty:
                    break
                if more is None:
                    last = True
                    break
                parts.append(more)
                images += len(more.images)
            for part in parts:
                self._decode(part, self._decoder.here)
            self._run_model()

    def _work_aside(self) -> None:
        while (part := self._large.get()) is not None:
            seconds = part.ticket.deadline - time.perf_counter()
            self._decode(part, functools.partial(self._decoder.aside, seconds=seconds))
            self._run_model()

    def _decode(self, part: Part, run: Callable[..., Pixels]) -> None:
        """Decode a part's images for the model; those that are bad or late are answered, large ones handed on."""
        ticket, begun = part.ticket, time.perf_counter()
        late, is_late = DeadlineError(self._settings.deadline_s), begun > ticket.deadline
        failed = [Failed(ticket, position, late) for position, _ in part.images if is_late]
        decoded: list[tuple[int, Pixels]] = []
        recipe = self.engine.card.preprocess
        for position, data in () if is_late else part.images:
            try:
                pixels = run(load_image, data, recipe) if isinstance(data, bytes) else data
                decoded.append((position, pixels))
            except LargeImageError:
                self._large.put(Part(ticket, [(position, data)]))
            except ImageError as error:
                # A new error: the frames of this one hold the image, and the error itself.
                failed.append(Failed(ticket, position, ImageError(error.code, str(error))))
            except TimeoutError:
                failed.append(Failed(ticket, position, late))
            except Exception as error:
                told = out_of_memory() if is_lack(error) else internal_error()
                failed.append(Failed(ticket, position, told))
        part.images.clear()
        now = time.perf_counter()
        ticket.timings["decode"] = ticket.timings.get("decode", 0.0) + now - begun
        self._decoded.extend(Decoded(ticket, position, pixels, now) for position, pixels in decoded)
        if failed:
            self._loop.call_soon_threadsafe(self._deliver, Run(failed))

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
            if run.failed or run.batch:
                self._loop.call_soon_threadsafe(self._deliver, run)

    def _next_batch(self) -> list[Decoded]:
        batch: list[Decoded] = []
        with suppress(IndexError):  # where the model takes several batches at once, another took the rest
            while len(batch) < self.engine.buckets[-1]:
                batch.append(self._decoded.popleft())
        return batch

    def _infer(self, batch: list[Decoded]) -> Run:
        begun = time.perf_counter()
        failed: list[Failed] = []
        if any(begun > image.ticket.deadline for image in batch):
            late = DeadlineError(self._settings.deadline_s)
            failed = [Failed(i.ticket, i.position, late) for i in batch if begun > i.ticket.deadline]
            batch = [image for image in batch if begun <= image.ticket.deadline]
        if not batch:
            return Run(failed)
        pixels = [image.pixels for image in batch]
        try:
            answers = self.engine.embed_pixels(pixels, more_waiting=self.admission.waiting > len(pixels))
        except Exception as error:
            lack = out_of_memory() if is_lack(error) else internal_error()
            told = error if isinstance(error, VsslError) else lack
            return Run(failed + [Failed(i.ticket, i.position, told) for i in batch])
        return Run(failed, batch, answers, begun, time.perf_counter() - begun)
