"""The frozen plan of an extraction: what is done, what is left, and whether it is the same job.

    OUT/.progress/plan.json             model, settings and the input list's hash, written first
    OUT/.progress/items.parquet         the input list, to say what differs
    OUT/.progress/failures-00000.parquet ...  written before the part of the same number
    OUT/part-00000.parquet ...          a part that exists is done, with its failures

Part k holds the images k * part_rows to (k + 1) * part_rows of the list, whatever stopped and
started in between, so a resumed run and an undisturbed one write the same rows. The manifest is
written last and takes the plan over; `.progress` is removed after it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vssl.errors import ExistsError, FormatError, InputError, MismatchError
from vssl.identity import short_id
from vssl.sources import ImageItem
from vssl.store import FAILURES, MANIFEST, part_name, write_json, write_table

PROGRESS = ".progress"
PLAN = "plan.json"
ITEMS = "items.parquet"


@dataclass(frozen=True)
class Plan:
    """Everything that decides an extraction's rows; two equal plans write equal parts."""

    model_id: str
    images: int
    items: str
    part_rows: int
    batch_size: int
    features: bool
    max_pixels: int
    max_bytes: int

    @property
    def parts(self) -> int:
        """The number of parts."""
        return -(-self.images // self.part_rows)

    def rows(self, part: int) -> range:
        """Return the source rows of a part."""
        return range(part * self.part_rows, min((part + 1) * self.part_rows, self.images))

    @classmethod
    def from_dict(cls, values: dict[str, object], where: Path) -> Plan:
        """Parse what `dataclasses.asdict` gave. Raises FormatError for anything else."""
        if set(values) != {f.name for f in fields(cls)}:
            raise FormatError(
                f"{where}: found the entries {sorted(values)}, which another version of vssl wrote; "
                "extract again with --overwrite"
            )
        return cls(**values)  # type: ignore[arg-type]


def hash_items(items: Sequence[ImageItem]) -> str:
    """Return the sha256 over id and label of every item, in order."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps([item.id, item.label]).encode())
    return digest.hexdigest()


def prepare(out: Path, plan: Plan, items: Sequence[ImageItem], *, resume: bool, overwrite: bool) -> bool:
    """Make `out` ready for `plan`; return whether it is finished already.

    Raises ExistsError when something is there and neither flag was given, InputError for a folder
    that holds other things, MismatchError when `resume` meets another job, saying what differs.
    """
    found = _entries(out)
    foreign = [name for name in found if not _is_ours(name)]
    if foreign:
        raise InputError(
            f"{out} holds files that are no embeddings ({', '.join(foreign[:3])}); choose a folder of its own"
        )
    if found and overwrite:
        _clear(out)
    elif found and not resume:
        unfinished = MANIFEST not in found
        raise ExistsError(
            f"{out} holds {'an unfinished extraction' if unfinished else 'embeddings'} already; "
            + ("go on with --resume, " if unfinished else "choose another folder, ")
            + "or start over with --overwrite"
        )
    elif MANIFEST in found:
        values = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        _compare(Plan.from_dict(values.get("plan", {}), out / MANIFEST), plan, out, items)
        finish(out)
        return True
    elif (out / PROGRESS / PLAN).exists():
        values = json.loads((out / PROGRESS / PLAN).read_text(encoding="utf-8"))
        _compare(Plan.from_dict(values, out / PROGRESS / PLAN), plan, out, items)
        return False
    elif any(name.startswith("part-") for name in found):
        raise FormatError(f"{out} holds parts without a plan; start over with --overwrite")
    (out / PROGRESS).mkdir(parents=True, exist_ok=True)
    listing = {"id": [i.id for i in items], "label": [i.label for i in items]}
    listing_schema = pa.schema([("id", pa.string()), ("label", pa.string())])
    write_table(pa.table(listing, schema=listing_schema), out / PROGRESS / ITEMS)
    write_json(asdict(plan), out / PROGRESS / PLAN)
    return False


def failures_file(out: Path, part: int) -> Path:
    """Return where a part's failures are kept until the end."""
    return out / PROGRESS / f"failures-{part:05d}.parquet"


def is_done(out: Path, part: int) -> bool:
    """Return whether a part is written; parts are renamed into place whole, after their failures."""
    return (out / part_name(part)).exists()


def finish(out: Path) -> None:
    """Remove what only an unfinished extraction needs."""
    shutil.rmtree(out / PROGRESS, ignore_errors=True)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock goes with the process, however it ends.

    Raises ExistsError when another process holds it.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; expected a folder to write embeddings into")
    out.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    import fcntl

    folder = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExistsError(f"{out} is being written by another process; wait for it or stop it") from None
        yield
    finally:
        os.close(folder)


def _entries(out: Path) -> list[str]:
    return sorted(p.name for p in out.iterdir()) if out.exists() else []


def _is_ours(name: str) -> bool:
    bare = name.removeprefix(".").removesuffix(".tmp")
    return (
        bare in (FAILURES, MANIFEST)
        or name == PROGRESS
        or (bare.startswith("part-") and bare.endswith(".parquet"))
    )


def _clear(out: Path) -> None:
    (out / MANIFEST).unlink(missing_ok=True)  # first: from here on the folder is unfinished
    finish(out)
    for name in _entries(out):
        (out / name).unlink()


def _compare(old: Plan, new: Plan, out: Path, items: Sequence[ImageItem]) -> None:
    if old == new:
        return
    differences = []
    if old.model_id != new.model_id:
        differences.append(f"the model was {short_id(old.model_id)}, now it is {short_id(new.model_id)}")
    if old.items != new.items:
        differences.append(_changed_items(out, old, items))
    words = {
        "part_rows": "rows a part",
        "batch_size": "batch size",
        "features": "features",
        "max_pixels": "pixel limit",
        "max_bytes": "byte limit",
    }
    for name, what in words.items():
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            differences.append(f"{what}: was {before}, now {after}")
    raise MismatchError(
        f"{out} cannot be resumed, it belongs to another job: {'; '.join(differences)}. "
        "Give the same images, model and options, or start over with --overwrite"
    )


def _changed_items(out: Path, old: Plan, items: Sequence[ImageItem]) -> str:
    listing = out / PROGRESS / ITEMS
    if not listing.exists():
        return f"the input set was {old.images} images, now it is {len(items)} that are not the same"
    before = set(pq.read_table(listing, columns=["id"]).column("id").to_pylist())
    now = {item.id for item in items}
    texts = []
    for what, names in (("new", sorted(now - before)), ("gone", sorted(before - now))):
        if names:
            texts.append(f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
    return f"the input set changed: {', '.join(texts) or 'same files, other order or labels'}"
