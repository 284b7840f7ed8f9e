"""The door of a worker, in a real uvicorn on a real socket: who comes in when, who may stay, who is told to go."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from serve.http.door import Door
from tests.serve.http.conftest import World, encoded
from tests.serve.running import running, workers_of

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uvloop and signals")


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        yield listening


def serve(listening: socket.socket, answer: Callable[[], None], keep_alive_s: float = 60) -> None:
    """Run uvicorn with a door until `answer`, called for each request, raises SystemExit; turns take 5 ms."""
    door = Door()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            door.open(keep_alive_s, 60)
            asyncio.get_running_loop().call_soon(turn)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            door.forget()
            await send({"type": "lifespan.shutdown.complete"})
            return
        try:
            answer()
        except SystemExit:
            server.should_exit = True
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    def turn() -> None:
        TURNS.append(None)
        time.sleep(0.005)
        if not server.should_exit:
            asyncio.get_running_loop().call_soon(turn)

    TURNS.clear()
    server = uvicorn.Server(uvicorn.Config(application, loop="uvloop", log_config=None))
    server.run(sockets=[listening])


TURNS: list[None] = []


def test_all_who_wait_are_let_in_together(listening: socket.socket) -> None:
    clients = [socket.create_connection(listening.getsockname()) for _ in range(60)]
    for client in clients:
        client.sendall(REQUEST)
    seen: list[int] = []

    def answer() -> None:
        seen.append(len(TURNS))
        if len(seen) == len(clients):
            raise SystemExit

    serve(listening, answer)
    for client in clients:
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        client.close()
    assert seen[-1] - seen[0] < 30  # one a turn would take sixty


def test_a_worker_that_ends_alone_takes_nobody_along(world: World, tmp_path: Path) -> None:
    options = ["--model", str(world.model), "--workers", "2", "--threads", "1"]
    with running(options, tmp_path) as server:
        worker = workers_of(server, 2)[0]
        time.sleep(2)  # both are listening by now
        stop, lost, answered = threading.Event(), [], []

        def ask() -> None:
            connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
            while not stop.is_set():
                try:
                    connection.request("POST", "/embed", encoded(1))
                    answer = connection.getresponse()
                    answer.read()
                    answered.append(answer.status)
                except (OSError, http.client.HTTPException) as error:
                    lost.append(error)
                    connection.close()
            connection.close()

        clients = [threading.Thread(target=ask) for _ in range(8)]
        for client in clients:
            client.start()
        time.sleep(0.5)
        os.kill(worker.pid, signal.SIGTERM)
        time.sleep(2)
        assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
        stop.set()
        for client in clients:
            client.join()
    assert not lost
    assert set(answered) == {200}


def test_an_idle_connection_stays_as_long_as_the_settings_say(world: World, tmp_path: Path) -> None:
    environment = {"VSSL_KEEP_ALIVE_S": "1"}
    with running(["--model", str(world.model)], tmp_path, environment=environment) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as client:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
            begun = time.monotonic()
            assert client.recv(4096) == b""
            assert 0.5 < time.monotonic() - begun < 4
