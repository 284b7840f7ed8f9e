"""/columns and /items: all items of a gallery as columns to filter by, and the rows of them that are looked at.

A row is an item's place in every column of one generation of the gallery.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired

import numpy as np
from pydantic import BeforeValidator, Field, WithJsonSchema
from starlette.responses import Response
from typing_extensions import TypedDict

from serve.http.errors import RequestError
from serve.http.io.answers import json_response
from serve.http.io.schemas import ItemId, NoOptions, Scalar
from serve.http.io.validation import Strict
from serve.http.middleware.context import RequestContext
from serve.http.routes.routing import Route
from serve.http.state import Runtime

if TYPE_CHECKING:
    from index.answers.listing import Column, Listing
    from index.gallery.protocol import Gallery

MOST_ROWS = 1000
MAP_X, MAP_Y, MATCH_RISK = "map.x", "map.y", "match risk"
ROWS = re.compile(r"\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*")


def _rows(value: Any) -> Any:
    """Read `0-23,40`: row numbers, and ranges of them with both ends."""
    if not isinstance(value, str):
        return value
    if not ROWS.fullmatch(value):
        raise ValueError('expected row numbers and ranges of them, as in "0-23,40"')
    found: list[int] = []
    for part in value.split(","):
        first, _, last = part.partition("-")
        if last and int(last) < int(first):
            raise ValueError(f"found the range {part}, expected its lower end first")
        found += range(int(first), min(int(last or first) + 1, int(first) + MOST_ROWS - len(found)))
    return found


RowNumbers = Annotated[
    list[int],
    BeforeValidator(_rows),
    WithJsonSchema({"type": "string", "pattern": f"^{ROWS.pattern}$", "examples": ["0-23,40"]}),
]


class RowOptions(Strict):
    """Which rows of the gallery."""

    rows: RowNumbers = Field(
        default_factory=lambda: list(range(24)),
        description="Rows and ranges, the first 1000; 0-23 when absent",
    )
    generation: int | None = Field(None, description="Of the columns that the rows were found in", ge=0)


class ColumnField(TypedDict):
    """A column: numbers as float32, NaN for none; texts as uint16, 0 for none, else one more than their place."""

    name: str
    kind: Literal["number", "text"]
    values: NotRequired[list[str]]


class Columns(TypedDict):
    """The columns of a gallery's items."""

    generation: int
    items: int
    fields: list[ColumnField]


class ListedItem(TypedDict):
    """An item of the gallery, without its Gaussian."""

    row: int
    id: str
    label: str | None
    uncertainty: float | None
    metadata: dict[str, Scalar]


class Listed(TypedDict):
    """Rows of the gallery, in the order asked for; those beyond its end are left out."""

    generation: int
    items: list[ListedItem]


async def columns(runtime: Runtime, context: RequestContext, query: NoOptions) -> Response:
    """Name the columns that the gallery's items have, to browse and filter by."""
    from index.answers.listing import TextColumn

    def work(gallery: Gallery) -> Columns:
        fields: list[ColumnField] = []
        listing, found = all_columns(runtime, gallery)
        for name, column in found.items():
            if isinstance(column, TextColumn):
                fields.append({"name": name, "kind": "text", "values": column.values})
            else:
                fields.append({"name": name, "kind": "number"})
        return {"generation": listing.generation, "items": len(listing), "fields": fields}

    return json_response(await runtime.with_gallery(work))


async def column(runtime: Runtime, context: RequestContext, query: NoOptions) -> Response:
    """Read one column of all items: little-endian float32, or uint16 codes of texts.

    /columns says which, and what the codes mean.
    """
    from index.answers.listing import NumberColumn

    wanted: str = context.path_params["name"]

    def work(gallery: Gallery) -> tuple[bytes, int]:
        listing, there = all_columns(runtime, gallery)
        found = there.get(wanted)
        if found is None:
            known = ", ".join(there)
            raise RequestError(
                404, "not_found", f"found no column of that name; the columns are {known}", param="name"
            )
        if isinstance(found, NumberColumn):
            return np.ascontiguousarray(found.values, "<f4").tobytes(), listing.generation
        return np.ascontiguousarray(found.codes, "<u2").tobytes(), listing.generation

    body, generation = await runtime.with_gallery(work)
    headers = {"X-Gallery-Generation": str(generation), "Cache-Control": "no-store"}
    return Response(body, media_type="application/octet-stream", headers=headers)


