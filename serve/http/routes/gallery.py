"""/gallery and /thumbnails: describe the gallery, read, add, replace and remove its items.

An answer to a write means that it is on the disk.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.responses import Response

from serve.http.errors import RequestError, invalid
from serve.http.io.answers import base64_floats, encoding_of, json_response
from serve.http.middleware.context import RequestContext
from serve.http.routes.embed import embed_images, options_of, read_images
from serve.http.state import Runtime
from serve.inference.engine import EmbeddedImage
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import ImageError, InputError
from vssl.images.decode import decode

if TYPE_CHECKING:
    from index.answers.results import GalleryItem
    from index.gallery.protocol import Gallery

THUMBNAIL_SIDE = 192
MAX_ID = 1024


async def describe_gallery(runtime: Runtime, context: RequestContext) -> Response:
    """Answer GET /gallery."""
    return json_response(await runtime.with_gallery(lambda gallery: gallery.info()))


async def read_item(runtime: Runtime, context: RequestContext) -> Response:
    """Answer GET /gallery/{id}: label, mean, variance, uncertainty."""
    wanted = item_id(context)
    encode = base64_floats if encoding_of(dict(context.request.query_params)) == "base64" else np.asarray
    item = await runtime.with_gallery(lambda gallery: find(gallery, wanted))
    return json_response(
        {
            "id": item.id,
            "label": item.label,
            "model_id": runtime.gallery.model_id,
            "mean": encode(item.mean),
            "variance": encode(item.variance),
            "uncertainty": item.uncertainty,
            "metadata": item.metadata,
        }
    )


async def put_item(runtime: Runtime, context: RequestContext) -> Response:
    """Answer PUT /gallery/{id}: embed the image of the body and add it, or replace what was there."""
    wanted = item_id(context)
    _ = runtime.gallery
    images = await read_images(runtime, context)
    if not images.single:
        raise invalid(f"found {len(images.data)} images, expected one", "images")
    label = label_of(options_of(context, images.options, label_of))
    served = runtime.searched
    model_id = served.engine.model_id
    answer = (await embed_images(runtime, served, context, images))[0]
    if not isinstance(answer, EmbeddedImage):
        raise answer
    gaussian = GaussianEmbedding(answer.mean[None], answer.variance[None])
    rows = Rows([wanted], [""], [label], gaussian)

    def write(gallery: Gallery) -> bool:
        existed = exists(gallery, wanted)
        gallery.add(rows, replace=True, model_id=model_id)
        return existed

    replaced = await runtime.write_gallery(write)
    body: dict[str, Any] = {
        "id": wanted,
        "label": label,
        "uncertainty": answer.uncertainty,
        "replaced": replaced,
    }
    return json_response(body, 200 if replaced else 201)


async def delete_item(runtime: Runtime, context: RequestContext) -> Response:
    """Answer DELETE /gallery/{id}."""
    wanted = item_id(context)

    def work(gallery: Gallery) -> None:
        if not gallery.remove([wanted]):
            raise absent(wanted)

    await runtime.write_gallery(work)
    return json_response({"id": wanted, "removed": True})


async def thumbnail(runtime: Runtime, context: RequestContext) -> Response:
    """Answer GET /thumbnails/{id}: a small JPEG of the file recorded for an item.

    Only files that the gallery names are read, they are decoded like any upload, and only
    when the operator has allowed it.
    """
    if not runtime.settings.show_images:
        raise RequestError(
            403, "images_hidden", "this server shows no images; start it with: vssl serve --show-images"
        )
    wanted = item_id(context)
    path = (await runtime.with_gallery(lambda gallery: find(gallery, wanted))).path
    limits = runtime.settings.limits

    def work() -> bytes:
        try:
            data = Path(path).read_bytes() if path else b""
        except OSError:
            data = b""
        picture = decode(data, limits, min_side=THUMBNAIL_SIDE)
        picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        sink = io.BytesIO()
        picture.save(sink, "JPEG", quality=85)
        return sink.getvalue()

    try:
        body = await runtime.in_thread(work)
    except ImageError as error:
        raise RequestError(404, "no_image", f"the file of {wanted!r} cannot be shown: {error}") from error
    return Response(body, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=300"})


def label_of(options: dict[str, Any]) -> str | None:
    """Return the label of an item; raises RequestError 400 for one that is no text."""
    label = options.get("label")
    if label is not None and not isinstance(label, str):
        raise invalid(f"label: found {label!r}, expected text", "label")
    return label


def item_id(context: RequestContext) -> str:
    """Return the id in the path; raises RequestError 400 for one that is empty or too long."""
    found: str = context.request.path_params["id"]
    if not 1 <= len(found) <= MAX_ID or "\x00" in found:
        raise invalid(f"id: expected 1 to {MAX_ID} characters", "id")
    return found


def exists(gallery: Gallery, wanted: str) -> bool:
    """Tell whether the gallery holds an item."""
    try:
        gallery.get(wanted)
    except InputError:
        return False
    return True


def find(gallery: Gallery, wanted: str) -> GalleryItem:
    """Return an item; raises RequestError 404 for an unknown id."""
    try:
        return gallery.get(wanted)
    except InputError:
        raise absent(wanted) from None


def absent(wanted: str) -> RequestError:
    """Return the 404 of an unknown id."""
    return RequestError(404, "not_found", f"the gallery holds no item {wanted!r}", param="id")
