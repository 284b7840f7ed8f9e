"""Ordered, bounded parallel work."""

from __future__ import annotations

import threading

import pytest

from serve.extraction.workers import ordered
from tests.serve.running import PATIENCE_S, until


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_tasks_order(workers: int) -> None:
    later_done = threading.Event()

    def work(n: int) -> int:
        if n == 0 and workers > 1:
            assert later_done.wait(PATIENCE_S)  # the first task ends after the second
        later_done.set()
        return n * n

    assert list(ordered(work, range(20), workers=workers, ahead=6)) == [n * n for n in range(20)]
    assert list(ordered(work, [], workers=workers, ahead=6)) == []


def test_a_slow_consumer_stops_the_workers() -> None:
    started: list[int] = []
    results = ordered(started.append, range(100), workers=2, ahead=5)
    for taken in range(1, 4):
        next(results)
        until(lambda: len(started) == taken + 4)  # noqa: B023  (called before the next turn)
    results.close()
    assert len(started) == 7


def test_tasks_are_drawn_only_when_needed() -> None:
    drawn: list[int] = []

    def tasks():  # type: ignore[no-untyped-def]
        for n in range(1000):
            drawn.append(n)
            yield n

    results = ordered(lambda n: n, tasks(), workers=2, ahead=4)
    next(results)
    assert len(drawn) <= 6
    results.close()


def test_all_workers_work_at_once() -> None:
    meeting = threading.Barrier(3, timeout=PATIENCE_S)
    assert list(ordered(lambda _: meeting.wait() >= 0, range(6), workers=3, ahead=6)) == [True] * 6


def test_an_error_is_raised_in_its_turn() -> None:
    def work(n: int) -> int:
        if n == 3:
            raise ZeroDivisionError
        return n

    results = ordered(work, range(10), workers=2, ahead=8)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not [t for t in threading.enumerate() if t.name.startswith("extract")]
