"""Who finds room and who does not, and the event loop's rest after a refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest

from serve.http.batching import admission
from serve.http.batching.admission import Room
from serve.http.errors import BusyError
from serve.http.settings import Settings

T = TypeVar("T")
SETTINGS = Settings("model.onnx", max_queue=8, deadline_s=4)


def in_a_loop(work: Callable[[], T]) -> T:
    async def main() -> T:
        return work()

    return asyncio.run(main())


def refused(found: BusyError | None) -> bool:
    return found is not None


def test_there_is_room_up_to_the_bound_and_for_anything_when_nothing_waits() -> None:
    def work() -> list[bool]:
        room = Room(SETTINGS, rests=False)
        found = [refused(room.refusal(100))]
        room.take(5)
        found += [refused(room.refusal(3)), refused(room.refusal(4))]
        room.leave(5)
        return [*found, refused(room.refusal(4))]

    assert in_a_loop(work) == [False, False, True, False]


def test_who_would_wait_half_the_deadline_is_told_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(admission.time, "perf_counter", lambda: clock[0])

    def work() -> tuple[BusyError | None, BusyError | None]:
        room = Room(SETTINGS, rests=False)
        for _ in range(100):  # half a second each, so that the mean comes to that
            room.take(1)
            clock[0] += 0.5
            room.leave(1)
        room.take(3)
        soon = room.refusal(1)
        room.take(2)
        return soon, room.refusal(1)

    soon, late = in_a_loop(work)
    assert soon is None  # 1.5 s, the deadline is 4
    assert late is not None
    assert late.retry_after == pytest.approx(2.5, rel=0.01)
    assert str(late) == "5 images are waiting, about 2 s of work"


@pytest.mark.parametrize(("rests", "expected"), [(True, [admission.REST_S] * 2), (False, [])])
def test_the_loop_rests_once_after_a_turn_with_refusals_if_it_is_to(
    monkeypatch: pytest.MonkeyPatch, rests: bool, expected: list[float]
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(admission.time, "sleep", slept.append)

    async def main() -> None:
        room = Room(SETTINGS, rests=rests)
        room.take(8)
        for _ in range(2):
            for _ in range(50):
                assert refused(room.refusal(1))
            await asyncio.sleep(0)
        room.leave(8)
        assert not refused(room.refusal(1))
        await asyncio.sleep(0)

    asyncio.run(main())
    assert slept == expected
