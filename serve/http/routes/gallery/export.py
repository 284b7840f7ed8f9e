"""/exports: a selection of items -> CSV, JSON, or a list file that `vssl extract` and `vssl train` read."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from starlette.responses import Response

from serve.http.errors import invalid
from serve.http.io.schemas import NoOptions, Whole, Wholes
from serve.http.io.validation import Strict
from serve.http.middleware.context import RequestContext
from serve.http.routes.gallery.files import check_paths_told
from serve.http.routes.gallery.listing import check_generation
from serve.http.routes.routing import Route
from serve.http.state import Runtime
from vssl.errors import shown

if TYPE_CHECKING:
    from index.answers.listing import Listing

Form = Literal["csv", "json", "list"]
MEDIA: dict[Form, tuple[str, str]] = {
    "csv": ("text/csv", "selection.csv"),
    "json": ("application/json", "selection.json"),
    "list": ("application/x-ndjson", "selection.jsonl"),
}


class ExportRequest(Strict):
    """Which rows, and as what."""

    rows: Annotated[list[Annotated[int, Field(ge=0)]], Wholes] = Field(
        min_length=1, max_length=1_000_000, fail_fast=True
    )
    generation: Annotated[int, Whole] = Field(ge=0, description="Of the columns that the rows were found in")
    format: Form


async def export(runtime: Runtime, context: RequestContext, query: NoOptions) -> Response:
    """Write a selection to a file: CSV, JSON, or a list for `vssl extract list:FILE.jsonl`.

    Where files lie is told only by a server that shows their pictures (--show-images): `list` needs it.
    """
    _ = runtime.gallery
    body = await runtime.bodies.json(context, ExportRequest)
    shows = runtime.settings.show_images
    if body.format == "list":
        check_paths_told(runtime, "format")

    def work(listing: Listing) -> str:
        check_generation(listing, body.generation)
        rows = list(dict.fromkeys(body.rows))
        if max(rows) >= len(listing):
            raise invalid(f"rows: found {max(rows)}, the gallery has {len(listing)} items", "rows")
        if body.format == "list":
            sent = [listing.ids[row] for row in rows if not listing.paths[row]]
            if sent:
                raise invalid(
                    f"rows: {len(sent)} of {len(rows)} items have no file ({shown(sent[0])} first): their pictures "
                    "were sent, and not kept; leave them out, or export as csv or json",
                    "rows",
                )
            return "".join(
                json.dumps({"path": listing.paths[row], "id": listing.ids[row], "label": listing.labels[row]})
                + "\n"
                for row in rows
            )
        entries = [_entry(listing, row, with_path=shows) for row in rows]
        return json.dumps(entries, indent=1) + "\n" if body.format == "json" else _as_csv(entries)

    text = await runtime.with_gallery(lambda gallery: work(gallery.listing()))
    media, name = MEDIA[body.format]
    return Response(text, media_type=media, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _entry(listing: Listing, row: int, *, with_path: bool) -> dict[str, Any]:
    path = {"path": listing.paths[row]} if with_path else {}
    return {
        "id": listing.ids[row],
        "label": listing.labels[row],
        **path,
        "uncertainty": listing.uncertainty_of(row),
        **listing.metadata.get(row, {}),
    }


def _as_csv(entries: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    sink = io.StringIO()
    writer = csv.DictWriter(sink, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(entries)
    return sink.getvalue()


SENT = '{"rows": [0, 1], "generation": 1, "format": "csv"}'
EXAMPLE = f"curl -H 'Content-Type: application/json' -d '{SENT}' $URL/exports"
ROUTES: list[Route[Any]] = [
    Route(
        "POST",
        "/exports",
        export,
        NoOptions,
        EXAMPLE,
        body=ExportRequest,
        answer=list[dict[str, Any]],
        media=("text/csv", "application/x-ndjson"),
        statuses=(403, 404, 409),
    )
]
