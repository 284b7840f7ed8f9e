"""What the demo shows of its gallery: how uncertainty answers to corruption, and a contact sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vssl.embeddings.store import Rows, read_embeddings
from vssl.images.contact_sheet import Tile, contact_sheet, read_picture

ROWS, NEIGHBOURS = 5, 6


def _rows(embeddings: Path, name: str) -> Rows:
    return read_embeddings(embeddings / name).rows


def corrupted_is_less_sure(embeddings: Path) -> tuple[float, float, float, int]:
    """Return (share of copies above their original, mean clean, mean corrupted uncertainty, pairs)."""
    clean, worse = _rows(embeddings, "queries"), _rows(embeddings, "corrupted")
    before = dict(zip(clean.ids, clean.gaussians.uncertainty, strict=True))
    pairs = [
        (before[i], after)
        for i, after in zip(worse.ids, worse.gaussians.uncertainty, strict=True)
        if i in before
    ]
    values = np.array(pairs, dtype=np.float64)
    return (
        float((values[:, 1] > values[:, 0]).mean()),
        float(values[:, 0].mean()),
        float(values[:, 1].mean()),
        len(pairs),
    )


def write_sheet(out: Path, embeddings: Path, *, digits: bool) -> Path:
    """Draw clean and corrupted queries, from the surest to the least sure, with their neighbours."""
    from index.gallery.open import open_gallery

    gallery = open_gallery(out / "gallery", read_only=True)
    sheet_rows = []
    for name in ("queries", "corrupted"):
        rows = _rows(embeddings, name)
        order = np.argsort(rows.gaussians.uncertainty, kind="stable")
        picked = order[np.linspace(0, len(order) - 1, min(ROWS, len(order))).round().astype(int)]
        for row in picked:
            query = rows.gaussians[[int(row)]]
            result = gallery.search(query, k=NEIGHBOURS, exclude=[rows.ids[row]])[0]
            label = rows.labels[row]
            kind = "clean" if name == "queries" else "corrupted"
            tiles = [
                Tile(
                    read_picture(Path(rows.paths[row]).read_bytes),
                    (f"{kind} {label or ''}", f"uncertainty {result.uncertainty:.3f}"),
                    "query",
                )
            ]
            for hit in result.neighbours:
                mark = "" if label is None else ("good" if hit.label == label else "bad")
                lines = (f"{hit.label or hit.id}  d {hit.distance:.3f}", f"variance {hit.variance_score:.2f}")
                tiles.append(Tile(read_picture(Path(hit.path).read_bytes), lines, mark))
            sheet_rows.append(tiles)
    title = "Queries and their neighbours" + (" (handwritten digits)" if digits else "")
    subtitle = "blue: the query, surest first; d: distance; variance: share of the distance that is variance"
    path = out / "contact-sheet.png"
    contact_sheet(title, subtitle, sheet_rows).save(path)
    return path
