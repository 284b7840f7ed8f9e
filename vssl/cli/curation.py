"""The verbs `vssl gallery duplicates / uncertain / outliers / suspects / select`: what a person should look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vssl.cli.output import Column, note, say, say_json, show_table
from vssl.errors import InputError

if TYPE_CHECKING:
    from vssl.images.contact_sheet import Tile

GALLERY = Annotated[str, typer.Argument(help="Gallery folder.")]
LIMIT = Annotated[
    int | None, typer.Option("-n", min=1, help="How many; 50 when absent, of which the table shows ten.")
]
JSON = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
CSV = Annotated[Path | None, typer.Option("--csv", help="Write the table to this CSV file.")]
PARQUET = Annotated[Path | None, typer.Option(help="Write the table to this Parquet file.")]
SHEET = Annotated[Path | None, typer.Option(help="Write a contact sheet to this PNG file.")]
DEVICE = Annotated[str, typer.Option("--device", help="Where to search: auto, cpu or cuda.")]
FOUND, SHOWN = 50, 10  # without -n: in the files and in JSON, and in the table
SHEET_ROWS = 40  # on a contact sheet; the other outputs hold all


def duplicates(
    gallery: GALLERY,
    limit: LIMIT = None,
    least: Annotated[float, typer.Option(min=0, max=1, help="Leave out less probable pairs.")] = 0.5,
    as_json: JSON = False,
    csv: CSV = None,
    parquet: PARQUET = None,
    sheet: SHEET = None,
    device: DEVICE = "auto",
) -> None:
    """Pairs that may show the same, closest first."""
    from index.curation.duplicates import duplicates as find
    from index.gallery.open import open_gallery

    with open_gallery(gallery, read_only=True, device=device) as opened:
        found = find(opened, limit=limit or FOUND, least=least)
    _write("near-duplicates", found, ("path", "other_path"), as_json, (csv, parquet), sheet, limit or SHOWN)


def uncertain(
    gallery: GALLERY,
    limit: LIMIT = None,
    surest: Annotated[bool, typer.Option("--surest", help="The surest ones instead.")] = False,
    as_json: JSON = False,
    csv: CSV = None,
    parquet: PARQUET = None,
    sheet: SHEET = None,
) -> None:
    """The images that the model is least sure of."""
    from index.curation.uncertain import uncertain as find
    from index.gallery.open import open_gallery

    with open_gallery(gallery, read_only=True) as opened:
        found = find(opened, limit=limit or FOUND, surest=surest)
    _write(
        "surest images" if surest else "least certain images",
        found,
        ("path",),
        as_json,
        (csv, parquet),
        sheet,
        limit or SHOWN,
    )


def outliers(
    gallery: GALLERY,
    limit: LIMIT = None,
    as_json: JSON = False,
    csv: CSV = None,
    parquet: PARQUET = None,
    sheet: SHEET = None,
    device: DEVICE = "auto",
) -> None:
    """The images farthest from all others."""
    from index.curation.outliers import outliers as find
    from index.gallery.open import open_gallery

    with open_gallery(gallery, read_only=True, device=device) as opened:
        found = find(opened, limit=limit or FOUND)
    _write("outliers", found, ("path",), as_json, (csv, parquet), sheet, limit or SHOWN)


def suspects(
    gallery: GALLERY,
    limit: LIMIT = None,
    as_json: JSON = False,
    csv: CSV = None,
    parquet: PARQUET = None,
    sheet: SHEET = None,
    device: DEVICE = "auto",
) -> None:
    """The images whose label their neighbours contradict most."""
    from index.curation.suspects import suspects as find
    from index.gallery.open import open_gallery

    with open_gallery(gallery, read_only=True, device=device) as opened:
        found = find(opened, limit=limit or FOUND)
    _write("label suspects", found, ("path",), as_json, (csv, parquet), sheet, limit or SHOWN)


def select(
    gallery: GALLERY,
    strategy: Annotated[
        str, typer.Option(help="uncertain, diverse (far from each other) or typical (of dense regions).")
    ] = "typical",
    limit: LIMIT = None,
    as_json: JSON = False,
    csv: CSV = None,
    parquet: PARQUET = None,
    sheet: SHEET = None,
    listed: Annotated[
        Path | None, typer.Option("--list", help="Write a list that train and extract read: list:FILE.jsonl.")
    ] = None,
    device: DEVICE = "auto",
) -> None:
    """The images to label next, of those without a label where there are any."""
    from index.curation.select import select as find
    from index.gallery.open import open_gallery

    with open_gallery(gallery, read_only=True, device=device) as opened:
        found = find(opened, strategy, limit=limit or FOUND)
    if listed is not None:
        _write_list(found, listed)
    _write(f"to label next, {strategy}", found, ("path",), as_json, (csv, parquet), sheet, limit or SHOWN)


def _write_list(found: Sequence[Any], path: Path) -> None:
    if path.suffix != ".jsonl":
        raise InputError(
            f"--list: found {path}, expected a name that ends in .jsonl, as in --list next.jsonl"
        )
    lines = [json.dumps({"path": one.path, "id": one.id, "label": one.label}) for one in found]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    note(f"wrote {path}; read it with: vssl extract list:{path} OUT")


def _write(
    title: str,
    found: Sequence[Any],
    pictures: tuple[str, ...],
    as_json: bool,
    tables: tuple[Path | None, Path | None],
    sheet: Path | None,
    shown: int,
) -> None:
    """Print values as JSON, or the first `shown` as a table, and write what was asked for: CSV, Parquet, PNG."""
    rows = [asdict(value) for value in found]
    _write_tables(rows, *tables)
    if sheet is not None:
        _write_sheet(title, rows, pictures, sheet)
    if as_json:
        for row in rows:
            say_json(row)
        return
    if not rows:
        note(f"{title}: none")
        return
    # Ids name the images on a screen; the paths are in the other outputs.
    names = [f.name for f in fields(found[0]) if not f.name.endswith("path")]
    columns: list[Column] = [(n.replace("_", " "), "right" if _number(rows[0][n]) else "left") for n in names]
    show_table(title, columns, [[_cell(row[name]) for name in names] for row in rows[:shown]])
    if len(rows) > shown:
        say(f"{len(rows) - shown} more: -n {len(rows)}, or --csv FILE")


def _number(value: object) -> bool:
    return isinstance(value, float)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value or "")


def _write_tables(rows: list[dict[str, Any]], csv: Path | None, parquet: Path | None) -> None:
    import pyarrow as pa
    from pyarrow.csv import write_csv

    from vssl.embeddings.store import write_table
    from vssl.files import atomic_write

    if csv is not None:
        with atomic_write(csv) as file:
            write_csv(pa.Table.from_pylist(rows), file)
        note(f"wrote {csv}")
    if parquet is not None:
        write_table(pa.Table.from_pylist(rows), parquet)
        note(f"wrote {parquet}")


def _write_sheet(title: str, rows: list[dict[str, Any]], pictures: tuple[str, ...], path: Path) -> None:
    from vssl.images.contact_sheet import contact_sheet

    columns = 1 if len(pictures) > 1 else 6
    tiles = [[_tile(row, name) for name in pictures] for row in rows[: SHEET_ROWS * columns]]
    if columns > 1:
        flat = [tile for line in tiles for tile in line]
        tiles = [flat[start : start + columns] for start in range(0, len(flat), columns)]
    contact_sheet(title, f"{len(rows)} found", tiles).save(path)
    note(f"wrote {path}")


def _tile(row: dict[str, Any], name: str) -> Tile:
    from PIL import Image

    from vssl.errors import ImageError
    from vssl.images.contact_sheet import Tile
    from vssl.images.decode import decode

    lines = (str(row[name]), "  ".join(f"{k} {v:.3g}" for k, v in row.items() if _number(v)))
    try:
        picture = decode(Path(row[name]).read_bytes())
    except (OSError, ImageError):
        return Tile(
            Image.new("RGB", (32, 32), (200, 200, 200)), (f"not readable: {row[name]}", lines[1]), "empty"
        )
    return Tile(picture, lines, "bad" if "suggested" in row else "")
