"""A request's body -> its images as bytes, in whichever of three forms it came.

A raw image (any content type, or none), multipart/form-data with `images` (repeatable), or
JSON {"images": [{"base64": ...}]}, where {"url": "data:..."} may stand too; JSON is known by its first byte
as well. Bytes and items are counted while they arrive; what is wrong with one image of several stays with that image.
"""

from __future__ import annotations

import asyncio
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, RootModel
from starlette.requests import ClientDisconnect

from serve.http.errors import BusyError, RequestError, invalid
from serve.http.io.base64 import decode_base64, located, transferred
from serve.http.io.multipart import MAX_FIELD_BYTES, Part, read_parts
from serve.http.io.schemas import ImageItem, WithImages
from serve.http.io.validation import Strict, from_json, from_text
from serve.http.middleware.context import RequestContext
from serve.http.settings import Settings
from vssl.errors import VsslError, shown

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
LARGE = 256 * 1024  # bytes of a body that is looked through aside of the event loop
MAX_DIGITS = 19  # of a length that is taken for a number


@dataclass(frozen=True)
class Images:
    """Images of one request: `data` holds bytes, or the error of an item; names to tell them apart.

    single: the request could hold one image only, or held one: its error is the request's.
    options: what else the body said; None for a body that is an image.
    """

    data: list[bytes | VsslError]
    names: list[str | None]
    options: Strict | None

    @property
    def single(self) -> bool:
        """Whether there is exactly one image."""
        return len(self.data) == 1


class BodyReader:
    """Reads bodies within the settings' bounds and keeps count of the bytes held."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.held = 0
        # One at a time: whoever waits for the interpreter waits for one body, not for all.
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="bodies")

    async def read(self, context: RequestContext) -> bytes:
        """Read the whole body.

        Raises RequestError 413 for too many bytes, 408 for a client that takes too long, 429
        when the bodies held would exceed their bound. What is held is let go of by `release`.
        """
        limit, most = self._settings.max_body_bytes, self._settings.max_held_bytes
        headers = context.headers
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise RequestError(
                415, "unsupported_encoding", "content-encoding: expected none; send the bytes as they are"
            )
        declared = headers.get(b"content-length", b"")
        if declared.isdigit():
            if len(declared) > MAX_DIGITS or int(declared) > limit:
                raise too_large(declared[:MAX_DIGITS].decode(), limit)
            if self.held and self.held + int(declared) > most:
                raise BusyError("too many bytes of other requests are held in memory", 1)
        chunks: list[bytes] = []
        more = True
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                while more:
                    message = await context.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    chunks.append(message.get("body", b""))
                    more = message.get("more_body", False)
                    self._hold(context, len(chunks[-1]))
        except TimeoutError:
            raise RequestError(
                408, "slow_body", f"the body did not arrive within {self._settings.body_timeout_s:g} s"
            ) from None
        context.body_read = True
        return chunks[0] if len(chunks) == 1 else await self.aside(context.held_bytes, b"".join, chunks)

    def _hold(self, context: RequestContext, count: int) -> None:
        """Count bytes that have arrived; raises RequestError 413 and BusyError beyond the bounds."""
        limit, most = self._settings.max_body_bytes, self._settings.max_held_bytes
        self.held += count
        context.held_bytes = size = context.held_bytes + count
        if size > limit:
            raise too_large(size, limit)
        if self.held > most and self.held > size:
            raise BusyError("too many bytes of other requests are held in memory", 1)

    def close(self) -> None:
        """End the thread that large bodies are read in."""
        self._aside.shutdown()

    async def aside(self, size: int, work: Callable[..., T], *arguments: Any) -> T:
        """Run what looks at each byte of a body: in a thread where `size`, its bytes, is large."""
        if size < LARGE:
            return work(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._aside, work, *arguments)

    async def json(self, context: RequestContext, model: type[M]) -> M:
        """Read a JSON body; raises RequestError as `read` and `from_json` do."""
        data = await self.read(context)
        return await self.aside(len(data), from_json, model, data)

    def release(self, context: RequestContext) -> None:
        """Let go of a request's body once the request is answered."""
        self.held -= context.held_bytes

    async def images(self, context: RequestContext, options: type[Strict], body: type[BaseModel]) -> Images:
        """Read a request's images, in whichever form they come; none where the JSON body is of a type without them.

        options: fields that a form may hold besides the images. body: the JSON body.
        Raises RequestError when there are none, too many, or something that does not fit.
        """
        kind = media_type(context)
        if kind == "multipart/form-data":
            return await self._multipart(context, options)
        data = await self.read(context)
        if kind == "application/json" or is_json(data):
            found = await self.aside(len(data), from_json, body, data)
            return await self._images_of(context, found.root if isinstance(found, RootModel) else found)
        return Images([data], [None], None)

    async def _images_of(self, context: RequestContext, body: Any) -> Images:
        """Take the images out of a JSON body; raises RequestError where there are too many."""
        items = body.images if isinstance(body, WithImages) else []
        if len(items) > self._settings.max_items:
            raise too_many(self._settings.max_items, len(items))
        data = await self.aside(context.held_bytes, _decoded, items)
        return Images(data, [item.name for item in items], body)

    async def _multipart(self, context: RequestContext, options: type[Strict]) -> Images:
        body = await self.read(context)  # counted and bounded before anything is parsed
        most = self._settings.max_items
        content_type = context.headers.get(b"content-type", b"")
        return await self.aside(len(body), _form, body, content_type, most, options)


