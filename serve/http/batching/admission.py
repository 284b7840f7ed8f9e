"""How many images wait for a model, and how fast they are done -> a request is accepted or told when to retry."""

from __future__ import annotations

import time
from collections.abc import Callable

from serve.http.errors import BusyError

SMOOTHING = 0.1
"""Weight of the newest measurement in the running mean of seconds per image."""


class Admission:
    """The bound on the images that wait for one model. Only the event loop's thread may use it."""

    def __init__(
        self, max_queue: int, deadline_s: float, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """max_queue: images that may wait. deadline_s: seconds to a request's answer; half of it may be waiting."""
        self._max_queue, self._deadline_s, self._clock = max_queue, deadline_s, clock
        self._seconds_per_image = 0.0
        self._last = 0.0
        self.waiting = 0

    def refusal(self, count: int) -> BusyError | None:
        """Return the error of a request with so many images that is refused, None where it is accepted.

        A request is always accepted when nothing waits.
        """
        waiting = self.waiting
        if not waiting:
            return None
        wait = waiting * self._seconds_per_image
        if waiting + count > self._max_queue:
            why = f"{count} more would exceed the queue of {self._max_queue}"
        elif wait > self._deadline_s / 2:
            why = f"about {wait:.0f} s of work"
        else:
            return None
        return BusyError(f"{waiting} images are waiting, {why}", wait)

    def accept(self, count: int) -> None:
        """Note that so many images wait from now on."""
        if not self.waiting:
            self._last = self._clock()
        self.waiting += count

    def release(self, count: int) -> None:
        """Note that so many images are answered."""
        now = self._clock()
        self._seconds_per_image += SMOOTHING * ((now - self._last) / count - self._seconds_per_image)
        self._last = now
        self.waiting -= count
