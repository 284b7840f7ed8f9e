"""A refusal at the door and one by the application are the same answer."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from serve.http.errors import error_response
from serve.http.refusals import Refusals
from serve.http.settings import Settings
from serve.http.state import Runtime
from tests.serve.http.conftest import World, encoded
from tests.serve.running import Running, running

T = TypeVar("T")
LARGE = encoded(1, size=(640, 480))  # a thread decodes it: the loop goes on while it is pending
ID = (b"x-request-id", b"mine")


def when_full(settings: Settings, work: Callable[[Runtime, Refusals], T]) -> T:
    """Run `work` while as many images are pending as the server takes."""

    async def main() -> T:
        runtime = Runtime.start(settings)
        try:
            pending = asyncio.create_task(runtime.served.batcher.embed([LARGE]))
            await asyncio.sleep(0)
            found = work(runtime, Refusals(runtime))
            await pending
            return found
        finally:
            await asyncio.to_thread(runtime.stop)

    return asyncio.run(main())


@pytest.fixture
def narrow(world: World) -> Settings:
    return Settings(str(world.model), threads=1, max_queue=1)


def split(answer: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    return status, dict(line.split(b": ", 1) for line in lines), body  # type: ignore[arg-type]


@pytest.mark.parametrize("url", [b"/embed", b"/search?k=3", b"/v1/embeddings"])
def test_it_is_the_answer_of_the_application(narrow: Settings, url: bytes) -> None:
    def work(runtime: Runtime, refusals: Refusals) -> None:
        answer = refusals(b"POST", url, [ID], [(b"date", b"today")])
        busy = runtime.served.batcher.room.refusal(1)
        assert answer is not None
        assert busy is not None
        status, headers, body = split(answer)
        response = error_response(busy)
        assert status == b"HTTP/1.1 429 Too Many Requests"
        assert body == response.body
        assert json.loads(body)["error"]["code"] == "queue_full"
        assert dict(response.raw_headers).items() <= headers.items()
        assert headers[b"x-request-id"] == b"mine"
        assert headers[b"server-timing"].startswith(b"total;dur=")
        assert headers[b"date"] == b"today"
        route = url.partition(b"?")[0].decode()
        counted = runtime.metrics.snapshot()["numbers"]
        assert counted[f'vssl_requests_total/route="{route}",status="429"'] == 1

    when_full(narrow, work)


@pytest.mark.parametrize(
    ("method", "url"),
    [(b"GET", b"/embed"), (b"POST", b"/livez"), (b"POST", b"/embedded"), (b"PUT", b"/embed")],
)
def test_what_needs_no_room_is_not_refused(narrow: Settings, method: bytes, url: bytes) -> None:
    assert when_full(narrow, lambda _, refusals: refusals(method, url, [], [])) is None


def test_with_room_nobody_is_refused(world: World) -> None:
    def work(runtime: Runtime, refusals: Refusals) -> bytes | None:
        return refusals(b"POST", b"/embed", [], [])

    assert when_full(Settings(str(world.model), threads=1), work) is None


def test_only_who_has_a_key_hears_that_the_server_is_full(narrow: Settings, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("right\n")

    def work(runtime: Runtime, refusals: Refusals) -> list[bool]:
        keys = [
            [],
            [(b"x-api-key", b"wrong")],
            [(b"x-api-key", b"right")],
            [(b"authorization", b"Bearer right")],
        ]
        return [refusals(b"POST", b"/embed", headers, []) is not None for headers in keys]

    found = when_full(replace(narrow, api_key_file=tmp_path / "keys"), work)
    assert found == [False, False, True, True]  # the others get their 401 from the application


@pytest.mark.parametrize("options", [[], ["--log", "json"]], ids=["at the door", "by the application"])
def test_a_real_server_refuses_with_an_id_and_goes_on(
    world: World, tmp_path: Path, options: list[str]
) -> None:
    with running(
        ["--model", str(world.model), "--threads", "1", *options],
        tmp_path,
        environment={"VSSL_MAX_QUEUE": "1"},
    ) as server:
        refused = refusal_of(server)
        assert refused.json()["error"]["code"] == "queue_full"
        assert refused.headers["x-request-id"] == "mine"
        assert refused.headers["content-type"] == "application/json"
        assert int(refused.headers["retry-after"]) >= 1
        assert {"date", "server-timing", "content-length"} <= refused.headers.keys()
        counted = httpx.get(f"{server.url}/metrics").text
        assert 'vssl_requests_total{route="/embed",status="429"}' in counted
        assert httpx.post(f"{server.url}/embed", content=LARGE).status_code == 200


def refusal_of(server: Running) -> httpx.Response:
    """Post images side by side until one of them finds no room."""
    found: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client(base_url=server.url, headers={"X-Request-ID": "mine"}, timeout=20) as client:
            for _ in range(200):
                answer = client.post("/embed", content=LARGE)
                assert answer.status_code in (200, 429)
                if answer.status_code == 429:
                    found.append(answer)
                if found:
                    return

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return found[0]
