"""A connection's bytes -> requests whose head is bounded: longer ones are answered 431.

Neither uvicorn nor httptools bounds a head, and they keep what has arrived of it in memory. A head that is
still arriving is counted here, in the protocol; one that arrived at once is counted by `head_size`.
"""

from __future__ import annotations

from itertools import chain

import orjson
from starlette.types import Scope
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from serve.http.errors import RequestError, describe

MAX_HEAD_BYTES = 64 * 1024


def too_long() -> RequestError:
    """Return the 431 of a head beyond the bound."""
    return RequestError(
        431,
        "head_too_long",
        f"the request's head exceeds {MAX_HEAD_BYTES} bytes; send less in URL and headers",
    )


def head_size(scope: Scope) -> int:
    """Return the bytes of a request's target and headers."""
    target = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    return target + sum(map(len, chain.from_iterable(scope["headers"])))


class BoundedHead(AutoHTTPProtocol):  # type: ignore[valid-type, misc]
    """uvicorn's own protocol, which ends a connection whose head goes on for too long."""

    is_open = False  # whether a head has begun and is not whole
    arrived = 0  # its bytes, without those that came together with its first

    def on_message_begin(self) -> None:
        """Begin to count: httptools has seen the first byte of a request."""
        self.is_open, self.arrived = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """End to count: what follows is a body, which has bounds of its own."""
        self.is_open = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Pass on what arrives, unless it is more of a head that is too long already."""
        if self.is_open:
            self.arrived += len(data)
            if self.arrived > MAX_HEAD_BYTES:
                self._refuse()
                return
        super().data_received(data)

    def _refuse(self) -> None:
        body = orjson.dumps({"error": describe(too_long())})
        head = (
            "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def bound_heads() -> None:
    """Have uvicorn use this protocol where it chooses one itself."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedHead.__name__}"
