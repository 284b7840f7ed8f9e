"""/gallery: describe the gallery, read, add, replace and remove its items.

An answer to a write means that it is on the disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.responses import Response
from typing_extensions import TypedDict

from serve.http.errors import RequestError, invalid
from serve.http.io.answers import base64_floats, json_response
from serve.http.io.schemas import (
    MAX_ID,
    EncodingOptions,
    Item,
    NoOptions,
    PutOptions,
    PutRequest,
    Scalar,
)
from serve.http.middleware.context import RequestContext
from serve.http.routes.embed import embed_images, raise_single, read_images
from serve.http.routes.routing import Route
from serve.http.state import Runtime
from vssl.embeddings.store import Rows
from vssl.errors import InputError, shown

if TYPE_CHECKING:
    from index.answers.results import GalleryItem
    from index.gallery.protocol import Gallery


class Written(TypedDict):
    """What was added, or replaced what was there."""

    id: str
    label: str | None
    metadata: dict[str, Scalar]
    uncertainty: float
    replaced: bool


class Removed(TypedDict):
    """What was removed."""

    id: str
    removed: bool


async def describe_gallery(runtime: Runtime, context: RequestContext, query: NoOptions) -> Response:
    """Describe the gallery: size, distance, model id, whether it can be changed here and has a map."""
    from index.curation.projection import FILE

    facts = await runtime.with_gallery(lambda gallery: gallery.info()) | {"writable": runtime.writable}
    facts["map"] = (Path(runtime.gallery.place) / FILE).is_file()
    return json_response({name: fact for name, fact in facts.items() if name != "path"})


async def read_item(runtime: Runtime, context: RequestContext, query: EncodingOptions) -> Response:
    """Read an item: its label, Gaussian and metadata."""
    wanted = item_id(context)
    encode = base64_floats if query.encoding_format == "base64" else np.asarray
    item = await runtime.with_gallery(lambda gallery: find(gallery, wanted))
    body: Item = {
        "id": item.id,
        "label": item.label,
        "model_id": runtime.gallery.model_id,
        "mean": encode(item.mean),
        "variance": None if item.variance is None else encode(item.variance),
        "uncertainty": item.uncertainty,
        "metadata": item.metadata,
    }
    return json_response(body)


async def put_item(runtime: Runtime, context: RequestContext, query: PutOptions) -> Response:
    """Add or replace an item.

    Embeds the image of the body. The answer means that it is on the disk.
    """
    wanted = item_id(context)
    _ = runtime.gallery
    images = await read_images(runtime, context, PutOptions, PutRequest)
    if not images.single:
        raise invalid(f"images: found {len(images.data)}, expected one", "images")
    options = query.merged(images.options)
    served = runtime.gallery_model if options.model is None else runtime.models.find(options.model)
    model_id, metadata = served.engine.model_id, options.metadata or {}
    answers = await embed_images(runtime, served, context, images.data)
    raise_single(images, answers)
    rows = Rows([wanted], [""], [options.label], answers.gaussians)

    def write(gallery: Gallery) -> bool:
        existed = exists(gallery, wanted)
        gallery.add(rows, replace=True, metadata=[metadata], model_id=model_id)
        return existed

    replaced = await runtime.write_gallery(write)
    body: Written = {
        "id": wanted,
        "label": options.label,
        "metadata": metadata,
        "uncertainty": float(answers.uncertainty[0]),
        "replaced": replaced,
    }
    return json_response(body, 200 if replaced else 201)


async def delete_item(runtime: Runtime, context: RequestContext, query: NoOptions) -> Response:
    """Remove an item: the answer means that it is gone from the disk."""
    wanted = item_id(context)

    def work(gallery: Gallery) -> None:
        if not gallery.remove([wanted]):
            raise absent(wanted)

    await runtime.write_gallery(work)
    body: Removed = {"id": wanted, "removed": True}
    return json_response(body)


ITEM = "/gallery/{id:path}"
ROUTES: list[Route[Any]] = [
    Route(
        "GET",
        "/gallery",
        describe_gallery,
        NoOptions,
        "curl $URL/gallery",
        answer=dict[str, Any],
        statuses=(404,),
    ),
    Route("GET", ITEM, read_item, EncodingOptions, "curl $URL/gallery/cats/1.jpg", answer=Item),
    Route(
        "PUT",
        ITEM,
        put_item,
        PutOptions,
        "curl -X PUT --data-binary @photo.jpg '$URL/gallery/cats/1.jpg?label=cat'",
        body=PutRequest,
        takes_images=True,
        answer=Written,
        statuses=(409,),
        creates=True,
    ),
    Route(
        "DELETE",
        ITEM,
        delete_item,
        NoOptions,
        "curl -X DELETE $URL/gallery/cats/1.jpg",
        answer=Removed,
        statuses=(409,),
    ),
]


def item_id(context: RequestContext) -> str:
    """Return the id in the path; raises RequestError 400 for one that is empty or too long."""
    found: str = context.path_params["id"]
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
    return RequestError(404, "not_found", f"the gallery holds no item {shown(wanted)}", param="id")
