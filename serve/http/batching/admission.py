"""How many images wait for a model and how fast they go -> whether there is room for more of them."""

from __future__ import annotations

import asyncio
import time

from serve.http.errors import BusyError
from serve.http.settings import Settings

REST_S = 0.01
"""The event loop's rest after a turn in which it refused somebody, where the model wants its core.

In a flood every request would wake the loop, and each time it takes a core from a thread that embeds. After a
rest it refuses in one go all who came meanwhile: for a hundredth of a second that nobody notices beside a full
queue, the threads keep what the wakings cost (docs/serving.md).
"""


class Room:
    """The place for waiting images in front of one model. Only the event loop's thread may use it."""

    def __init__(self, settings: Settings, *, rests: bool) -> None:
        """rests: whether the model runs on this machine's cores beside the event loop. In it, on a GPU or a Triton
        server, a rest would help nobody.
        """
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._resting = False
        self.rests = rests
        self._seconds_per_image = 0.0
        self._last = 0.0
        self.waiting = 0

    def refusal(self, count: int) -> BusyError | None:
        """Return the error of a request with so many images that finds no room, None where it finds some.

        A request is always taken when nothing waits.
        """
        waiting = self.waiting
        if not waiting:
            return None
        wait = waiting * self._seconds_per_image
        if waiting + count > self._settings.max_queue:
            why = f"there is no room for {count} more"
        elif wait > self._settings.deadline_s / 2:
            why = f"about {wait:.0f} s of work"
        else:
            return None
        if self.rests and not self._resting:
            self._resting = True
            self._loop.call_soon(self._rest)
        return BusyError(f"{waiting} images are waiting, {why}", wait)

    def take(self, count: int) -> None:
        """Let images in."""
        if not self.waiting:
            self._last = time.perf_counter()
        self.waiting += count

    def leave(self, count: int) -> None:
        """Let images out that are answered."""
        now = time.perf_counter()
        self._seconds_per_image += 0.1 * ((now - self._last) / count - self._seconds_per_image)
        self._last = now
        self.waiting -= count

    def _rest(self) -> None:
        time.sleep(REST_S)
        self._resting = False
