"""uvicorn's connection, which turns away whom there is no room for, and lets nobody idle for ever.

uvicorn would make a task, a scope and two writes of each refusal. And once an answer went out before the
whole of its request came in, the rest of that request stops uvicorn's clock for idle connections, for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

Header = tuple[bytes, bytes]
Refuse = Callable[[bytes, bytes, list[Header], Iterable[Header]], bytes | None]


class _Refused:
    """Stands where uvicorn keeps a connection's last answer."""

    response_complete = True

    def __init__(self) -> None:
        self.message_event = asyncio.Event()


REFUSED = cast(RequestResponseCycle, _Refused())


class Doorkeeper(HttpToolsProtocol):
    """One connection of a worker."""

    def __init__(self, refuse: Refuse, **uvicorn: Any) -> None:
        """refuse: gets method, target and headers of a request and those of every answer; returns what to
        send to a client that is turned away, None for one that is not.
        """
        super().__init__(**uvicorn)
        self._refuse = refuse

    def data_received(self, data: bytes) -> None:
        """Feed the parser; between two answers the clock for idle connections runs."""
        super().data_received(data)
        between = self.cycle is not None and self.cycle.response_complete
        if between and self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_headers_complete(self) -> None:
        """Turn the request away, or begin to answer it."""
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
