"""uvicorn's connection, which turns away whom there is no room for, and waits for nobody for ever.

uvicorn would make a task, a scope and two writes of each refusal. It gives who has not asked yet all the time
in the world, and who is in the midst of a request's head. And once an answer went out before the whole of its
request came in, the rest of that request stops its clock for idle connections, for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from serve.http.errors import Header, RequestError, whole_answer

Refuse = Callable[[bytes, bytes, list[Header], Iterable[Header]], bytes | None]


BUILT_ON = (
    "cycle", "flow", "headers", "expect_100_continue", "parser", "server_state", "timeout_keep_alive",
    "timeout_keep_alive_handler", "timeout_keep_alive_task", "transport", "loop", "on_response_complete",
    "on_message_begin", "on_headers_complete",
)  # fmt: skip
"""What a `Doorkeeper` needs of uvicorn's connection, which promises none of it."""


class _Refused:
    """Stands where uvicorn keeps a connection's last answer."""

    response_complete = True

    def __init__(self) -> None:
        self.message_event = asyncio.Event()


REFUSED = cast(RequestResponseCycle, _Refused())


def is_known(config: uvicorn.Config) -> bool:
    """Whether this uvicorn's connections have what a `Doorkeeper` builds on. Call it in an event loop."""
    probe = HttpToolsProtocol(config=config, server_state=ServerState(), app_state={})
    return all(hasattr(probe, name) for name in BUILT_ON)


class Doorkeeper(HttpToolsProtocol):
    """One connection of a worker."""

    def __init__(self, refuse: Refuse, head_s: float, **others: Any) -> None:
        """Serve a connection.

        refuse: gets method, target and headers of a request and those of every answer; returns what to
        send to a client that is turned away, None for one that is not. head_s: seconds from the first byte of
        a request's head to its last. others: what uvicorn gives.
        """
        super().__init__(**others)
        self._refuse, self._head_s = refuse, head_s
        self._head_begun: float | None = None  # in the midst of a head

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._watch_the_clock()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; until a request is being answered, the clock runs."""
        super().data_received(data)
        if self.timeout_keep_alive_task is None and (self.cycle is None or self.cycle.response_complete):
            self._watch_the_clock()

    def _watch_the_clock(self) -> None:
        if self.transport.is_closing():
            return
        now = self.loop.time()
        if self._head_begun is None:
            limit, end = now + self.timeout_keep_alive, self.timeout_keep_alive_handler
        else:
            limit, end = self._head_begun + self._head_s, self._too_slow
        self.timeout_keep_alive_task = self.loop.call_at(limit, end)

    def _too_slow(self) -> None:
        error = RequestError(408, "slow_head", f"the request's head did not arrive within {self._head_s:g} s")
        usual = [*self.server_state.default_headers, (b"connection", b"close")]
        self.transport.write(whole_answer(error, usual))
        self.transport.close()

    def on_message_begin(self) -> None:
        """Note when a request's head begins."""
        super().on_message_begin()
        self._head_begun = self.loop.time()

    def on_headers_complete(self) -> None:
        """Turn the request away, or begin to answer it."""
        self._head_begun = None
        if not self._turned_away():
            super().on_headers_complete()

    def _turned_away(self) -> bool:
        parser = self.parser
        if (
            (self.cycle is not None and not self.cycle.response_complete)  # this one comes after another
            or self.flow.write_paused
            or self.expect_100_continue
            or parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
            or parser.should_upgrade()
        ):
            return False
        answer = self._refuse(parser.get_method(), self.url, self.headers, self.server_state.default_headers)
        if answer is None:
            return False
        self.cycle = REFUSED
        self.transport.write(answer)
        self.on_response_complete()
        return True
