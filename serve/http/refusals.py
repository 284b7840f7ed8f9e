"""A request for which there is no room -> its whole 429, from its head alone.

In a flood nearly every request is refused, and what a refusal costs is taken from those who were let in.
Through the application it costs several times as much as from here. Whatever is not as plain as that (another
route, no valid key, several models) goes through the application, which answers the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from serve.http.errors import Header, whole_answer
from serve.http.middleware.auth import presented_key
from serve.http.middleware.context import request_id
from serve.http.state import Runtime

ROUTES = {b"/embed": "/embed", b"/search": "/search", b"/v1/embeddings": "/v1/embeddings"}


class Refusals:
    """Says no for a server of one model."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def __call__(
        self, method: bytes, url: bytes, headers: list[Header], usual: Iterable[Header]
    ) -> bytes | None:
        """Return the answer to a request that is refused, None for one that the application is to see.

        headers: of the request, their names in lower case. usual: headers that every answer bears.
        """
        begun = time.perf_counter()
        runtime = self._runtime
        route = ROUTES.get(url.partition(b"?")[0])
        if route is None or method != b"POST":
            return None
        busy = runtime.served.batcher.room.refusal(1)
        if busy is None:
            return None
        asked = dict(headers)
        if runtime.keys is not None:
            key = presented_key(asked)
            if key is None or not runtime.keys.accept(key):
                return None
        seconds = time.perf_counter() - begun
        own = [
            (b"x-request-id", request_id(asked).encode()),
            (b"server-timing", b"total;dur=%.3f" % (1000 * seconds)),
        ]
        runtime.metrics.request(route, 429, seconds)
        return whole_answer(busy, [*usual, *own])
