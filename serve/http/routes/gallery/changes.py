"""/removals, /restorations and /tags: changes of many items at once, on the disk when they are answered."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from serve.http.errors import RequestError
from serve.http.io.answers import json_response
from serve.http.io.schemas import ItemId, NoOptions
from serve.http.io.validation import Strict
from serve.http.middleware.context import RequestContext
from serve.http.routes.gallery.item import exists
from serve.http.routes.routing import Route
from serve.http.state import Runtime
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import InputError, shown

if TYPE_CHECKING:
    from index.answers.results import GalleryItem
    from index.gallery.protocol import Gallery

MOST = 1000
TAG = "tag."
"""A tag is metadata of this name and its own that is true, so that filters read it."""

Ids = Annotated[list[ItemId], Field(min_length=1, max_length=MOST)]


class RemovalRequest(Strict):
    """Items to remove."""

    ids: Ids


class RestorationRequest(Strict):
    """A removal to undo."""

    undo: str = Field(max_length=64)


class TagRequest(Strict):
    """Items that get a tag, or lose it."""

    ids: Ids
    tag: str = Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")
    present: bool | None = Field(None, description="false takes it from them; true when absent")


class Removal(TypedDict):
    """What was removed; `undo` puts it back, as long as the server runs and remembers its latest sixteen."""

    removed: int
    undo: str


class Changed(TypedDict):
    """How many items were changed."""

    changed: int


async def remove(runtime: Runtime, context: RequestContext, query: NoOptions) -> Response:
    """Remove several items, all or none; the answer says how to undo it."""
    _ = runtime.gallery
    wanted = (await runtime.bodies.json(context, RemovalRequest)).ids

    def work(gallery: Gallery) -> Removal:
        kept = found_items(gallery, wanted)
        gone = gallery.remove([item.id for item in kept])
        token = secrets.token_urlsafe(12)
        runtime.removed.keep(token, kept)
        return {"removed": gone, "undo": token}

    return json_response(await runtime.write_gallery(work))


async def restore(runtime: Runtime, context: RequestContext, query: NoOptions) -> Response:
    """Put back what a removal took, as it was."""
    _ = runtime.gallery
    token = (await runtime.bodies.json(context, RestorationRequest)).undo

    def work(gallery: Gallery) -> Changed:
        kept = runtime.removed.get(token)
        if kept is None:
            raise RequestError(
                404, "not_found", "this removal can no longer be undone: add the items again", param="undo"
            )
        again = [item.id for item in kept if exists(gallery, item.id)]
        if again:
            raise RequestError(
                409,
                "exists",
                f"undo: {len(again)} of {len(kept)} items are in the gallery again ({shown(again[0])} first); "
                "remove those, or leave all as it is",
                param="undo",
            )
        gallery.add(as_rows(kept), metadata=[item.metadata for item in kept])
        runtime.removed.forget(token)
        return {"changed": len(kept)}

    return json_response(await runtime.write_gallery(work))


async def tag(runtime: Runtime, context: RequestContext, query: NoOptions) -> Response:
    """Give several items a tag, or take it from them: metadata `tag.NAME` that is true."""
    _ = runtime.gallery
    body = await runtime.bodies.json(context, TagRequest)
    name, present = TAG + body.tag, body.present is not False

    def work(gallery: Gallery) -> Changed:
        items = [item for item in found_items(gallery, body.ids) if (name in item.metadata) != present]
        metadata = [
            {**item.metadata, name: True}
            if present
            else {k: v for k, v in item.metadata.items() if k != name}
            for item in items
        ]
        if items:
            gallery.add(as_rows(items), metadata=metadata, replace=True)
        return {"changed": len(items)}

    return json_response(await runtime.write_gallery(work))


def found_items(gallery: Gallery, ids: list[str]) -> list[GalleryItem]:
    """Return items by id; raises RequestError 404 for one that is not there."""
    try:
        return [gallery.get(id_) for id_ in dict.fromkeys(ids)]
    except InputError as error:
        raise RequestError(404, "not_found", str(error), param="ids") from None


def as_rows(items: list[GalleryItem]) -> Rows:
    """Return items as they were added."""
    gaussians = GaussianEmbedding.concatenate([item.gaussian for item in items])
    return Rows([i.id for i in items], [i.path for i in items], [i.label for i in items], gaussians)


def _route(path: str, handler: Any, body: type[Strict], answer: Any, example: str) -> Route[Any]:
    command = f"curl -H 'Content-Type: application/json' -d '{example}' $URL{path}"
    return Route("POST", path, handler, NoOptions, command, body=body, answer=answer, statuses=(404, 409))


ROUTES: list[Route[Any]] = [
    _route("/removals", remove, RemovalRequest, Removal, '{"ids": ["cats/1.jpg"]}'),
    _route("/restorations", restore, RestorationRequest, Changed, '{"undo": "TOKEN"}'),
    _route("/tags", tag, TagRequest, Changed, '{"ids": ["cats/1.jpg"], "tag": "check"}'),
]
