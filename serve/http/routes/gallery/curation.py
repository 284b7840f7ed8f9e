"""/curation: what a person should look at, as `vssl gallery duplicates`, `uncertain`, `outliers` and so on list it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from serve.http.errors import RequestError, invalid
from serve.http.io.answers import json_response
from serve.http.io.schemas import Whole
from serve.http.io.validation import Strict
from serve.http.middleware.context import RequestContext
from serve.http.routes.routing import Route
from serve.http.state import Runtime

if TYPE_CHECKING:
    from index.gallery.protocol import Gallery

DEFAULT_LIMIT = 100


class CurationOptions(Strict):
    """How many to list."""

    limit: Annotated[int, Field(ge=1, le=1000), Whole] | None = Field(None, description="100 when absent")
    strategy: Literal["uncertain", "diverse", "typical"] | None = Field(
        None, description="Of /curation/select: what to label next; typical when absent"
    )


class Curated(TypedDict):
    """What was found, the first to look at first; `row` and `other_row` are places in the gallery's columns."""

    generation: int
    found: list[dict[str, Any]]


async def curation(runtime: Runtime, context: RequestContext, query: CurationOptions) -> Response:
    """List what to look at: duplicates, uncertain, outliers, suspects, or select, which is what to label next.

    The first answer after a change of the gallery compares all items with each other.
    """
    from index.curation.duplicates import duplicates
    from index.curation.outliers import outliers
    from index.curation.select import select
    from index.curation.suspects import suspects
    from index.curation.uncertain import uncertain

    name: str = context.path_params["name"]
    limit, strategy = query.limit or DEFAULT_LIMIT, query.strategy or "typical"
    ways: dict[str, Callable[[Gallery], Sequence[Any]]] = {
        "duplicates": lambda gallery: duplicates(gallery, limit=limit, least=0.0),
        "uncertain": lambda gallery: uncertain(gallery, limit=limit),
        "outliers": lambda gallery: outliers(gallery, limit=limit),
        "suspects": lambda gallery: suspects(gallery, limit=limit),
        "select": lambda gallery: select(gallery, strategy, limit=limit),
    }
    if name not in ways:
        raise RequestError(404, "not_found", f"no such list; the lists are {', '.join(ways)}", param="name")

    if query.strategy is not None and name != "select":
        raise invalid("strategy: belongs to /curation/select only; leave it out", "strategy")

    def work(gallery: Gallery) -> Curated:
        with runtime.curated.lock:  # one at a time: it takes all cores
            listing = gallery.listing()

            def answer() -> Curated:
                rows = {id_: row for row, id_ in enumerate(listing.ids)}
                found = [_placed(asdict(one), rows) for one in ways[name](gallery)]
                return {"generation": listing.generation, "found": found}

            return runtime.curated.made((listing.generation, name, limit, strategy), answer)

    return json_response(await runtime.with_gallery(work))


def _placed(found: dict[str, Any], rows: dict[str, int]) -> dict[str, Any]:
    """Return what was found with its rows, and without the paths, which stay with the server."""
    places = {"row": rows.get(found["id"])}
    if "other" in found:
        places["other_row"] = rows.get(found["other"])
    return places | {name: value for name, value in found.items() if not name.endswith("path")}


ROUTES: list[Route[Any]] = [
    Route(
        "GET",
        "/curation/{name}",
        curation,
        CurationOptions,
        "curl '$URL/curation/duplicates?limit=20'",
        answer=Curated,
        statuses=(404,),
    )
]