class RowsRequest(Strict):
    """Items whose rows are asked for."""

    ids: list[ItemId] = Field(min_length=1, max_length=MOST_ROWS)


class FoundRows(TypedDict):
    """The row of each item, null for one that is not there."""

    generation: int
    rows: list[int | None]


async def rows(runtime: Runtime, context: RequestContext, query: NoOptions) -> Response:
    """Find the rows of items by id."""
    _ = runtime.gallery
    wanted = (await runtime.bodies.json(context, RowsRequest)).ids

    def work(listing: Listing) -> FoundRows:
        places = {id_: row for row, id_ in enumerate(listing.ids)}
        return {"generation": listing.generation, "rows": [places.get(id_) for id_ in wanted]}

    return json_response(await runtime.with_gallery(lambda gallery: work(gallery.listing())))


async def items(runtime: Runtime, context: RequestContext, query: RowOptions) -> Response:
    """Read some rows: id, label, uncertainty and metadata.

    With `generation`, rows of another one are refused: they may have moved.
    """

    def work(listing: Listing) -> Listed:
        check_generation(listing, query.generation)
        found: list[ListedItem] = [
            {
                "row": row,
                "id": listing.ids[row],
                "label": listing.labels[row],
                "uncertainty": listing.uncertainty_of(row),
                "metadata": listing.metadata.get(row, {}),
            }
            for row in query.rows
            if row < len(listing)
        ]
        return {"generation": listing.generation, "items": found}

    return json_response(await runtime.with_gallery(lambda gallery: work(gallery.listing())))


def all_columns(runtime: Runtime, gallery: Gallery) -> tuple[Listing, Mapping[str, Column]]:
    """Return the listing and its columns; with those of the map, where `vssl gallery map` made one."""
    from index.answers.listing import NumberColumn
    from index.curation.projection import FILE, place_items, read_map

    listing, file = gallery.listing(), Path(gallery.place) / FILE
    made = file.stat().st_mtime_ns if file.is_file() else None

    def with_places() -> Mapping[str, Column]:
        known = dict(listing.columns)
        found = read_map(Path(gallery.place)) if made is not None else None
        if found is not None:
            places, risk = place_items(gallery, found, listing.ids)
            extra = {MAP_X: places[:, 0], MAP_Y: places[:, 1], MATCH_RISK: risk}
            known |= {
                name: NumberColumn(values) for name, values in extra.items() if np.isfinite(values).any()
            }
        return known

    with runtime.mapped.lock:
        return listing, runtime.mapped.made((listing.generation, made), with_places)


def check_generation(listing: Listing, expected: int | None) -> None:
    """Raise RequestError 409 for rows of an earlier generation of the gallery."""
    if expected is not None and expected != listing.generation:
        raise RequestError(
            409,
            "gallery_changed",
            f"generation: found {expected}, the gallery is at {listing.generation}: read /columns again",
            param="generation",
        )


ROUTES: list[Route[Any]] = [
    Route("GET", "/columns", columns, NoOptions, "curl $URL/columns", answer=Columns, statuses=(404,)),
    Route(
        "GET",
        "/columns/{name}",
        column,
        NoOptions,
        "curl $URL/columns/uncertainty",
        media=("application/octet-stream",),
        statuses=(404,),
    ),
    Route(
        "POST",
        "/rows",
        rows,
        NoOptions,
        "curl -H 'Content-Type: application/json' -d '{\"ids\": [\"cats/1.jpg\"]}' $URL/rows",
        body=RowsRequest,
        answer=FoundRows,
        statuses=(404,),
    ),
    Route(
        "GET", "/items", items, RowOptions, "curl '$URL/items?rows=0-23'", answer=Listed, statuses=(404, 409)
    ),
]
