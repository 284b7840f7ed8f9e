"""Images or Gaussians -> a vssl server -> numpy: a client for programs, sync and async.

    with Client("http://127.0.0.1:3000") as client:
        embedded = client.embed(["a.jpg", array, picture])
        results = client.search(embedded.gaussians, k=5)

An image is a path, the bytes of a file, a uint8 array (H, W) or (H, W, 3), or a Pillow picture.
Answers 429 and 503 are tried again after the time that the server names.
Shape letters: N images, M those embedded, D embedding dimension, K neighbours.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from vssl.errors import ImageError, InputError, VsslError
from vssl.gaussian import GaussianEmbedding
from vssl.sources import open_source

ImageLike = str | Path | bytes | NDArray[np.uint8] | Image.Image
ARROW = "application/vnd.apache.arrow.stream"
LONGEST_WAIT_S = 30.0
CHUNK = 32
LONE_IMAGE = (400, 415, 422)


class ServerError(VsslError):
    """The server refused a request; carries its status, code and message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{message} (status {status}, {code})")
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Failed:
    """One image that was not embedded: its position in the request, name, error code and message."""

    position: int
    name: str
    code: str
    message: str


@dataclass(frozen=True, eq=False)
class Embedded:
    """N images' answers: `rows` (M,) says which of them the M `gaussians` belong to."""

    names: list[str]
    rows: NDArray[np.int64]
    gaussians: GaussianEmbedding
    failures: list[Failed]
    model_id: str

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Neighbour:
    """One result of a search, nearest first (see the server's /search)."""

    id: str
    label: str | None
    distance: float
    variance_score: float | None
    match_probability: float | None
    uncertainty: float | None = None


@dataclass(frozen=True)
class Found:
    """The answer to one query: its uncertainty and K neighbours, or the failure of its image.

    abstain: whether not to trust it; None where the server was given no --max-risk.
    """

    uncertainty: float | None
    neighbours: list[Neighbour]
    failure: Failed | None = None
    abstain: bool | None = None


@dataclass(frozen=True)
class _Call:
    """One HTTP request, ready to be sent by either client."""

    method: str
    path: str
    options: dict[str, Any]


