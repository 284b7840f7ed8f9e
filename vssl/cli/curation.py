"""The verbs `vssl gallery duplicates / uncertain / outliers / suspects / select`: what a person should look at."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from vssl.cli.options import JsonLines, named
from vssl.cli.output import Column, note, say, say_json, show_table

if TYPE_CHECKING:
    from vssl.images.contact_sheet import Tile

GALLERY = Annotated[str, typer.Argument(help="Gallery folder.")]
LIMIT = Annotated[
    int | None, typer.Option("-n", min=1, help="How many; 50 when absent, of which the table shows ten.")
]
CSV = Annotated[
    Path | None, typer.Option("--csv", help="Write the table to this CSV file.", callback=named(".csv"))
]
PARQUET = Annotated[
    Path | None, typer.Option(help="Write the table to this Parquet file.", callback=named(".parquet"))
]
SHEET = Annotated[
    Path | None, typer.Option(help="Write a contact sheet to this PNG file.", callback=named(".png"))
]
DEVICE = Annotated[str, typer.Option("--device", help="Where to search: auto, cpu or cuda.")]
FOUND, SHOWN = 50, 10  # without -n: in the files and in JSON, and in the table
SHEET_ROWS = 40  # on a contact sheet; the other outputs hold all


def duplicates(
    gallery: GALLERY,
    limit: LIMIT = None,
    least: Annotated[float, typer.Option(min=0, max=1, help="Leave out less probable pairs.")] = 0.5,
    as_json: JsonLines = False,
    csv: CSV = None,
    parquet: PARQUET = None,
    sheet: SHEET = None,
    device: DEVICE = "auto",
) -> None:
    """Pairs that may show the same, closest first."""
    from index.curation.duplicates import Duplicate
    from index.curation.duplicates import duplicates as find
    from index.gallery.open import open_gallery

    with open_gallery(gallery, read_only=True, device=device) as opened:
        found = find(opened, limit=limit or FOUND, least=least)
    _show(Duplicate, "near-duplicates", found, limit, as_json, csv, parquet, sheet)


def uncertain(
    gallery: GALLERY,
    limit: LIMIT = None,
    surest: Annotated[bool, typer.Option("--surest", help="The surest ones instead.")] = False,
    as_json: JsonLines = False,
    csv: CSV = None,
    parquet: PARQUET = None,
    sheet: SHEET = None,
) -> None:
    """The images that the model is least sure of."""
    from index.curation.uncertain import UncertainImage
    from index.curation.uncertain import uncertain as find
    from index.gallery.open import open_gallery

    with open_gallery(gallery, read_only=True) as opened:
        found = find(opened, limit=limit or FOUND, surest=surest)
    title = "surest images" if surest else "least certain images"
    _show(UncertainImage, title, found, limit, as_json, csv, parquet, sheet)


def outliers(
    gallery: GALLERY,
    limit: LIMIT = None,
    as_json: JsonLines = False,
    csv: CSV = None,
    parquet: PARQUET = None,
    sheet: SHEET = None,
    device: DEVICE = "auto",
) -> None:
    """The images farthest from all others."""
    from index.curation.outliers import Outlier
    from index.curation.outliers import outliers as find
    from index.gallery.open import open_gallery

    with open_gallery(gallery, read_only=True, device=device) as opened:
        found = find(opened, limit=limit or FOUND)
    _show(Outlier, "outliers", found, limit, as_json, csv, parquet, sheet)


def suspects(
    gallery: GALLERY,
    limit: LIMIT = None,
    as_json: JsonLines = False,
    csv: CSV = None,
    parquet: PARQUET = None,
    sheet: SHEET = None,
    device: DEVICE = "auto",
) -> None:
    """The images whose label their neighbours contradict most."""
    from index.curation.suspects import Suspect
    from index.curation.suspects import suspects as find
    from index.gallery.open import open_gallery

    with open_gallery(gallery, read_only=True, device=device) as opened:
        found = find(opened, limit=limit or FOUND)
    _show(Suspect, "label suspects", found, limit, as_json, csv, parquet, sheet)


def select(
    gallery: GALLERY,
    strategy: Annotated[
        str, typer.Option(help="uncertain, diverse (far from each other) or typical (of dense regions).")
    ] = "typical",
    limit: LIMIT = None,
    as_json: JsonLines = False,
    csv: CSV = None,
    parquet: PARQUET = None,
    sheet: SHEET = None,
    listed: Annotated[
        Path | None,
        typer.Option(
            "--list",
            help="Write a list that train and extract read: list:FILE.jsonl.",
            callback=named(".jsonl"),
        ),
    ] = None,
    device: DEVICE = "auto",
) -> None:
    """The images to label next, of those without a label where there are any."""
    from index.curation.select import NextToLabel
    from index.curation.select import select as find
    from index.gallery.open import open_gallery

    with open_gallery(gallery, read_only=True, device=device) as opened:
        found = find(opened, strategy, limit=limit or FOUND)
    if listed is not None:
        _write_list(found, listed)
    _show(NextToLabel, f"to label next, {strategy}", found, limit, as_json, csv, parquet, sheet)


def _write_list(found: Sequence[Any], path: Path) -> None:
    lines = [json.dumps({"path": one.path, "id": one.id, "label": one.label}) for one in found]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    note(f"wrote {path}; read it with: {shlex.join(['vssl', 'extract', f'list:{path}', 'OUT'])}")


def _show(
    kind: type,
    title: str,
    found: Sequence[Any],
    limit: int | None,
    as_json: bool,
    csv: Path | None,
    parquet: Path | None,
    sheet: Path | None,
) -> None:
    """Print values of a dataclass as JSON, or the first of them as a table, and write the files that were asked for."""
    rows, shown = [asdict(value) for value in found], limit or SHOWN
    _write_tables(kind, rows, csv, parquet)
    if sheet is not None:
        _write_sheet(title, rows, sheet)
    if as_json:
        for row in rows:
            say_json(row)
        return
    if not rows:
        note(f"{title}: none")
        return
    # Ids name the images on a screen; the paths are in the other outputs.
    names = [name for name in rows[0] if not name.endswith("path")]
    columns: list[Column] = [
        (name.replace("_", " "), "right" if isinstance(rows[0][name], float) else "left") for name in names
    ]
    show_table(title, columns, [[_cell(row[name]) for name in names] for row in rows[:shown]])
    if len(rows) > shown:
        say(f"{len(rows) - shown} more: -n {len(rows)}, or --csv FILE")


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value or "")


def _write_tables(kind: type, rows: list[dict[str, Any]], csv: Path | None, parquet: Path | None) -> None:
    """Write the columns of a dataclass, of no rows too."""
    import pyarrow as pa
    from pyarrow.csv import write_csv

    from vssl.embeddings.store import write_table
    from vssl.files import atomic_write

    types = {
        name: pa.float64() if hint in (float, float | None) else pa.string()
        for name, hint in get_type_hints(kind).items()
    }
    table = pa.Table.from_pylist(rows, pa.schema(types))
    if csv is not None:
        with atomic_write(csv) as file:
            write_csv(table, file)
        note(f"wrote {csv}")
    if parquet is not None:
        write_table(table, parquet)
        note(f"wrote {parquet}")


def _write_sheet(title: str, rows: list[dict[str, Any]], path: Path) -> None:
    """Draw a pair a line, or six images a line."""
    from vssl.images.contact_sheet import contact_sheet

    columns = 2 if rows and "other_path" in rows[0] else 6
    drawn = [(row, name) for row in rows for name in row if name.endswith("path")][: SHEET_ROWS * columns]
    tiles = [_tile(row, row[name]) for row, name in drawn]
    lines = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    contact_sheet(title, f"{len(rows)} found", lines).save(path)
    note(f"wrote {path}")


def _tile(row: dict[str, Any], path: str) -> Tile:
    from vssl.images.contact_sheet import Tile, read_picture

    numbers = "  ".join(f"{name} {value:.3g}" for name, value in row.items() if isinstance(value, float))
    picture = read_picture(Path(path).read_bytes)
    if picture is None:
        return Tile(None, (f"not readable: {path}", numbers))
    return Tile(picture, (path, numbers), "bad" if "suggested" in row else "")
