"""How connections come into a worker, how long they may idle, and how they end.

uvicorn serves them. It lets a signal to end close what is between two requests at once, and with it
requests that are on their way. And its event loop (libuv) takes in one connection a turn, however many wait:
with turns of ten milliseconds, a hundred newcomers wait a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from serve.http.errors import Header

if TYPE_CHECKING:
    from serve.http.doorkeeper import Refuse

log = logging.getLogger("vssl.serve")

DRAIN_S = 0.5
"""From the signal on: every answer says `Connection: close`; who was connecting still comes in."""

LAST_S = 0.25
"""Then nobody comes in any more, and who came in last sends his request."""

SWEEP_S = 0.05
"""Who waits longer than this is let in with all others who do; who waits less goes to the worker that is free."""

ACCEPTS_A_SWEEP = 256


class Door:
    """The door of one worker; open it in the event loop, before uvicorn listens."""

    def __init__(self) -> None:
        self.closing = False  # whether answers are to say `Connection: close`
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}  # who heard signals before
        self._heard: set[int] = set()
        self._server: uvicorn.Server | None = None
        self._refuse: Refuse | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def open(self, keep_alive_s: float, head_s: float, refuse: Refuse | None = None) -> None:
        """Hear signals in uvicorn's stead, and let idle connections be for so many seconds.

        head_s, refuse: how long a request's head may take, and who is turned away before the application sees
        the request (`Doorkeeper`).
        """
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for kind in (signal.SIGTERM, signal.SIGINT):
            end = signal.getsignal(kind)
            if callable(end):
                self._before[kind] = end
                signal.signal(kind, functools.partial(self._begin_closing, loop, end))
                server = getattr(end, "__self__", None)
                if isinstance(server, uvicorn.Server):
                    self._server = server
        if self._server is not None:
            self.serve_with(self._server.config, keep_alive_s, head_s, refuse)
            self._sweeping = loop.create_task(self._take_in_all(self._server))

    def serve_with(
        self, config: uvicorn.Config, keep_alive_s: float, head_s: float, refuse: Refuse | None
    ) -> None:
        """Have uvicorn's connections, from the next one on, served in the door's way; see `open`.

        Without httptools, or with a uvicorn whose connections are built otherwise, they are served as they are.
        """
        config.timeout_keep_alive = keep_alive_s  # type: ignore[assignment]
        self._refuse = refuse
        if config.http_protocol_class.__name__ != "HttpToolsProtocol":
            return
        from serve.http.doorkeeper import Doorkeeper, is_known

        if is_known(config):
            made = functools.partial(Doorkeeper, self._turn_away, head_s)
            config.http_protocol_class = made  # type: ignore[assignment]
        else:
            log.warning(
                "uvicorn %s builds its connections in another way: refusals cost more, and a request's head may "
                "take any time",
                uvicorn.__version__,
            )

    def forget(self) -> None:
        """Hear no signals any more and let nobody in."""
        self._stop_accepting()
        for kind, end in self._before.items():
            signal.signal(kind, end)
        self._before.clear()

    def _turn_away(
        self, method: bytes, url: bytes, headers: list[Header], usual: Iterable[Header]
    ) -> bytes | None:
        if self._refuse is None or self.closing:  # then each answer has to say so
            return None
        return self._refuse(method, url, headers, usual)

    # --- coming in -------------------------------------------------------------------

    async def _take_in_all(self, server: uvicorn.Server) -> None:
        """Where uvicorn listens with uvloop, let in all who wait, again and again, beside its one a turn."""
        while not server.started:
            await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        if type(loop).__module__.partition(".")[0] != "uvloop":
            return
        (listening,) = (s for each in server.servers for s in each.sockets)
        with (
            socket.socket(fileno=os.dup(listening.fileno())) as door,
            contextlib.suppress(asyncio.CancelledError),
        ):
            while True:
                await asyncio.sleep(SWEEP_S)
                with contextlib.suppress(
                    OSError
                ):  # nobody waits any more, or it is uvicorn's to say what is wrong
                    for _ in range(ACCEPTS_A_SWEEP):
                        self._keep(loop.create_task(_welcome(loop, server, door.accept()[0])))

    def _stop_accepting(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the end ---------------------------------------------------------------------

    def _begin_closing(
        self,
        loop: asyncio.AbstractEventLoop,
        end: Callable[[int, FrameType | None], Any],
        kind: int,
        frame: FrameType | None,
    ) -> None:
        if (
            kind in self._heard
        ):  # asked twice: now (a terminal's SIGINT is followed by the supervisor's SIGTERM)
            end(kind, frame)
            return
        self._heard.add(kind)
        if not self.closing:
            self.closing = True
            last = functools.partial(self._close, loop, functools.partial(end, kind, frame))
            loop.call_soon_threadsafe(loop.call_later, DRAIN_S, last)

    def _close(self, loop: asyncio.AbstractEventLoop, end: Callable[[], Any]) -> None:
        """Let nobody in any more; who waits outside is another worker's, or refused with the last of them."""
        self._stop_accepting()
        if self._server is not None:
            for each in self._server.servers:
                each.close()
        loop.call_later(LAST_S, end)


async def _welcome(
    loop: asyncio.AbstractEventLoop, server: uvicorn.Server, connection: socket.socket
) -> None:
    """Hand a connection to uvicorn as uvicorn's own listening does."""
    config = server.config

    def protocol() -> asyncio.Protocol:
        made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=server.server_state, app_state=server.lifespan.state
        )
        return made

    try:
        await loop.connect_accepted_socket(protocol, connection, ssl=config.ssl)
    except OSError:  # the client is gone again, or speaks no TLS
        connection.close()
