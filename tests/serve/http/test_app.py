"""The application without a server in front: what it holds of a request, and when it reads it."""

from __future__ import annotations

import asyncio
import gc
import io
import signal
import tracemalloc
from pathlib import Path
from types import FrameType

import numpy as np
from PIL import Image
from starlette.types import Message, Scope

from serve.http.app import Application
from serve.http.settings import Settings
from tests.serve.http.conftest import World, encoded


class Posted:
    """One POST: whether its body was read, and what was answered."""

    def __init__(self, body: bytes, *headers: tuple[bytes, bytes], path: str = "/embed") -> None:
        self.body, self.headers, self.path, self.read = body, headers, path, False
        self.sent: list[Message] = []

    async def to(self, application: Application) -> int:
        """Send it; return the status."""
        length = b"%d" % len(self.body)
        scope: Scope = {
            "type": "http", "method": "POST", "path": self.path, "query_string": b"", "http_version": "1.1",
            "headers": [(b"host", b"x"), (b"content-length", length), *self.headers],
        }  # fmt: skip
        await application(scope, self._receive, self._send)
        return int(self.sent[0]["status"])

    async def _receive(self) -> Message:
        self.read = True
        own = bytes(bytearray(self.body))  # bytes that nobody but the application holds
        return {"type": "http.request", "body": own, "more_body": False}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)


def test_a_refused_image_is_let_go_of_with_its_answer(world: World) -> None:
    """The collector runs rarely, so no bytes may hang on the cycle of an error and its own frames."""
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    Image.fromarray(noise).save(sink := io.BytesIO(), "PNG")
    body = sink.getvalue()[:1_000_000]  # the rest is missing

    async def main() -> tuple[set[int], int]:
        application = Application()
        await application.start(Settings(str(world.model), threads=1))
        await Posted(body).to(application)
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            statuses = {await Posted(body).to(application) for _ in range(20)}
            return statuses, tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
            gc.enable()
            await application.stop()

    statuses, held = asyncio.run(main())
    assert statuses == {422}
    assert held < 2 * len(body)


def test_a_full_server_refuses_before_it_reads_the_body_and_asks_for_the_key_first(
    world: World, tmp_path: Path
) -> None:
    body, key = encoded(1, size=(640, 480)), (b"x-api-key", b"right")
    first, second, without_key = Posted(body, key), Posted(body, key), Posted(body)
    (tmp_path / "keys").write_text("right\n")
    settings = Settings(str(world.model), threads=1, max_queue=1, api_key_file=tmp_path / "keys")

    async def main() -> tuple[int, int, int]:
        application = Application()
        await application.start(settings)
        taken = asyncio.create_task(first.to(application))
        while not first.read:
            await asyncio.sleep(0)
        refused = await second.to(application), await without_key.to(application)
        statuses = await taken, *refused
        await application.stop()
        return statuses

    assert asyncio.run(main()) == (200, 429, 401)
    assert b"retry-after" in dict(second.sent[0]["headers"])
    assert (first.read, second.read) == (True, False)


def test_before_it_has_started_it_is_alive_and_not_ready() -> None:
    async def main() -> tuple[int, int]:
        application = Application()
        return await Posted(b"").to(application), await Posted(b"", path="/livez").to(application)

    assert asyncio.run(main()) == (503, 200)


def test_signals_are_left_alone(world: World) -> None:
    async def during() -> object:
        application = Application()
        await application.start(Settings(str(world.model), threads=1))
        try:
            return signal.getsignal(signal.SIGINT)
        finally:
            await application.stop()

    def before(kind: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    outside = signal.signal(signal.SIGINT, before)  # a shell's background jobs ignore it
    try:
        assert asyncio.run(during()) is before
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, outside)