class Client:
    """Talks to one server; keeps its connections until closed."""

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout_s: float = 60, retries: int = 4
    ) -> None:
        """Connect lazily; `retries` is how often an answer 429 or 503 is tried again."""
        self._http = httpx.Client(base_url=url, headers=_headers(api_key), timeout=timeout_s)
        self._retries = retries

    def embed(self, images: Sequence[ImageLike]) -> Embedded:
        """Embed images in one request; bad ones are told in `failures`."""
        call = _embed_call(images)
        return _embedded(self._send(call), call)

    def embed_folder(self, source: str | Path, *, chunk: int = CHUNK) -> Iterator[Embedded]:
        """Embed a folder (or any image source), `chunk` images a request, in order."""
        for names, data in _chunks(source, chunk):
            call = _embed_call(data, names)
            yield _embedded(self._send(call), call)

    def search(
        self,
        queries: Sequence[ImageLike] | GaussianEmbedding,
        *,
        k: int = 10,
        distance: str | None = None,
        max_uncertainty: float | None = None,
        where: Mapping[str, Any] | None = None,
        model_id: str | None = None,
    ) -> list[Found]:
        """Search with images or with Gaussians; one answer a query, in order."""
        call = _search_call(queries, k, distance, max_uncertainty, where, model_id)
        return _found(self._send(call))

    def model(self) -> dict[str, Any]:
        """Return what GET /model answers: card, model id, limits."""
        return _json(self._send(_Call("GET", "/model", {})))

    def gallery(self) -> dict[str, Any]:
        """Return what GET /gallery answers."""
        return _json(self._send(_Call("GET", "/gallery", {})))

    def add(self, id: str, image: ImageLike, *, label: str | None = None) -> bool:
        """Add or replace a gallery item, durably; returns whether it replaced one."""
        return bool(_json(self._send(_put_call(id, image, label)))["replaced"])

    def remove(self, id: str) -> None:
        """Remove a gallery item, durably; raises ServerError 404 for an unknown one."""
        _checked(self._send(_Call("DELETE", _item_path(id), {})))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, call: _Call) -> httpx.Response:
        for attempt in range(self._retries + 1):
            response = self._http.request(call.method, call.path, **call.options)
            wait = _wait(response, attempt)
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
        self._http = httpx.AsyncClient(base_url=url, headers=_headers(api_key), timeout=timeout_s)
        self._retries = retries

    async def embed(self, images: Sequence[ImageLike]) -> Embedded:
        """Embed images in one request; bad ones are told in `failures`."""
        call = _embed_call(images)
        return _embedded(await self._send(call), call)

    async def embed_folder(
        self, source: str | Path, *, chunk: int = CHUNK, at_once: int = 4
    ) -> AsyncIterator[Embedded]:
        """Embed a folder, `chunk` images a request and `at_once` requests, answered in order."""
        running: list[tuple[asyncio.Task[httpx.Response], _Call]] = []
        try:
            for names, data in _chunks(source, chunk):
                call = _embed_call(data, names)
                running.append((asyncio.create_task(self._send(call)), call))
                if len(running) == at_once:
                    task, call = running.pop(0)
                    yield _embedded(await task, call)
            while running:
                task, call = running.pop(0)
                yield _embedded(await task, call)
        finally:
            for task, _ in running:
                task.cancel()

    async def search(
        self,
        queries: Sequence[ImageLike] | GaussianEmbedding,
        *,
        k: int = 10,
        distance: str | None = None,
        max_uncertainty: float | None = None,
        where: Mapping[str, Any] | None = None,
        model_id: str | None = None,
    ) -> list[Found]:
        """Search with images or with Gaussians; one answer a query, in order."""
        call = _search_call(queries, k, distance, max_uncertainty, where, model_id)
        return _found(await self._send(call))

    async def model(self) -> dict[str, Any]:
        """Return what GET /model answers: card, model id, limits."""
        return _json(await self._send(_Call("GET", "/model", {})))

    async def gallery(self) -> dict[str, Any]:
        """Return what GET /gallery answers."""
        return _json(await self._send(_Call("GET", "/gallery", {})))

    async def add(self, id: str, image: ImageLike, *, label: str | None = None) -> bool:
        """Add or replace a gallery item, durably; returns whether it replaced one."""
        return bool(_json(await self._send(_put_call(id, image, label)))["replaced"])

    async def remove(self, id: str) -> None:
        """Remove a gallery item, durably; raises ServerError 404 for an unknown one."""
        _checked(await self._send(_Call("DELETE", _item_path(id), {})))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, call: _Call) -> httpx.Response:
        for attempt in range(self._retries + 1):
            response = await self._http.request(call.method, call.path, **call.options)
            wait = _wait(response, attempt)
            if wait is None or attempt == self._retries:
                break
            await asyncio.sleep(wait)
        return response


# --- what is sent --------------------------------------------------------------------------


