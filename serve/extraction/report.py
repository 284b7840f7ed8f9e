"""A complete embeddings folder -> how sure the model is: a histogram, and a sheet of extremes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from vssl.embeddings.gaussian import Floats
from vssl.embeddings.manifest import read_file, read_manifest
from vssl.errors import InputError
from vssl.images.contact_sheet import Tile, contact_sheet, read_picture
from vssl.images.sources import open_source

BINS, WIDTH = 12, 40
COLUMNS = 8


def uncertainty_histogram(out: Path) -> str:
    """Return the distribution of uncertainty as lines of text, one a bin."""
    _, values = _uncertainties(out)
    if not len(values):
        return "no image was embedded"
    counts, edges = np.histogram(values, bins=BINS)
    lines = ["uncertainty            images"]
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        bar = "#" * int(np.ceil(WIDTH * count / counts.max()))
        lines.append(f"{low:8.4f} to {high:8.4f} {count:8d} {bar}".rstrip())
    return "\n".join(lines)


def draw_extremes(out: Path, images: str | Path, path: Path, rows: int = 2) -> None:
    """Write a PNG of the most certain images and, below them, the least certain ones."""
    names, values = _uncertainties(out)
    if not len(values):
        raise InputError(f"{out} holds no embedded image to draw")
    source = open_source(images)
    places = {item.id: row for row, item in enumerate(source.items)}
    order = np.argsort(values, kind="stable")
    count = min(COLUMNS * rows, len(order))
    ends = {"surest": order[:count], "least sure": order[::-1][:count]}
    tiles = []
    for what, chosen in ends.items():
        row = [
            Tile(read_picture(partial(source.read, places[names[i]])), (f"{values[i]:.4f} {what}", names[i]))
            for i in chosen
        ]
        tiles += [row[start : start + COLUMNS] for start in range(0, len(row), COLUMNS)]
    title = f"Surest and least sure of {len(values)} images"
    sheet = contact_sheet(title, "uncertainty: expected cosine spread, higher = less sure", tiles)
    sheet.save(path, "PNG")


def _uncertainties(out: Path) -> tuple[list[str], Floats]:
    manifest = read_manifest(out)
    tables = [read_file(out, manifest, part, ["id", "uncertainty"]) for part in manifest["parts"]]
    names = [name for table in tables for name in table["id"].to_pylist()]
    return names, np.concatenate([table["uncertainty"].to_numpy() for table in tables])
