"""/thumbnails: items of the gallery -> small JPEGs of the files that are recorded for them, one or many at once."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from serve.http.batching.decoding import thumbnail_jpeg
from serve.http.errors import DeadlineError, RequestError
from serve.http.io.answers import json_response
from serve.http.io.schemas import ItemId, NoOptions, Whole
from serve.http.io.validation import Strict
from serve.http.middleware.context import RequestContext
from serve.http.routes.gallery.files import no_picture, read_picture
from serve.http.routes.gallery.item import find, item_id
from serve.http.routes.routing import Route
from serve.http.state import Runtime
from vssl.errors import ImageError

if TYPE_CHECKING:
    from index.gallery.protocol import Gallery

THUMBNAIL_SIDE = 192
LARGEST_SIDE = 1024
MOST = 100


class ThumbnailOptions(Strict):
    """How large a picture to show."""

    side: Annotated[int, Field(ge=16, le=LARGEST_SIDE), Whole] | None = Field(
        None, description="Pixels of its longer side at most; 192 when absent"
    )


class ThumbnailsRequest(Strict):
    """Items whose thumbnails are asked for together."""

    ids: list[ItemId] = Field(min_length=1, max_length=MOST)


class Thumbnail(TypedDict):
    """A JPEG as base64 text, or why there is none."""

    jpeg: str | None
    problem: str | None


class Thumbnails(TypedDict):
    """Thumbnails in the order asked for."""

    thumbnails: list[Thumbnail]


async def thumbnail(runtime: Runtime, context: RequestContext, query: ThumbnailOptions) -> Response:
    """Show a small JPEG of the file recorded for an item.

    Only files that the gallery names are read, below the folders that the server shows pictures of (--images);
    they are decoded like any upload, and only when the operator allows it (--show-images).
    """
    check_shown(runtime)
    wanted, side = item_id(context), query.side or THUMBNAIL_SIDE
    path = (await runtime.with_gallery(lambda gallery: find(gallery, wanted))).path
    body = await asyncio.to_thread(jpeg_of, runtime, wanted, path, side)
    return Response(body, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=300"})


async def thumbnails(runtime: Runtime, context: RequestContext, query: NoOptions) -> Response:
    """Show small JPEGs of up to 100 items in one answer: the fewer requests, the sooner a page of them stands."""
    check_shown(runtime)
    _ = runtime.gallery
    ids = (await runtime.bodies.json(context, ThumbnailsRequest)).ids

    def paths(gallery: Gallery) -> list[str | RequestError]:
        return [_path(gallery, id_) for id_ in ids]

    def draw(id_: str, path: str | RequestError) -> Thumbnail:
        try:
            if isinstance(path, RequestError):
                raise path
            body = jpeg_of(runtime, id_, path, THUMBNAIL_SIDE)
        except RequestError as error:
            return {"jpeg": None, "problem": str(error)}
        return {"jpeg": base64.b64encode(body).decode("ascii"), "problem": None}

    found = await runtime.with_gallery(paths)
    drawn = await asyncio.to_thread(lambda: [draw(*one) for one in zip(ids, found, strict=True)])
    body: Thumbnails = {"thumbnails": drawn}
    return json_response(body)


def check_shown(runtime: Runtime) -> None:
    """Raise RequestError 403 where the operator shows no pictures."""
    if not runtime.settings.show_images:
        raise RequestError(
            403, "images_hidden", "this server shows no images; start it with: vssl serve --show-images"
        )


def jpeg_of(runtime: Runtime, id_: str, path: str, side: int) -> bytes:
    """Return an item's file as a JPEG of at most so many pixels a side; the latest small ones are kept.

    Raises RequestError 404 for a file that is not there, not allowed, or no picture.
    """

    def draw() -> bytes:
        try:
            data = read_picture(id_, path, runtime.settings.picture_folders)
            seconds = runtime.settings.deadline_s
            return runtime.decoder.anywhere(thumbnail_jpeg, data, side, seconds=seconds)
        except ImageError as error:
            raise no_picture(id_, str(error)) from error
        except TimeoutError:
            raise DeadlineError(runtime.settings.deadline_s) from None

    if side != THUMBNAIL_SIDE:
        return draw()
    return runtime.thumbnails.made((path, _changed(path)), draw)


def _path(gallery: Gallery, id_: str) -> str | RequestError:
    try:
        return find(gallery, id_).path
    except RequestError as error:
        return error


def _changed(path: str) -> tuple[int, int] | None:
    """Return when a file was last changed, and its size; None for what is no file of its own."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size


ASKED = """curl -H 'Content-Type: application/json' -d '{"ids": ["cats/1.jpg"]}' $URL/thumbnails"""
ROUTES: list[Route[Any]] = [
    Route(
        "GET",
        "/thumbnails/{id:path}",
        thumbnail,
        ThumbnailOptions,
        "curl $URL/thumbnails/cats/1.jpg",
        media=("image/jpeg",),
        statuses=(403,),
    ),
    Route(
        "POST",
        "/thumbnails",
        thumbnails,
        NoOptions,
        ASKED,
        body=ThumbnailsRequest,
        answer=Thumbnails,
        statuses=(403, 404),
    ),
]
