"""Images given as URLs to the application: fetched, embedded and searched beside others, or refused one by one."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

import httpx
import pytest

from serve.http.app import Application
from serve.http.io.fetch import Fetcher
from serve.http.settings import Settings
from tests.serve.http.conftest import World, encoded
from tests.serve.http.https_site import Site, fetcher


class TestThroughTheServer:
    """The application in this process, with a fetcher that may go to loopback."""

    @staticmethod
    def ask(
        world: World, made: Callable[[], Fetcher] | None, work: Callable[[httpx.AsyncClient], Awaitable[Any]]
    ) -> Any:
        async def main() -> Any:
            application = Application()
            settings = Settings(
                model=str(world.model), gallery=world.gallery, workers=2, max_body_bytes=250_000
            )
            await application.start(settings, made() if made else None)
            try:
                transport = httpx.ASGITransport(app=application)
                async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                    return await work(client)
            finally:
                await application.stop()

        return asyncio.run(main())

    def test_signals_are_left_alone(self, world: World) -> None:
        async def during(_: httpx.AsyncClient) -> Any:
            return signal.getsignal(signal.SIGINT)

        def before(kind: int, frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        outside = signal.signal(signal.SIGINT, before)  # a shell's background jobs ignore it
        try:
            assert self.ask(world, None, during) is before
            assert signal.getsignal(signal.SIGINT) is before
        finally:
            signal.signal(signal.SIGINT, outside)

    def test_embed_mixes_urls_and_bytes(self, world: World, site: Site, trusting: ssl.SSLContext) -> None:
        base = f"https://localhost:{site.port}"
        items = [
            {"url": f"{base}/image/1", "name": "one"},
            {"url": f"{base}/absent"},
            {"url": f"{base}/page"},
        ]
        answer = self.ask(
            world,
            lambda: fetcher(site, trusting),
            lambda client: client.post("/embed", json={"images": items}),
        )
        assert answer.status_code == 200
        first, second, third = answer.json()["results"]
        assert first["name"] == "one"
        assert first["mean"] == pytest.approx(world.expected(encoded(1))[0], abs=1e-6)
        assert second["error"]["code"] == "url_status"
        assert third["error"]["code"] == "unsupported_type"

    def test_a_lone_image_answers_its_own_status(
        self, world: World, site: Site, trusting: ssl.SSLContext
    ) -> None:
        base = f"https://localhost:{site.port}"
        answer = self.ask(
            world,
            lambda: fetcher(site, trusting),
            lambda client: client.post("/embed", json={"images": [{"url": f"{base}/absent"}]}),
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "url_status")

    def test_search_and_the_openai_dialect_take_them_too(
        self, world: World, site: Site, trusting: ssl.SSLContext
    ) -> None:
        url = f"https://localhost:{site.port}/image/4"

        async def work(client: httpx.AsyncClient) -> tuple[Any, Any]:
            found = await client.post("/search", json={"images": [{"url": url}], "k": 1})
            item = {"type": "image_url", "image_url": {"url": url}}
            return found.json(), (await client.post("/v1/embeddings", json={"input": [item, url]})).json()

        found, embedded = self.ask(world, lambda: fetcher(site, trusting), work)
        assert found["results"][0]["neighbours"][0]["id"] == "set/4.png"
        for row in embedded["data"]:
            assert row["embedding"] == pytest.approx(world.expected(encoded(4))[0], abs=1e-6)

    def test_what_is_fetched_counts_as_the_requests_bytes(
        self, world: World, site: Site, trusting: ssl.SSLContext
    ) -> None:
        base = f"https://localhost:{site.port}"
        site.pages.answer_large = lambda self, _: self._send(200, b"x" * 90_000)  # type: ignore[attr-defined]
        items = [{"url": f"{base}/large"}] * 6
        answer = self.ask(
            world,
            lambda: fetcher(site, trusting),
            lambda client: client.post("/embed", json={"images": items}),
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_bytes")

    def test_without_hosts_nothing_is_fetched(self, world: World, site: Site) -> None:
        before = len(site.pages.seen)
        items = [{"url": f"https://localhost:{site.port}/image/1"}, {"url": "data:image/png;base64,eA=="}]
        answer = self.ask(world, None, lambda client: client.post("/embed", json={"images": items}))
        first, second = answer.json()["results"]
        assert first["error"]["code"] == "url_not_allowed"
        assert "fetches no URLs" in first["error"]["message"]
        assert second["error"]["code"] == "unsupported_type"
        assert len(site.pages.seen) == before
