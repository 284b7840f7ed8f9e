"""A source spec -> the labelled images that a written model is judged on, and what it reaches on them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from export.evaluation.accuracy import MIN_LABELLED, accuracy
from export.evaluation.fidelity import embed
from export.sources.encoder_graph import cpu_session
from train.data.image_cache import ImageCache
from vssl.errors import InputError
from vssl.images.items import ImageSource
from vssl.images.sources import open_source


def labelled_rows(spec: str | None) -> tuple[ImageSource, list[int]] | None:
    """Return the images of a source that have a label; None when none is named. Raises InputError."""
    if spec is None:
        return None
    source = open_source(spec)
    rows = [row for row, item in enumerate(source.items) if item.label is not None]
    labels = {source.items[row].label for row in rows}
    if len(rows) < MIN_LABELLED or len(labels) < 2:
        raise InputError(
            f"evaluation: found {len(rows)} labelled images of {len(labels)} classes in {spec!r}, expected at least "
            f"{MIN_LABELLED} of 2; labels are the names of the folders that hold the images"
        )
    return source, rows


def measured(data: bytes, images: ImageCache, spec: str) -> dict[str, str | int | float | None]:
    """Return what a graph reaches on labelled images, as the card tells it."""
    found = accuracy(embed(cpu_session(data), images.images), images.labels)
    if found is None:
        raise InputError(f"evaluation: too few readable images in {spec!r}")
    return {"source": Path(spec).name, **asdict(found)}
