"""An index in memory <-> checksummed files that may be thrown away at any time.

    derived/<distance>-<generation>/
      manifest.json   format, distance, generation, and the sha256 and size of every other file
      rows.npy        (N, 2) int64: row number and checksum of each indexed item, in index order
      index/          what the index itself writes

A folder is written under a temporary name, flushed and renamed; the manifest is its last file.
What does not match its manifest is passed over with a reason, and the index is built again from
the store of record. FAISS itself reads a file with a flipped bit without a word.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.arrays import Int64s
from vssl.errors import VsslError
from vssl.files import flush, put_in_place, write_json
from vssl.model.identity import sha256_file

DERIVED_FORMAT = 1
FOLDER = "derived"
MANIFEST = "manifest.json"


@dataclass(frozen=True, eq=False)
class Derived:
    """A verified folder: where the index lies, its generation, row numbers and checksums (N,)."""

    folder: Path
    generation: int
    rows: Int64s
    crc: Int64s


def save_derived(
    gallery: Path,
    distance: str,
    generation: int,
    rows: Int64s,
    crc: Int64s,
    write: Callable[[Path], None],
) -> Path:
    """Write one index's files through `write(folder)` and drop the ones they replace."""
    home = gallery / FOLDER
    home.mkdir(exist_ok=True)
    final = home / f"{distance}-{generation:012d}"
    partial = home / f".{final.name}.{os.getpid()}.tmp"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "index").mkdir(parents=True)
    np.save(partial / "rows.npy", np.stack([rows, crc], axis=1))
    write(partial / "index")
    files = {}
    for file in sorted(p for p in partial.rglob("*") if p.is_file()):
        flush(file)
        files[file.relative_to(partial).as_posix()] = {
            "sha256": sha256_file(file),
            "bytes": file.stat().st_size,
        }
    manifest = {"format": DERIVED_FORMAT, "distance": distance, "generation": generation, "files": files}
    write_json(partial / MANIFEST, manifest)
    flush(partial / "index")
    if final.exists():
        shutil.rmtree(final)
    put_in_place(partial, final)
    for other in home.iterdir():
        old = _distance_of(other.name) == distance or other.name.startswith(".")
        if old and other != final:
            shutil.rmtree(other, ignore_errors=True)
    return final


def find_derived(gallery: Path, distance: str) -> tuple[Derived | None, str | None]:
    """Return the newest whole folder of a distance, or None and the reason when there is a damaged one."""
    home = gallery / FOLDER
    reason = None
    if not home.is_dir():
        return None, None
    names = sorted((p.name for p in home.iterdir() if _distance_of(p.name) == distance), reverse=True)
    for name in names:
        try:
            return _verified(home / name, distance), None
        except (OSError, ValueError, KeyError, TypeError, VsslError) as error:
            reason = f"{home / name}: {error}"
    return None, reason


def _verified(folder: Path, distance: str) -> Derived:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if manifest["format"] != DERIVED_FORMAT or manifest["distance"] != distance:
        raise ValueError(f"format {manifest['format']} of {manifest['distance']}, expected {DERIVED_FORMAT}")
    for name, expected in manifest["files"].items():
        path = folder / name
        found = path.stat()
        seal = _sha256(path, found.st_ino, found.st_size, found.st_mtime_ns)
        if found.st_size != expected["bytes"] or seal != expected["sha256"]:
            raise ValueError(f"{name} does not match its checksum")
    table = np.load(folder / "rows.npy", allow_pickle=False)
    return Derived(folder / "index", int(manifest["generation"]), table[:, 0], table[:, 1])


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, inode: int, size: int, changed: int) -> str:
    """Return the sha256 of a file; one that has not changed since is not read again."""
    return sha256_file(path)


def _distance_of(name: str) -> str:
    return name.rpartition("-")[0]
