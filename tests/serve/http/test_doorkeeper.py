"""Who is turned away at the door, in a real uvicorn on a real socket: what they get, and what comes after them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from serve.http.door import Door

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uvloop")
NO = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\nno"
KEEP_ALIVE_S = 0.4
HEAD_S = 0.8


class House:
    """A server that refuses /full while `full`, and answers whatever it is asked with the body that it got."""

    def __init__(self, listening: socket.socket) -> None:
        self.full, self.seen = True, 0
        self.go_on = threading.Event()
        self.go_on.set()
        self.door = Door()
        self.server = uvicorn.Server(
            uvicorn.Config(self._answer, interface="asgi3", lifespan="on", loop="uvloop", log_config=None)
        )
        self._listening = listening
        self.address: tuple[str, int] = listening.getsockname()

    def refuse(self, method: bytes, url: bytes, headers: object, usual: object) -> bytes | None:
        return NO if self.full and url == b"/full" else None

    def run(self) -> None:
        self.server.run(sockets=[self._listening])

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            self.door.serve_with(self.server.config, KEEP_ALIVE_S, HEAD_S, self.refuse)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.seen += 1
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        while not self.go_on.is_set():
            await asyncio.sleep(0.01)
        head = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def house() -> Iterator[House]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        house = House(listening)
        thread = threading.Thread(target=house.run)
        thread.start()
        yield house
        house.go_on.set()
        house.server.should_exit = True
        thread.join()


@pytest.fixture
def client(house: House) -> Iterator[socket.socket]:
    with socket.create_connection(house.address, timeout=10) as client:
        yield client


def post(body: bytes, *more: str, path: str = "/full", version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*lines, "\r\n"]).encode() + body


def answers(client: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """Read so many answers."""
    found = []
    with client.makefile("rb") as stream:
        for _ in range(count):
            status, length = int(stream.readline().split()[1]), 0
            while (line := stream.readline().strip().lower()) != b"":
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            found.append((status, stream.read(length)))
    return found


def test_a_refusal_does_not_reach_the_application_and_the_connection_stays(
    house: House, client: socket.socket
) -> None:
    client.sendall(post(b"GET / HTTP/1.1\r\n\r\n"))  # a body that would do as a request
    assert answers(client, 1) == [(429, b"no")]
    assert house.seen == 0
    house.full = False
    client.sendall(post(b"taken"))
    assert answers(client, 1) == [(200, b"taken")]
    assert house.seen == 1
    house.full = True
    client.sendall(post(b"late"))
    assert answers(client, 1) == [(429, b"no")]


def test_the_refused_body_may_come_in_pieces_after_the_answer(house: House, client: socket.socket) -> None:
    data = post(b"x" * 300_000)
    client.sendall(data[:100])
    assert answers(client, 1) == [(429, b"no")]
    for at in range(100, len(data), 50_000):
        client.sendall(data[at : at + 50_000])
    client.sendall(post(b"other", path="/other"))
    assert answers(client, 1) == [(200, b"other")]


def test_a_chunked_body_is_dropped_too(house: House) -> None:
    with contextlib.closing(http.client.HTTPConnection(*house.address, timeout=10)) as connection:
        for path, status in (("/full", 429), ("/other", 200), ("/full", 429)):
            connection.request("POST", path, iter([b"ab", b"c"]), encode_chunked=True)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (status, b"no" if status == 429 else b"abc")


def test_requests_sent_together_are_answered_in_turn(house: House, client: socket.socket) -> None:
    house.go_on.clear()
    client.sendall(post(b"first", path="/other") + post(b"second") + post(b"third", path="/other"))
    house.go_on.set()
    found = answers(client, 3)
    assert [body for _, body in found] == [b"first", b"second", b"third"]  # it was not alone at the door
    client.sendall(post(b"1") + post(b"2"))
    assert answers(client, 2) == [(429, b"no")] * 2


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(b"x", "Connection: close"),
        post(b"x", "Connection: keep-alive", version="1.0"),
        post(b"x", "Expect: 100-continue"),
    ],
    ids=["closes", "HTTP/1.0", "asks first"],
)
def test_what_needs_more_than_bytes_goes_to_the_application(
    house: House, client: socket.socket, request_bytes: bytes
) -> None:
    client.sendall(request_bytes)
    client.settimeout(5)
    data = b""
    while not data.endswith(b"\r\n\r\nx") and (more := client.recv(1000)):
        data += more
    assert b" 200 " in data
    assert house.seen == 1


def test_while_it_closes_everyone_is_answered_by_the_application(house: House, client: socket.socket) -> None:
    house.door.closing = True
    client.sendall(post(b"last"))
    assert answers(client, 1) == [(200, b"last")]


@pytest.mark.parametrize("sent", [60, 10_000], ids=["its head alone", "some of its body"])
def test_who_was_refused_and_sends_no_more_is_let_go(house: House, client: socket.socket, sent: int) -> None:
    data = post(b"x" * 100_000)
    client.sendall(data[:sent])
    assert answers(client, 1) == [(429, b"no")]
    client.sendall(data[sent : sent + 10])
    client.settimeout(10 * KEEP_ALIVE_S)
    assert client.recv(100) == b""


def test_who_never_asks_is_let_go(client: socket.socket) -> None:
    client.settimeout(10 * KEEP_ALIVE_S)
    assert client.recv(100) == b""


@pytest.mark.parametrize("before", [0, 1], ids=["at first", "after an answer"])
def test_who_sends_a_head_byte_by_byte_is_told_that_it_took_too_long(
    house: House, client: socket.socket, before: int
) -> None:
    for _ in range(before):
        client.sendall(post(b"one", path="/other"))
        assert answers(client, 1) == [(200, b"one")]
    begun = time.monotonic()
    client.settimeout(0.05)
    found = b""
    for byte in post(b"two", path="/other" + "r" * 200):
        with contextlib.suppress(TimeoutError):
            found = client.recv(1000)
            break
        client.sendall(bytes([byte]))
    assert HEAD_S <= time.monotonic() - begun + 0.05 < 10 * HEAD_S
    assert found.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"connection: close" in found
    assert json.loads(found.partition(b"\r\n\r\n")[2])["error"]["code"] == "slow_head"
    client.settimeout(5)
    assert client.recv(100) == b""
    assert house.seen == before


def test_a_head_may_pause_longer_than_a_connection_may_idle(house: House, client: socket.socket) -> None:
    data = post(b"one", path="/other")
    client.sendall(data[:20])
    time.sleep(1.4 * KEEP_ALIVE_S)
    client.sendall(data[20:])
    assert answers(client, 1) == [(200, b"one")]


def test_an_answer_may_take_longer_than_a_connection_may_idle(house: House, client: socket.socket) -> None:
    house.go_on.clear()
    client.sendall(post(b"one", path="/other"))
    time.sleep(HEAD_S + KEEP_ALIVE_S)
    house.go_on.set()
    assert answers(client, 1) == [(200, b"one")]


def test_connections_built_otherwise_are_served_as_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("serve.http.doorkeeper.BUILT_ON", ("something_new",))

    async def main() -> bool:
        config = uvicorn.Config(lambda: None, http="httptools", log_config=None)
        config.load()
        usual = config.http_protocol_class
        Door().serve_with(config, KEEP_ALIVE_S, HEAD_S, None)
        return config.http_protocol_class is usual

    assert asyncio.run(main())
    assert "refusals cost more" in caplog.text


def test_the_server_runs_without_httptools() -> None:
    code = "import sys; sys.modules['httptools'] = None; import serve.http.app"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
