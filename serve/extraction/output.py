"""The output folder of an extraction: what is done, what is left, and how it becomes complete.

    OUT/.progress/plan.json             model, settings and the listing's hash, written first
    OUT/.progress/items.parquet         the listing, to say what differs
    OUT/.progress/failures-00000.parquet ...  written before the part of the same number
    OUT/part-00000.parquet ...          a part that exists is done, with its failures
    OUT/failures.parquet, OUT/.inputs.parquet, OUT/manifest.json    written last, in this order

`.progress` is removed after the manifest. An update writes its parts into `.progress/staged`, so
that the folder stays readable, and puts them in place at the end.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from serve.extraction.plan import Plan, differences
from vssl.embeddings import store
from vssl.embeddings.manifest import (
    FAILURES,
    INPUTS,
    MANIFEST,
    PROGRESS,
    read_manifest,
    read_part,
    write_manifest,
)
from vssl.errors import ExistsError, FormatError, InputError, MismatchError
from vssl.files import own_names, take_lock, write_json

PLAN, STAGED, PLACING = "plan.json", "staged", "placing"
OURS = (FAILURES, MANIFEST, INPUTS)
ARRAYS = {"img_emb": ".npy", "img_var": ".npy", "metadata": ".parquet"}  # see serve.extraction.clip_layout


class OutputFolder:
    """One output folder under one plan; made by `prepare`."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self.plan = plan
        self.progress = path / PROGRESS

    @property
    def staged(self) -> bool:
        """Whether parts are written aside, for an update."""
        return (self.progress / STAGED).is_dir()

    @property
    def complete(self) -> bool:
        """Whether the manifest is there and no job is under way, which begins and ends with its plan."""
        return (self.path / MANIFEST).exists() and not (self.progress / PLAN).exists()

    def part(self, number: int) -> Path:
        """Return where a part is written."""
        folder = self.progress / STAGED if self.staged else self.path
        return folder / store.part_name(number)

    def failures(self, number: int) -> Path:
        """Return where a part's failures are kept until the end."""
        return self.progress / f"failures-{number:05d}.parquet"

    def is_done(self, number: int) -> bool:
        """Return whether a part is written: it is renamed into place whole, after its failures."""
        return self.part(number).exists() or (self.progress / PLACING).exists()

    def close(self) -> None:
        """Make the folder complete; every part must be done. Can be stopped and repeated at any point.

        A shard that waited while another one closed the folder finds nothing left to do.
        """
        if self.complete:
            return
        plan, names = self.plan, [store.part_name(number) for number in range(self.plan.parts)]
        if self.staged:
            (self.progress / PLACING).touch()
            (self.path / MANIFEST).unlink(missing_ok=True)
            for old in set(_matching(self.path, "part-", ".parquet")) - set(names):
                (self.path / old).unlink()
            for name in _matching(self.progress / STAGED, "part-", ".parquet"):
                (self.progress / STAGED / name).replace(self.path / name)
        failures = [
            store.Failure(**row)
            for number in range(plan.parts)
            for row in read_part(self.failures(number)).to_pylist()
        ]
        store.write_failures(failures, self.path)
        if (self.progress / "items.parquet").exists():
            (self.progress / "items.parquet").replace(self.path / INPUTS)
        tables = [read_part(self.path / name, ["uncertainty"]) for name in names]
        spread = np.concatenate([table["uncertainty"].to_numpy() for table in tables])
        write_manifest(
            self.path,
            model_id=plan.model_id,
            parts=names,
            rows=len(spread),
            failures=len(failures),
            reasons=dict(sorted(Counter(f.error for f in failures).items())),
            mean_uncertainty=float(spread.mean(dtype=np.float64)) if len(spread) else None,
            plan=asdict(plan),
        )
        (self.progress / PLAN).unlink()  # first: what remains of a removal that was stopped is no job
        shutil.rmtree(self.progress, ignore_errors=True)


