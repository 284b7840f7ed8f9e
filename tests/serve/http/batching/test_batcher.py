"""The batcher: order kept, bad ones alone, bounded, on time, on both ways to the model."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
import pytest
from PIL import Image

from serve.http.batching.batcher import SMALL, Batcher
from serve.http.errors import BusyError, DeadlineError
from serve.http.metrics import Metrics
from serve.http.settings import Settings
from serve.inference.engine import EmbeddedImage, Engine
from tests.serve.http.conftest import World, encoded
from vssl.embeddings.gaussian import Floats
from vssl.errors import ImageError
from vssl.images.preprocess import Pixels

T = TypeVar("T")


class SlowEngine(Engine):
    """The real engine, resting before each batch: a model too slow for the event loop."""

    rest_s = 0.02

    def run(self, images: Pixels, *, crowd: bool = False) -> tuple[Floats, Floats, Floats]:
        time.sleep(self.rest_s)
        return super().run(images, crowd=crowd)


def with_batcher(
    engine: Engine, work: Callable[[Batcher], Awaitable[T]], settings: Settings | None = None
) -> tuple[T, Metrics]:
    async def main() -> tuple[T, Metrics]:
        metrics = Metrics()
        batcher = Batcher(engine, settings or Settings(engine.source, threads=2), metrics)
        try:
            return await work(batcher), metrics
        finally:
            await asyncio.to_thread(batcher.close)

    return asyncio.run(main())


@pytest.fixture(params=[Engine, SlowEngine], ids=["in the event loop", "in threads"])
def engine(request: pytest.FixtureRequest, world: World) -> Engine:
    opened: Engine = request.param.open(world.model, threads=1)
    return opened


def large(seed: int) -> bytes:
    """Return an image that is small in bytes but not in pixels."""
    sink = io.BytesIO()
    Image.new("RGB", (400, 300), (seed, 2 * seed, 90)).save(sink, "PNG")
    assert len(sink.getvalue()) < SMALL.max_bytes
    return sink.getvalue()


def test_answers_keep_the_order_and_bad_images_their_place(engine: Engine, world: World) -> None:
    images = [encoded(1), b"junk", large(3), encoded(2, size=(500, 400)), b"", encoded(4)]

    async def work(batcher: Batcher) -> list[object]:
        return list((await batcher.embed(images)).answers)

    answers, _ = with_batcher(engine, work)
    for answer, image in zip(answers, images, strict=True):
        if isinstance(answer, EmbeddedImage):
            np.testing.assert_allclose(answer.mean, world.expected(image)[0], atol=1e-6)
    codes = [a.code if isinstance(a, ImageError) else None for a in answers]
    assert codes == [None, "unsupported_type", None, None, "empty", None]


def test_many_requests_at_once_each_get_their_own(engine: Engine, world: World) -> None:
    async def work(batcher: Batcher) -> list[object]:
        asked = [batcher.embed([encoded(n), large(n)]) for n in range(40)]
        return [e.answers for e in await asyncio.gather(*asked)]

    answers, metrics = with_batcher(engine, work)
    for n, (small, big) in enumerate(answers):  # type: ignore[misc]
        np.testing.assert_allclose(small.mean, world.expected(encoded(n))[0], atol=1e-5)
        np.testing.assert_allclose(big.mean, world.expected(large(n))[0], atol=1e-5)
    assert metrics.queue == 0
    assert sum(metrics.batch_size.counts) < 60  # of 80 images: they did share batches


def test_pixels_join_the_same_batches(engine: Engine, world: World) -> None:
    pixels = np.full((16, 16, 3), 77, np.uint8)

    async def work(batcher: Batcher) -> list[object]:
        return list((await batcher.embed([pixels, encoded(1), pixels])).answers)

    (first, _, last), _ = with_batcher(engine, work)
    expected = engine.infer(pixels[None]).gaussians.mean[0]
    np.testing.assert_allclose(first.mean, expected, atol=1e-6)  # type: ignore[attr-defined]
    np.testing.assert_allclose(last.mean, expected, atol=1e-6)  # type: ignore[attr-defined]


def test_beyond_the_queue_is_refused_with_a_time_to_come_back(world: World) -> None:
    engine = SlowEngine.open(world.model, threads=1)
    settings = Settings(str(world.model), threads=1, max_queue=8)

    async def work(batcher: Batcher) -> tuple[list[object], int]:
        accepted = [asyncio.create_task(batcher.embed([encoded(n)])) for n in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError) as caught:
            await batcher.embed([encoded(9)])
        assert caught.value.status == 429
        assert caught.value.retry_after is not None
        answers = [(await task).answers[0] for task in accepted]
        again = await batcher.embed([encoded(9)])  # there is room now
        return answers, len(again.answers)

    (answers, again), _ = with_batcher(engine, work, settings)
    assert all(isinstance(a, EmbeddedImage) for a in answers)
    assert again == 1


def test_a_request_larger_than_the_queue_passes_when_nothing_waits(world: World) -> None:
    async def work(batcher: Batcher) -> int:
        return len((await batcher.embed([encoded(1)] * 20)).answers)

    count, _ = with_batcher(world.engine, work, Settings(str(world.model), max_queue=8))
    assert count == 20


def test_what_waits_past_its_deadline_is_answered_without_being_computed(world: World) -> None:
    class Slower(SlowEngine):
        rest_s = 0.5
        runs = 0

        def run(self, images: Pixels, *, crowd: bool = False) -> tuple[Floats, Floats, Floats]:
            Slower.runs += 1
            return super().run(images)

    engine = Slower.open(world.model, threads=1, check=False)
    settings = replace(Settings(str(world.model), threads=1), deadline_s=0.2)

    async def work(batcher: Batcher) -> tuple[list[object], float]:
        before = Slower.runs
        first = asyncio.create_task(batcher.embed([encoded(1)]))
        await asyncio.sleep(0.05)
        begun = time.perf_counter()
        late = (await batcher.embed([encoded(2), encoded(3)])).answers
        waited = time.perf_counter() - begun
        await first
        await asyncio.sleep(0.8)
        assert Slower.runs - before == 1
        return list(late), waited

    (late, waited), metrics = with_batcher(engine, work, settings)
    assert all(isinstance(a, DeadlineError) for a in late)
    assert waited < 5
    assert metrics.queue == 0


def test_an_engine_that_fails_fails_its_batch_alone(world: World) -> None:
    class Failing(SlowEngine):
        fail = False

        def run(self, images: Pixels, *, crowd: bool = False) -> tuple[Floats, Floats, Floats]:
            if Failing.fail:
                raise MemoryError("no room")
            return super().run(images)

    engine = Failing.open(world.model, threads=1)

    async def work(batcher: Batcher) -> tuple[object, object]:
        Failing.fail = True
        bad = (await batcher.embed([encoded(1)])).answers[0]
        Failing.fail = False
        return bad, (await batcher.embed([encoded(1)])).answers[0]

    (bad, good), _ = with_batcher(engine, work)
    assert bad.status == 500  # type: ignore[attr-defined]
    assert "no room" not in str(bad)
    assert isinstance(good, EmbeddedImage)


def test_closing_answers_what_is_queued(tmp_path: Path, world: World) -> None:
    engine = SlowEngine.open(world.model, threads=1)

    async def main() -> list[object]:
        batcher = Batcher(engine, Settings(str(world.model), threads=2), Metrics())
        asked = [asyncio.create_task(batcher.embed([encoded(n)])) for n in range(10)]
        await asyncio.sleep(0)
        await asyncio.to_thread(batcher.close)
        return [(await task).answers[0] for task in asked]

    assert all(isinstance(a, EmbeddedImage) for a in asyncio.run(main()))


def test_a_busy_loop_leaves_half_of_its_time_to_the_images_that_wait(world: World) -> None:
    engine = Engine.open(world.model, threads=1)
    batches, turns = 40, 0

    async def work(batcher: Batcher) -> None:
        nonlocal turns
        assert batcher._fast
        loop = asyncio.get_running_loop()

        def something_else() -> None:
            nonlocal turns
            turns += 1
            time.sleep(0.2)
            loop.call_soon(something_else)

        loop.call_soon(something_else)
        await batcher.embed([encoded(1)] * (batches * engine.buckets[-1]))

    with_batcher(engine, work, Settings(engine.source, threads=1, max_queue=10_000))
    assert turns < batches / 2  # a batch a turn would take as many turns as batches


def test_images_that_keep_arriving_share_a_run(world: World) -> None:
    engine = Engine.open(world.model, threads=1)

    async def work(batcher: Batcher) -> None:
        asked = [asyncio.create_task(batcher.embed([encoded(n)])) for n in range(2)]
        for n in range(2, 12):  # one more with every turn of the loop, while those before it are decoded
            await asyncio.sleep(0)
            asked.append(asyncio.create_task(batcher.embed([encoded(n)])))
        for n, answered in enumerate(asked):
            (answer,) = (await answered).answers
            assert isinstance(answer, EmbeddedImage)
            np.testing.assert_allclose(answer.mean, world.expected(encoded(n))[0], atol=1e-6)

    _, metrics = with_batcher(engine, work)
    assert (sum(metrics.batch_size.counts), metrics.batch_size.total) == (1, 12)


def test_a_lone_image_waits_for_no_other(world: World) -> None:
    engine = Engine.open(world.model, threads=1)

    async def work(batcher: Batcher) -> None:
        for asked in range(1, 4):
            answered = asyncio.create_task(batcher.embed([encoded(asked)]))
            await asyncio.sleep(0)  # the image is put down
            await asyncio.sleep(0)  # and the turn that was planned for it has run
            assert answered.done() or batcher.room.waiting == 0
            await answered

    _, metrics = with_batcher(engine, work)
    assert (sum(metrics.batch_size.counts), metrics.batch_size.total) == (3, 3)


def test_the_engine_hears_whether_others_wait(world: World) -> None:
    class Heard(SlowEngine):
        crowds: ClassVar[list[bool]] = []

        def run(self, images: Pixels, *, crowd: bool = False) -> tuple[Floats, Floats, Floats]:
            Heard.crowds.append(crowd)
            return super().run(images)

    engine = Heard.open(world.model, threads=1)

    async def work(batcher: Batcher) -> list[bool]:
        Heard.crowds.clear()
        await batcher.embed([encoded(1)])
        await batcher.embed([large(n) for n in range(2 * engine.buckets[-1])])
        return Heard.crowds

    crowds, _ = with_batcher(engine, work, Settings(engine.source, threads=1))
    assert crowds[:2] == [False, True]


@pytest.mark.parametrize(("away", "rests"), [(None, True), ("on_gpu", False), ("remote", False)])
def test_the_loop_rests_in_a_flood_only_where_the_model_wants_its_core(
    world: World, monkeypatch: pytest.MonkeyPatch, away: str | None, rests: bool
) -> None:
    if away is not None:
        monkeypatch.setattr(SlowEngine, away, True)

    async def work(batcher: Batcher) -> bool:
        return batcher.room.rests

    assert with_batcher(SlowEngine.open(world.model, threads=1), work)[0] is rests


def test_what_runs_in_the_loop_lets_it_never_rest(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.http.batching.batcher.seconds_per_image", lambda engine: 0.0)

    async def work(batcher: Batcher) -> bool:
        return batcher.room.rests

    assert with_batcher(world.engine, work)[0] is False