def image_bytes(image: ImageLike) -> bytes:
    """Return an image as the bytes of a file; arrays and pictures become PNG, without loss.

    Raises InputError for a file that cannot be read or an array of another form.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        try:
            return Path(image).expanduser().read_bytes()
        except OSError as error:
            raise InputError(f"no image at {str(image)!r}: {error.strerror}") from error
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
            raise InputError(
                f"image: found {image.dtype} of shape {image.shape}, expected uint8 of (H, W) or (H, W, 3)"
            )
        image = Image.fromarray(image)
    sink = io.BytesIO()
    image.save(sink, "PNG", compress_level=1)
    return sink.getvalue()


def _headers(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"X-API-Key": api_key}


def _files(images: Sequence[ImageLike], names: Sequence[str] | None) -> list[tuple[str, tuple[str, bytes]]]:
    if not len(images):
        raise InputError("images: found none, expected at least one")
    known = names or [
        str(image) if isinstance(image, str | Path) else f"image-{n}" for n, image in enumerate(images)
    ]
    return [("images", (name, image_bytes(image))) for name, image in zip(known, images, strict=True)]


def _embed_call(images: Sequence[ImageLike], names: Sequence[str] | None = None) -> _Call:
    return _Call("POST", "/embed", {"files": _files(images, names), "headers": {"Accept": ARROW}})


def _search_call(
    queries: Sequence[ImageLike] | GaussianEmbedding,
    k: int,
    distance: str | None,
    max_uncertainty: float | None,
    where: Mapping[str, Any] | None,
    model_id: str | None,
) -> _Call:
    options: dict[str, Any] = {"k": k}
    options |= {} if distance is None else {"distance": distance}
    options |= {} if max_uncertainty is None else {"max_uncertainty": max_uncertainty}
    if isinstance(queries, GaussianEmbedding):
        body = {"mean": queries.mean.tolist(), "variance": queries.variance.tolist(), **options}
        body |= {} if where is None else {"filter": dict(where)}
        body |= {} if model_id is None else {"model_id": model_id}
        return _Call("POST", "/search", {"json": body})

    options |= {} if where is None else {"filter": json.dumps(dict(where))}
    return _Call("POST", "/search", {"files": _files(queries, None), "params": options})


def _put_call(id: str, image: ImageLike, label: str | None) -> _Call:
    params = {} if label is None else {"label": label}
    headers = {"Content-Type": "application/octet-stream"}
    return _Call("PUT", _item_path(id), {"content": image_bytes(image), "params": params, "headers": headers})


def _item_path(id: str) -> str:

    return f"/gallery/{quote(id, safe='/')}"


def _chunks(source: str | Path, size: int) -> Iterator[tuple[list[str], list[bytes]]]:
    opened = open_source(source)
    for start in range(0, len(opened.items), size):
        names, data = [], []
        for row in range(start, min(start + size, len(opened.items))):
            names.append(opened.items[row].id)
            try:
                data.append(opened.read(row))
            except ImageError:
                data.append(b"")  # the server answers for it as for any other bad image
        yield names, data


# --- what comes back -----------------------------------------------------------------------


def _wait(response: httpx.Response, attempt: int) -> float | None:
    """Return the seconds after which to try again, or None when there is an answer."""
    if response.status_code not in (429, 503):
        return None
    named = response.headers.get("retry-after", "")
    least = float(named) if named.isdecimal() else 0.5 * 2**attempt
    return min(LONGEST_WAIT_S, least) * (1 + 0.2 * random.random())  # not all clients at once


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    code, message = _error(response)
    raise ServerError(response.status_code, code, message)


def _error(response: httpx.Response) -> tuple[str, str]:
    try:
        error = response.json()["error"]
        return str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return "http_error", response.text[:200]


def _json(response: httpx.Response) -> dict[str, Any]:
    values: dict[str, Any] = _checked(response).json()
    return values


def _embedded(response: httpx.Response, call: _Call) -> Embedded:
    files = call.options["files"]
    if len(files) == 1 and response.status_code in LONE_IMAGE:
        # The server answers a lone bad image with its status; here it is a failure like any other.
        name, (code, message) = files[0][1][0], _error(response)
        nothing = np.empty((0, 0), np.float32)
        failed = Failed(0, name, code, message)
        return Embedded([name], np.empty(0, np.int64), GaussianEmbedding(nothing, nothing), [failed], "")
    _checked(response)
    table = pa.ipc.open_stream(response.content).read_all()
    names = [name or "" for name in table.column("name").to_pylist()]
    codes, messages = table.column("error_code").to_pylist(), table.column("error_message").to_pylist()
    good = np.array([code is None for code in codes], bool)

    def matrix(name: str) -> NDArray[np.float32]:
        column = table.column(name).combine_chunks().filter(pa.array(good))
        width = column.type.list_size
        return np.asarray(column.flatten(), np.float32).reshape(-1, width)

    failures = [Failed(n, names[n], code, messages[n]) for n, code in enumerate(codes) if code is not None]
    model_id = (table.schema.metadata or {}).get(b"vssl.model_id", b"").decode()
    gaussians = GaussianEmbedding(matrix("mean"), matrix("variance"))
    return Embedded(names, np.flatnonzero(good), gaussians, failures, model_id)


def _found(response: httpx.Response) -> list[Found]:
    found = []
    for position, result in enumerate(_json(response)["results"]):
        if "error" in result:
            error = result["error"]
            failure = Failed(position, result.get("query", ""), error["code"], error["message"])
            found.append(Found(None, [], failure))
        else:
            neighbours = [
                Neighbour(**{name: n.get(name) for name in Neighbour.__dataclass_fields__})
                for n in result["neighbours"]
            ]
            found.append(Found(result["uncertainty"], neighbours, abstain=result.get("abstain")))
    return found