def prepare(
    out: Path, plan: Plan, listing: pa.Table, *, resume: bool, overwrite: bool, update: bool
) -> OutputFolder:
    """Make `out` ready for `plan`.

    Raises ExistsError when something is there and no flag was given, InputError for a folder that
    holds other things, MismatchError when it meets another job, saying what differs.
    """
    folder, found = OutputFolder(out, plan), _ours(out)
    started = _plan(folder.progress / PLAN)
    if overwrite:
        _clear(out)
    elif (folder.progress / PLACING).exists() and started:
        OutputFolder(out, started).close()  # an update was stopped while it was put in place
        return prepare(out, plan, listing, resume=resume, overwrite=False, update=update)
    elif started:
        if not (resume or update):
            raise ExistsError(
                f"{out} holds an unfinished extraction; go on with --resume, or start over with --overwrite"
            )
        if started == plan:
            return folder
        if not (update and folder.staged):
            _refuse(started, folder, folder.progress / "items.parquet", listing)
        shutil.rmtree(folder.progress)  # the input set changed again since that update began
        return prepare(out, plan, listing, resume=resume, overwrite=False, update=update)
    elif MANIFEST in found:
        finished = Plan.read(plan_of, out / MANIFEST) if (plan_of := read_manifest(out).get("plan")) else None
        if not (resume or update):
            raise ExistsError(
                f"{out} holds embeddings already; choose another folder, add --update to embed what "
                "changed only, or start over with --overwrite"
            )
        shutil.rmtree(folder.progress, ignore_errors=True)  # what a removal left that was stopped
        if finished == plan:
            return folder
        same = finished and replace(finished, items=plan.items, images=plan.images) == plan
        if finished and not (update and same):
            _refuse(finished, folder, out / INPUTS, listing)
        (folder.progress / STAGED).mkdir(parents=True, exist_ok=True)
    elif any(name.startswith("part-") for name in found):
        raise FormatError(f"{out} holds parts without a plan; start over with --overwrite")
    folder.progress.mkdir(parents=True, exist_ok=True)
    store.write_table(listing, folder.progress / "items.parquet")
    write_json(folder.progress / PLAN, asdict(plan))
    return folder


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold a file or folder for this process; the lock goes with the process, however it ends.

    Raises ExistsError when another process holds it and `wait` is not set.
    """
    try:
        handle = take_lock(path, shared=shared, wait=wait)
    except BlockingIOError:
        raise ExistsError(f"{path} is being written by another process; wait for it or stop it") from None
    try:
        yield
    finally:
        os.close(handle)


def make(out: Path) -> None:
    """Create the output folder."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; expected a folder to write embeddings into")
    out.mkdir(parents=True, exist_ok=True)


def _plan(path: Path) -> Plan | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise FormatError(f"{path} is damaged ({error}); start over with --overwrite") from error
    return Plan.read(values, path)


def _refuse(old: Plan, folder: OutputFolder, before: Path, listing: pa.Table) -> None:
    texts = differences(old, folder.plan, before, listing)
    only_images = len(texts) == 1 and old.items != folder.plan.items
    update = " embed what changed with --update," if before.name == INPUTS and only_images else ""
    raise MismatchError(
        f"{folder.path} belongs to another job: {'; '.join(texts)}. "
        f"Give the same images, model and options,{update} or start over with --overwrite"
    )


def _ours(out: Path) -> list[str]:
    """Return the names in a folder, the progress aside. Raises InputError when it holds other things."""
    found = [name for name in own_names(out) if name != PROGRESS]
    others = [name for name in found if not _is_ours(out / name)]
    if others:
        raise InputError(
            f"{out} holds files that are no embeddings ({', '.join(others[:3])}); choose a folder of its own"
        )
    return found


def _is_ours(path: Path) -> bool:
    if path.is_dir():
        stem = path.name
        return stem in ARRAYS and len(_matching(path, f"{stem}_", ARRAYS[stem])) == len(own_names(path))
    bare = path.name.removeprefix(".").removesuffix(".tmp")
    return path.name in OURS or bare in OURS or (bare.startswith("part-") and bare.endswith(".parquet"))


def _matching(folder: Path, start: str, end: str) -> list[str]:
    """Return the names in a folder of this start and end, those of temporary files too."""
    return [
        name
        for name in own_names(folder)
        if name.removeprefix(".").startswith(start) and name.removesuffix(".tmp").endswith(end)
    ]


def _clear(out: Path) -> None:
    (out / MANIFEST).unlink(missing_ok=True)  # first: from here on the folder is unfinished
    shutil.rmtree(out / PROGRESS, ignore_errors=True)
    for entry in map(out.joinpath, own_names(out)):
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
