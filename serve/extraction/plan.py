"""The frozen plan of an extraction: everything that decides its rows, and what differs between two.

Part k holds the images k * part_rows to (k + 1) * part_rows of the source, whatever stopped and
started in between, so that a resumed run and an uninterrupted one write the same rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa

from vssl.embeddings.manifest import read_part
from vssl.errors import FormatError
from vssl.images.items import ImageSource, StampedSource
from vssl.model.identity import short_id

LISTING_SCHEMA = pa.schema([("id", pa.string()), ("label", pa.string()), ("stamp", pa.string())])
NAMED = 3  # files named in a message


@dataclass(frozen=True)
class Plan:
    """Two equal plans write equal parts.

    items: hash of the source's listing (ids, labels and stamps, in order); dtype: of the stored
    numbers; lowered: `serve.inference.engine.Engine.lowered`; the other names are those of
    `serve.extraction.extract.extract`.
    """

    model_id: str
    images: int
    items: str
    part_rows: int
    batch_size: int
    features: bool
    digests: bool
    dtype: str
    max_pixels: int
    max_bytes: int
    lowered: str | None = None
    pictures: bool = False

    @property
    def parts(self) -> int:
        """The number of parts."""
        return -(-self.images // self.part_rows)

    def rows(self, part: int) -> range:
        """Return the source rows of a part."""
        return range(part * self.part_rows, min((part + 1) * self.part_rows, self.images))

    @classmethod
    def read(cls, values: object, where: Path) -> Plan:
        """Parse what `dataclasses.asdict` gave. Raises FormatError for anything else."""
        if not isinstance(values, dict) or {"lowered", "pictures", *values} != {f.name for f in fields(cls)}:
            raise FormatError(
                f"{where} was written by another version of vssl; extract again with --overwrite"
            )
        return cls(**values)


def list_source(source: ImageSource) -> pa.Table:
    """Return id, label and stamp of every image; a source that knows no stamps has empty ones."""
    stamps = [""] * len(source.items)
    if isinstance(source, StampedSource):
        stamps = [source.stamp(row) for row in range(len(source.items))]
    columns = {"id": [i.id for i in source.items], "label": [i.label for i in source.items], "stamp": stamps}
    return pa.table(columns, schema=LISTING_SCHEMA)


def hash_listing(listing: pa.Table) -> str:
    """Return the sha256 over every entry of a listing, in order."""
    digest = hashlib.sha256()
    for batch in listing.to_batches(max_chunksize=4096):
        for entry in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            digest.update(json.dumps(entry).encode())
    return digest.hexdigest()


def differences(old: Plan, new: Plan, before: Path, now: pa.Table) -> list[str]:
    """Say what differs between two plans; `before` is the file of the old one's listing."""
    texts = []
    if old.model_id != new.model_id:
        texts.append(f"the model was {short_id(old.model_id)}, now it is {short_id(new.model_id)}")
    if old.items != new.items:
        texts.append(_changed(before, now))
    words = {
        "part_rows": "rows a part",
        "batch_size": "batch size",
        "features": "features",
        "digests": "sha256",
        "pictures": "pictures stored",
        "dtype": "number type",
        "max_pixels": "pixel limit",
        "max_bytes": "byte limit",
        "lowered": "precision below the model's own",
    }
    for name, what in words.items():
        was, is_ = getattr(old, name), getattr(new, name)
        if was != is_:
            texts.append(f"{what}: was {was}, now {is_}")
    return texts


def _changed(before: Path, now: pa.Table) -> str:
    if not before.exists():
        return "the input set is another one"
    old, new = stamps(read_part(before)), stamps(now)
    groups = {
        "new": [name for name in new if name not in old],
        "gone": [name for name in old if name not in new],
        "changed": [name for name, stamp in new.items() if old.get(name, stamp) != stamp],
    }
    texts = [f"{len(names)} {what} ({_some(names)})" for what, names in groups.items() if names]
    return f"the input set: {', '.join(texts) or 'the same images in another order or with other labels'}"


def stamps(listing: pa.Table) -> dict[str, str]:
    """Return the stamp of each id."""
    return dict(zip(listing["id"].to_pylist(), listing["stamp"].to_pylist(), strict=True))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
