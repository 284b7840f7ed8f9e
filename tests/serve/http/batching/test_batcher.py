"""The batcher: order kept, bad ones alone, bounded, on time, in batches that grow while the model is busy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import ClassVar, NoReturn, TypeVar

import numpy as np
import pytest

from serve.http.batching.batcher import Batcher
from serve.http.batching.decoding import Decoder
from serve.http.errors import BusyError, DeadlineError, RequestError
from serve.http.metrics import Metrics
from serve.http.settings import Settings
from serve.inference.embedded import EmbeddedImage
from serve.inference.engine import Engine
from tests.serve.http.conftest import World, encoded
from vssl.embeddings.gaussian import Floats
from vssl.errors import ImageError
from vssl.images.decode import DEFAULT_LIMITS
from vssl.images.preprocess import Pixels

T = TypeVar("T")


class GatedEngine(Engine):
    """The real engine, whose model runs only while the gate is open; remembers what it was asked."""

    gate: ClassVar[threading.Event]
    busy: ClassVar[threading.Event]  # the model was asked
    asked: ClassVar[list[tuple[int, bool]]]  # images of each run, and whether more of them wait

    def run(self, images: Pixels, *, more_waiting: bool = False) -> tuple[Floats, Floats, Floats]:
        GatedEngine.asked.append((len(images), more_waiting))
        GatedEngine.busy.set()
        assert GatedEngine.gate.wait(60)
        return super().run(images, more_waiting=more_waiting)


@pytest.fixture
def gated(world: World) -> GatedEngine:
    """Return an engine whose gate is closed."""
    GatedEngine.gate, GatedEngine.busy, GatedEngine.asked = threading.Event(), threading.Event(), []
    return GatedEngine.open(world.model, threads=1, check=False)  # type: ignore[return-value]


def with_batcher(
    engine: Engine, work: Callable[[Batcher], Awaitable[T]], settings: Settings | None = None
) -> tuple[T, Metrics]:
    async def main() -> tuple[T, Metrics]:
        metrics = Metrics()
        decoder = Decoder(DEFAULT_LIMITS)
        batcher = Batcher(engine, settings or Settings(engine.source), metrics, decoder)
        try:
            return await work(batcher), metrics
        finally:
            await asyncio.to_thread(batcher.close)
            decoder.close()

    return asyncio.run(main())


async def at_the_model(batcher: Batcher, image: bytes) -> asyncio.Task[object]:
    """Begin to embed an image; return once the model has it. One that came too late for it is sent again."""
    busy = asyncio.create_task(asyncio.to_thread(GatedEngine.busy.wait, 60))
    while True:
        task: asyncio.Task[object] = asyncio.create_task(batcher.embed([image]))  # type: ignore[arg-type]
        await asyncio.wait({task, busy}, return_when=asyncio.FIRST_COMPLETED)
        if busy.done():
            assert busy.result()
            return task


@pytest.mark.parametrize("threads", [1, 2])
def test_answers_keep_the_order_and_bad_images_their_place(world: World, threads: int) -> None:
    images = [encoded(1), b"junk", encoded(3), encoded(2, size=(500, 400)), b"", encoded(4)]

    async def work(batcher: Batcher) -> list[object]:
        return list(await batcher.embed(images))

    answers, _ = with_batcher(Engine.open(world.model, threads=threads), work)
    for answer, image in zip(answers, images, strict=True):
        if isinstance(answer, EmbeddedImage):
            np.testing.assert_allclose(answer.mean, world.expected(image)[0], atol=1e-6)
    codes = [a.code if isinstance(a, ImageError) else None for a in answers]
    assert codes == [None, "unsupported_type", None, None, "empty", None]


@pytest.mark.parametrize("threads", [1, 2])
def test_many_requests_at_once_each_get_their_own(world: World, threads: int) -> None:
    def large(seed: int) -> bytes:
        return encoded(seed, size=(200, 150))

    async def work(batcher: Batcher) -> list[object]:
        asked = [batcher.embed([encoded(n), large(n)]) for n in range(40)]
        return list(await asyncio.gather(*asked))

    answers, metrics = with_batcher(Engine.open(world.model, threads=threads), work)
    for n, (small, big) in enumerate(answers):  # type: ignore[misc]
        np.testing.assert_allclose(small.mean, world.expected(encoded(n))[0], atol=1e-5)
        np.testing.assert_allclose(big.mean, world.expected(large(n))[0], atol=1e-5)
    assert metrics.queue == 0
    assert metrics.batch_size.total == 80


def test_what_arrives_while_the_model_is_busy_shares_its_next_run(gated: GatedEngine) -> None:
    async def work(batcher: Batcher) -> None:
        first = await at_the_model(batcher, encoded(0))
        others = [asyncio.create_task(batcher.embed([encoded(n)])) for n in range(1, 13)]
        await asyncio.sleep(0)  # all are queued
        GatedEngine.gate.set()
        await asyncio.gather(first, *others)

    with_batcher(gated, work)
    assert [images for images, _ in GatedEngine.asked] == [1, 12]


def test_a_lone_image_waits_for_no_other(gated: GatedEngine) -> None:
    async def work(batcher: Batcher) -> None:
        GatedEngine.gate.set()
        for n in range(3):
            await batcher.embed([encoded(n)])

    with_batcher(gated, work)
    assert [images for images, _ in GatedEngine.asked] == [1, 1, 1]


def test_the_engine_knows_whether_others_wait(gated: GatedEngine) -> None:
    async def work(batcher: Batcher) -> None:
        first = await at_the_model(batcher, encoded(0))
        rest = asyncio.create_task(batcher.embed([encoded(n) for n in range(gated.buckets[-1] + 1)]))
        await asyncio.sleep(0)
        GatedEngine.gate.set()
        await asyncio.gather(first, rest)
        await batcher.embed([encoded(0)])

    with_batcher(gated, work)
    most = gated.buckets[-1]
    assert GatedEngine.asked[:2] == [(1, False), (most, True)]
    assert GatedEngine.asked[3:] == [(1, False)]  # the one before may run while the batch is being delivered


def test_pixels_join_the_same_batches(world: World) -> None:
    pixels = np.full((16, 16, 3), 77, np.uint8)

    async def work(batcher: Batcher) -> list[object]:
        return list(await batcher.embed([pixels, encoded(1), pixels]))

    (first, _, last), _ = with_batcher(world.engine, work)
    expected = world.engine.infer(pixels[None]).gaussians.mean[0]
    np.testing.assert_allclose(first.mean, expected, atol=1e-6)  # type: ignore[attr-defined]
    np.testing.assert_allclose(last.mean, expected, atol=1e-6)  # type: ignore[attr-defined]


def test_beyond_the_queue_is_refused_with_a_time_to_retry(gated: GatedEngine) -> None:
    async def work(batcher: Batcher) -> tuple[list[object], int]:
        accepted = [asyncio.create_task(batcher.embed([encoded(n)])) for n in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError) as caught:
            await batcher.embed([encoded(9)])
        assert caught.value.status == 429
        assert caught.value.retry_after is not None
        GatedEngine.gate.set()
        answers = [(await task)[0] for task in accepted]
        again = await batcher.embed([encoded(9)])  # the queue has space now
        return answers, len(again)

    (answers, again), _ = with_batcher(gated, work, Settings(gated.source, max_queue=8))
    assert all(isinstance(a, EmbeddedImage) for a in answers)
    assert again == 1


def test_a_request_larger_than_the_queue_passes_when_nothing_waits(world: World) -> None:
    async def work(batcher: Batcher) -> int:
        return len(await batcher.embed([encoded(1)] * 20))

    count, _ = with_batcher(world.engine, work, Settings(str(world.model), max_queue=8))
    assert count == 20


def test_what_waits_past_its_deadline_is_answered_without_being_computed(gated: GatedEngine) -> None:
    async def work(batcher: Batcher) -> list[object]:
        first = await at_the_model(batcher, encoded(1))
        late = await batcher.embed([encoded(2), encoded(3)])  # while the model is busy
        GatedEngine.gate.set()
        await first
        return list(late)

    late, metrics = with_batcher(gated, work, Settings(gated.source, deadline_s=0.2))
    assert all(isinstance(a, DeadlineError) for a in late)
    assert [images for images, _ in GatedEngine.asked] == [1]
    assert metrics.queue == 0


def test_an_engine_that_fails_fails_its_batch_alone(world: World) -> None:
    class Failing(Engine):
        fail = False

        def run(self, images: Pixels, *, more_waiting: bool = False) -> tuple[Floats, Floats, Floats]:
            if Failing.fail:
                raise RuntimeError("no room")
            return super().run(images)

    engine = Failing.open(world.model, threads=1)

    async def work(batcher: Batcher) -> tuple[object, object]:
        Failing.fail = True
        bad = (await batcher.embed([encoded(1)]))[0]
        Failing.fail = False
        return bad, (await batcher.embed([encoded(1)]))[0]

    (bad, good), _ = with_batcher(engine, work)
    assert bad.status == 500  # type: ignore[attr-defined]
    assert "no room" not in str(bad)
    assert isinstance(good, EmbeddedImage)


def test_closing_answers_what_is_queued(gated: GatedEngine) -> None:
    async def main() -> list[object]:
        batcher = Batcher(gated, Settings(gated.source), Metrics(), Decoder(DEFAULT_LIMITS))
        asked = [asyncio.create_task(batcher.embed([encoded(n)])) for n in range(10)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        GatedEngine.gate.set()
        await closing
        return [(await task)[0] for task in asked]

    assert all(isinstance(a, EmbeddedImage) for a in asyncio.run(main()))


def test_large_images_and_small_ones_of_one_request_keep_their_places(world: World) -> None:
    images = [encoded(1), encoded(2, "WEBP", (2100, 2000)), encoded(3), b"junk"]

    async def work(batcher: Batcher) -> list[object]:
        return list(await batcher.embed(images))

    answers, _ = with_batcher(Engine.open(world.model, threads=1), work)
    for answer, image in zip(answers[:3], images[:3], strict=True):
        assert isinstance(answer, EmbeddedImage)
        np.testing.assert_allclose(answer.mean, world.expected(image)[0], atol=1e-6)
    assert isinstance(answers[3], ImageError)


def test_too_little_memory_for_an_image_is_no_fault_of_the_image(world: World) -> None:
    class Poor(Decoder):
        def here(self, work: object, data: bytes, *arguments: object) -> NoReturn:
            raise MemoryError

    async def main() -> object:
        batcher = Batcher(world.engine, Settings(str(world.model)), Metrics(), Poor(DEFAULT_LIMITS))
        try:
            return (await batcher.embed([encoded(1)]))[0]
        finally:
            await asyncio.to_thread(batcher.close)

    error = asyncio.run(main())
    assert isinstance(error, RequestError)
    assert (error.status, error.code, error.retry_after) == (503, "out_of_memory", 5)
