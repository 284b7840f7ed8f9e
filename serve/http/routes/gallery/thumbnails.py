"""/thumbnails: an item of the gallery -> a small JPEG of the file that is recorded for it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

from pydantic import Field
from starlette.responses import Response

from serve.http.errors import RequestError
from serve.http.io.schemas import Whole
from serve.http.io.validation import Strict
from serve.http.middleware.context import RequestContext
from serve.http.routes.gallery.item import find, item_id
from serve.http.routes.routing import Route
from serve.http.state import Runtime
from vssl.errors import ImageError, shown
from vssl.images.decode import decode
from vssl.images.readers.folders import open_file

THUMBNAIL_SIDE = 192
LARGEST_SIDE = 1024


class ThumbnailOptions(Strict):
    """How large a picture to show."""

    side: Annotated[int, Field(ge=16, le=LARGEST_SIDE), Whole] | None = Field(
        None, description="Pixels of its longer side at most; 192 when absent"
    )


async def thumbnail(runtime: Runtime, context: RequestContext, query: ThumbnailOptions) -> Response:
    """Show a small JPEG of the file recorded for an item.

    Only files that the gallery names are read, they are decoded like any upload, and only when the operator
    allows it (--show-images).
    """
    if not runtime.settings.show_images:
        raise RequestError(
            403, "images_hidden", "this server shows no images; start it with: vssl serve --show-images"
        )
    wanted = item_id(context)
    path = (await runtime.with_gallery(lambda gallery: find(gallery, wanted))).path
    limits, side = runtime.settings.limits, query.side or THUMBNAIL_SIDE

    def work() -> bytes:
        if side != THUMBNAIL_SIDE:
            return draw()
        key = path, _changed(path)
        known = runtime.thumbnails.get(key)
        if known is None:
            known = draw()
            runtime.thumbnails.keep(key, known)
        return known  # type: ignore[return-value]

    def draw() -> bytes:
        picture = decode(_file_of(wanted, path), limits, min_side=side)
        picture.thumbnail((side, side))
        sink = io.BytesIO()
        picture.save(sink, "JPEG", quality=85)
        return sink.getvalue()

    try:
        body = await runtime.in_thread(work)
    except ImageError as error:
        raise RequestError(
            404, "no_image", f"the file of {shown(wanted)} cannot be shown: {error}", param="id"
        ) from error
    return Response(body, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=300"})


def _changed(path: str) -> tuple[int, int] | None:
    """Return when a file was last changed, and its size; None for what is no file of its own."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _file_of(wanted: str, path: str) -> bytes:
    """Read the file that a gallery records for an item; raises RequestError 404 that says why there is none."""
    if not path:
        raise no_picture(wanted, "its picture was sent, and not kept")
    try:
        return open_file(Path(path)).read(0)
    except ImageError as error:
        if Path(path).is_absolute():
            raise no_picture(wanted, f"the file it was embedded from {error}") from None
        raise no_picture(
            wanted,
            f"the file {shown(path)}, looked for in the folder that the server was started in, {error}; start it "
            "where the images were extracted, or extract them again",
        ) from None


def no_picture(wanted: str, reason: str) -> RequestError:
    """Return the 404 of an item without a file to show."""
    return RequestError(404, "no_image", f"{shown(wanted)} cannot be shown: {reason}", param="id")


ROUTES = [
    Route(
        "GET",
        "/thumbnails/{id:path}",
        thumbnail,
        ThumbnailOptions,
        "curl $URL/thumbnails/cats/1.jpg",
        media=("image/jpeg",),
        statuses=(403,),
    ),
]
