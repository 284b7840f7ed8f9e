"""Images or Gaussians -> a vssl server -> numpy: a client for programs, sync and async.

    with Client("http://127.0.0.1:3000") as client:
        embedded = client.embed(["a.jpg", array, picture])
        results = client.search(embedded.gaussians, k=5)

An image is a path, the bytes of a file, a uint8 array (H, W) or (H, W, 3), or a Pillow picture.
Answers 429 and 503 are tried again after the time that the server names.
`len` of what was embedded counts rows; `failures` lists the others.
Shape letters: M images embedded, D embedding dimension, K neighbours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from vssl.client.answers import (
    Found,
    Neighbour,
    ServerError,
    checked,
    embedded,
    found,
    parsed,
    wait_for,
)
from vssl.client.calls import (
    CHUNK,
    Call,
    Where,
    check_connection,
    chunks,
    embed_call,
    item_path,
    key_header,
    put_call,
    search_call,
)
from vssl.embeddings.batch import Embedded, Failed
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.images.image_like import ImageLike, image_bytes

__all__ = [
    "AsyncClient",
    "Client",
    "Embedded",
    "Failed",
    "Found",
    "ImageLike",
    "Neighbour",
    "ServerError",
    "Where",
    "image_bytes",
]


class Client:
    """Talks to one server; keeps its connections until closed."""

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout_s: float = 60, retries: int = 4
    ) -> None:
        """Connect lazily; `retries` is how often an answer 429 or 503 is tried again."""
        check_connection(url, timeout_s, retries)
        self._http = httpx.Client(base_url=url, headers=key_header(api_key), timeout=timeout_s)
        self._retries = retries

    def embed(self, images: Iterable[ImageLike]) -> Embedded:
        """Embed images in one request; bad ones are listed in `failures`."""
        call = embed_call(images)
        return embedded(self._send(call), call)

    def embed_folder(self, source: str | Path, *, chunk: int = CHUNK) -> Iterator[Embedded]:
        """Embed a folder (or any image source), `chunk` images a request, in order."""
        for names, data in chunks(source, chunk):
            call = embed_call(data, names)
            yield embedded(self._send(call), call)

    def search(
        self,
        queries: Iterable[ImageLike] | GaussianEmbedding | Embedded,
        *,
        k: int = 10,
        distance: str | None = None,
        max_uncertainty: float | None = None,
        where: Where | None = None,
        model_id: str | None = None,
    ) -> list[Found]:
        """Search with images, Gaussians or what was embedded; one answer a query, in order."""
        call = search_call(queries, k, distance, max_uncertainty, where, model_id)
        return found(self._send(call), call)

    def model(self) -> dict[str, Any]:
        """Return what GET /model answers: card, model id, limits."""
        return parsed(self._send(Call("GET", "/model", {})))

    def gallery(self) -> dict[str, Any]:
        """Return what GET /gallery answers."""
        return parsed(self._send(Call("GET", "/gallery", {})))

    def add(
        self,
        id: str,
        image: ImageLike,
        *,
        label: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        """Add or replace a gallery item, durably; returns whether it replaced one.

        metadata: texts, numbers, true, false or null by name, for `where`.
        """
        return bool(parsed(self._send(put_call(id, image, label, metadata)))["replaced"])

    def remove(self, id: str) -> None:
        """Remove a gallery item, durably; raises ServerError 404 for an unknown one."""
        checked(self._send(Call("DELETE", item_path(id), {})))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, call: Call) -> httpx.Response:
        for attempt in range(self._retries + 1):
            response = self._http.request(call.method, call.path, **call.options)
            wait = wait_for(response, attempt)
            if wait is None or attempt == self._retries:
                break
            time.sleep(wait)
        return response


class AsyncClient:
    """The same for asyncio."""

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout_s: float = 60, retries: int = 4
    ) -> None:
        """Connect lazily; `retries` is how often an answer 429 or 503 is tried again."""
        check_connection(url, timeout_s, retries)
        self._http = httpx.AsyncClient(base_url=url, headers=key_header(api_key), timeout=timeout_s)
        self._retries = retries

    async def embed(self, images: Iterable[ImageLike]) -> Embedded:
        """Embed images in one request; bad ones are listed in `failures`."""
        call = embed_call(images)
        return embedded(await self._send(call), call)

    async def embed_folder(
        self, source: str | Path, *, chunk: int = CHUNK, at_once: int = 4
    ) -> AsyncIterator[Embedded]:
        """Embed a folder, `chunk` images a request and `at_once` requests, answered in order."""
        running: list[tuple[asyncio.Task[httpx.Response], Call]] = []
        try:
            for names, data in chunks(source, chunk):
                call = embed_call(data, names)
                running.append((asyncio.create_task(self._send(call)), call))
                if len(running) == at_once:
                    task, call = running.pop(0)
                    yield embedded(await task, call)
            while running:
                task, call = running.pop(0)
                yield embedded(await task, call)
        finally:
            for task, _ in running:
                task.cancel()

    async def search(
        self,
        queries: Iterable[ImageLike] | GaussianEmbedding | Embedded,
        *,
        k: int = 10,
        distance: str | None = None,
        max_uncertainty: float | None = None,
        where: Where | None = None,
        model_id: str | None = None,
    ) -> list[Found]:
        """Search with images, Gaussians or what was embedded; one answer a query, in order."""
        call = search_call(queries, k, distance, max_uncertainty, where, model_id)
        return found(await self._send(call), call)

    async def model(self) -> dict[str, Any]:
        """Return what GET /model answers: card, model id, limits."""
        return parsed(await self._send(Call("GET", "/model", {})))

    async def gallery(self) -> dict[str, Any]:
        """Return what GET /gallery answers."""
        return parsed(await self._send(Call("GET", "/gallery", {})))

    async def add(
        self,
        id: str,
        image: ImageLike,
        *,
        label: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        """Add or replace a gallery item, durably; returns whether it replaced one.

        metadata: texts, numbers, true, false or null by name, for `where`.
        """
        return bool(parsed(await self._send(put_call(id, image, label, metadata)))["replaced"])

    async def remove(self, id: str) -> None:
        """Remove a gallery item, durably; raises ServerError 404 for an unknown one."""
        checked(await self._send(Call("DELETE", item_path(id), {})))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, call: Call) -> httpx.Response:
        for attempt in range(self._retries + 1):
            response = await self._http.request(call.method, call.path, **call.options)
            wait = wait_for(response, attempt)
            if wait is None or attempt == self._retries:
                break
            await asyncio.sleep(wait)
        return response
