"""A server's command line -> its exit status: a parent process owns the signals, drains the server and ends with it.

`vssl serve` runs BentoML as a child and listens on a Unix socket. Every process of the server connects to it:

    SIGTERM -> parent -> "drain" to all processes -> drain time -> SIGTERM to BentoML -> accepted requests end
    the parent dies  -> the connections end       -> every process sends itself SIGTERM

Nothing here knows of HTTP. A server that was started without a supervisor (`bentoml serve`) drains nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

VARIABLE = "VSSL_SUPERVISOR"
"""Names the supervisor's socket to the processes of its server."""

DRAIN = b"drain\n"


class Supervisor:
    """The parent of one server."""

    def __init__(self, folder: Path, drain_s: float) -> None:
        """folder: a private one for the socket; its path must be shorter than about 90 characters.

        drain_s: seconds from SIGTERM until the server is told to end. New clients should stay away meanwhile.
        """
        self._socket, self._drain_s = folder / "supervisor", drain_s
        self._drain, self._stop = asyncio.Event(), asyncio.Event()
        self._connections: set[asyncio.StreamWriter] = set()

    async def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run a command until it ends or a signal ends it; return its exit status, 0 if it was asked to end.

        The first SIGTERM drains. SIGINT, or a second SIGTERM, ends the server without a drain; what it has
        accepted it still answers. The command gets a session of its own: a terminal's Ctrl-C reaches the
        supervisor alone.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
        loop.add_signal_handler(signal.SIGINT, self._stop.set)
        listening = await asyncio.start_unix_server(self._connected, self._socket)
        process = await asyncio.create_subprocess_exec(
            *command, env={**environment, VARIABLE: str(self._socket)}, start_new_session=True
        )
        ended = asyncio.create_task(process.wait())
        asked = await self._wait_for_the_end(ended)
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            process.terminate()
        status = await ended
        listening.close()
        for connection in self._connections:  # after a crash of BentoML, its workers are left
            connection.close()
        if asked and status in (0, -signal.SIGTERM):
            return 0
        return status if status >= 0 else 128 - status

    async def _wait_for_the_end(self, ended: asyncio.Task[int]) -> bool:
        """Wait until the server is to end; return whether a signal asked for it."""
        drain, stop = asyncio.create_task(self._drain.wait()), asyncio.create_task(self._stop.wait())
        await asyncio.wait((ended, drain, stop), return_when=asyncio.FIRST_COMPLETED)
        if drain.done() and not stop.done():
            for connection in self._connections:
                connection.write(DRAIN)
            await asyncio.wait((ended, stop), timeout=self._drain_s, return_when=asyncio.FIRST_COMPLETED)
        asked = drain.done() or stop.done()
        drain.cancel()
        stop.cancel()
        return asked

    def _on_sigterm(self) -> None:
        if self._drain.is_set():
            self._stop.set()
        self._drain.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hold the connection of one process until that process ends."""
        self._connections.add(writer)
        if self._drain.is_set():
            writer.write(DRAIN)
        with contextlib.suppress(OSError):
            await reader.read()
        self._connections.discard(writer)
        writer.close()


def supervise(command: Sequence[str], environment: Mapping[str, str], *, folder: Path, drain_s: float) -> int:
    """Run a server under a `Supervisor` in this process; return its exit status."""

    async def run() -> int:
        return await Supervisor(folder, drain_s).run(command, environment)

    return asyncio.run(run())


def is_supervised() -> bool:
    """Whether this process belongs to a server that has a supervisor."""
    return VARIABLE in os.environ


def follow_supervisor(on_drain: Callable[[], object] = lambda: None) -> None:
    """Call `on_drain` in a thread when the supervisor drains, and send SIGTERM to this process when it is gone.

    Without a supervisor nothing happens. Raises OSError for one that is gone already.
    """
    if not is_supervised():
        return
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(os.environ[VARIABLE])
    except OSError:
        connection.close()
        raise
    threading.Thread(target=_follow, args=(connection, on_drain), name="supervisor", daemon=True).start()


def _follow(connection: socket.socket, on_drain: Callable[[], object]) -> None:
    with connection, contextlib.suppress(ConnectionError):
        while connection.recv(len(DRAIN)):
            on_drain()
    # To the main thread: a signal that another thread takes does not wake it.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