def _form(body: bytes, content_type: bytes, most: int, options: type[Strict]) -> Images:
    data: list[bytes | VsslError] = []
    names: list[str | None] = []
    fields: list[tuple[str, str]] = []
    for part in read_parts(body, content_type, most=most, too_many=too_many(most)):
        if part.is_file and part.name not in options.model_fields:
            data.append(transferred(part))
            names.append(part.filename or None)
        elif len(part.data) > MAX_FIELD_BYTES:
            raise invalid(
                f"{shown(part.name)}: found {len(part.data)} bytes, expected a field of at most {MAX_FIELD_BYTES}"
            )
        else:
            fields.append((part.name, _text(part)))
    if not data:
        raise invalid("multipart body: found no files, expected one or more parts named images", "images")
    return Images(data, names, from_text(options, fields))


def _text(part: Part) -> str:
    """Return the text of a form's field; raises RequestError 400 for what is none."""
    data = transferred(part)
    if isinstance(data, VsslError):
        raise invalid(f"{shown(part.name)}: {data}", part.name)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise invalid(
            f"{shown(part.name)}: found bytes that are not UTF-8, expected a text in UTF-8", part.name
        ) from None


def _decoded(items: Sequence[ImageItem]) -> list[bytes | VsslError]:
    return [
        decode_base64(item.base64) if item.base64 is not None else located(item.url or "") for item in items
    ]


def media_type(context: RequestContext) -> str:
    """Return the content type without parameters, lower case."""
    header = context.headers.get(b"content-type", b"")
    return header.partition(b";")[0].strip().lower().decode("latin-1")


def is_json(body: bytes) -> bool:
    """Whether a body is a JSON object, whatever its Content-Type says: no image begins as one does."""
    return body[:64].removeprefix(BOM_UTF8).lstrip()[:1] == b"{"


def too_large(found: int | str, limit: int) -> RequestError:
    """Return the 413 of a body beyond the limit."""
    return RequestError(413, "too_many_bytes", f"found {found} bytes, expected a body of at most {limit}")


def too_many(limit: int, found: int | None = None) -> RequestError:
    """Return the 400 of a request with too many images."""
    text = f"found {found} images" if found is not None else "found more"
    return RequestError(
        400, "too_many_items", f"{text}, expected at most {limit} in one request", param="images"
    )
