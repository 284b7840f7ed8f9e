"""A finished embeddings folder <-> `manifest.json`: what is in it, and the sha256 of every file of it.

The manifest is written last and seals itself, so that a byte that changed anywhere in a folder is found before
anything of it is used. It guards against accidents, not against someone who writes a new manifest.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vssl.errors import FormatError, InputError, raise_lack, shown
from vssl.files import write_json
from vssl.model.identity import sha256_bytes, sha256_file

FORMAT = 2
MANIFEST = "manifest.json"
FAILURES = "failures.parquet"
INPUTS = ".inputs.parquet"
PROGRESS = ".progress"  # of an extraction under way
SEAL = "sha256"
KEYS: dict[str, type] = {
    "model_id": str, "parts": list, "rows": int, "failures": int, "files": dict
}  # fmt: skip
AGAIN = "extract the folder again: vssl extract IMAGES OUT --overwrite"


def write_manifest(
    folder: Path, *, model_id: str, parts: Sequence[str], rows: int, failures: int, **more: Any
) -> None:
    """Write `manifest.json`, which makes the folder complete; its files must all be there."""
    others = [name for name in (FAILURES, INPUTS) if (folder / name).is_file()]
    values = {
        "format": FORMAT,
        "model_id": model_id,
        "parts": list(parts),
        "rows": rows,
        "failures": failures,
        "files": {name: sha256_file(folder / name) for name in [*parts, *others]},
        **more,
    }
    write_json(folder / MANIFEST, {**values, SEAL: _seal(values)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read `manifest.json`. Raises InputError for a folder that is none of ours or unfinished, else FormatError."""
    if not folder.is_dir():
        found = "a file that is no .npy, .npz or .parquet" if folder.is_file() else "no such folder"
        raise InputError(
            f"no embeddings at {str(folder)!r}: found {found}; embed images with: vssl extract IMAGES EMBEDDINGS"
        )
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if any(folder.glob("part-*.parquet")) or (folder / PROGRESS).exists():
            raise InputError(
                f"{str(folder)!r} holds no {MANIFEST}: the extraction has not finished; go on with the command that "
                f"began it: vssl extract IMAGES {shlex.quote(str(folder))} --resume"
            ) from None
        raise InputError(
            f"no embeddings at {str(folder)!r}: found no {MANIFEST}; embed images with: vssl extract IMAGES EMBEDDINGS"
        ) from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: {error}; {AGAIN}") from None
    if not isinstance(values, dict):
        raise FormatError(f"{path}: found {type(values).__name__}, expected an object; {AGAIN}")
    if values.get("format") != FORMAT:
        raise FormatError(f"{path}: found format {shown(values.get('format'))}, expected {FORMAT}; {AGAIN}")
    if values.pop(SEAL, None) != _seal(values):
        raise FormatError(f"{path} does not fit its own sha256: it is damaged or was edited; {AGAIN}")
    for name, kind in KEYS.items():
        if not isinstance(values.get(name), kind):
            raise FormatError(
                f"{path}: found {name} {shown(values.get(name))}, expected {kind.__name__}; {AGAIN}"
            )
    return values


def read_file(
    folder: Path, manifest: dict[str, Any], name: str, columns: list[str] | None = None
) -> pa.Table:
    """Read a Parquet file of a finished folder, once its bytes fit the manifest. Raises FormatError."""
    try:
        data = (folder / name).read_bytes()
    except FileNotFoundError:
        raise FormatError(f"{folder / name} is not there; {AGAIN}") from None
    if sha256_bytes(data) != manifest["files"].get(name):
        raise FormatError(
            f"{folder / name} is damaged: its bytes do not fit the sha256 in {MANIFEST}; {AGAIN}"
        )
    return _parsed(data, folder / name, columns)


def read_part(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file of a folder that is not finished, checked page by page. Raises FormatError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FormatError(f"{path} is not there; {AGAIN}") from None
    return _parsed(data, path, columns)


def parse_table(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """Parse the bytes of a Parquet file, which no thread of pyarrow holds any more when this returns.

    One that still did, as those of `pq.read_table` do, would abort the process if Python ended just then.
    """
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    return file.read(columns, use_threads=False)


def _parsed(data: bytes, path: Path, columns: list[str] | None) -> pa.Table:
    # From memory: a path with a colon in it would be taken for a URL.
    try:
        return parse_table(data, columns)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise_lack(error)
        raise FormatError(f"{path} is damaged ({error}); {AGAIN}") from error


def _seal(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
