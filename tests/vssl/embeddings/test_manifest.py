"""A finished folder answers for every byte of it: what changed is refused in one sentence, never read."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from serve.extraction.extract import extract
from tests.serve.photo_folder import photo_folder
from tests.support.tiny_model import tiny_model
from vssl.embeddings.manifest import INPUTS, KEYS, MANIFEST, parse_table, read_file, read_manifest
from vssl.embeddings.store import read_embeddings
from vssl.errors import FormatError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made")
    extract(photo_folder(place / "in", 8), place / "out", model=tiny_model(place / "m.onnx"), part_rows=4)
    return place / "out"


def test_the_digests_cover_every_file(folder: Path) -> None:
    files = read_manifest(folder)["files"]
    assert set(files) == {path.name for path in folder.iterdir()} - {MANIFEST}
    assert INPUTS in files


@pytest.mark.parametrize("name", ["part-00000.parquet", "failures.parquet", MANIFEST])
def test_no_flipped_byte_is_read(folder: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    whole = (out / name).read_bytes()
    random = np.random.default_rng(1)
    for place in random.integers(0, len(whole), 60):
        data = bytearray(whole)
        data[place] ^= 1 << int(random.integers(8))
        (out / name).write_bytes(data)
        with pytest.raises(FormatError) as caught:
            read_embeddings(out)
        assert "vssl extract" in str(caught.value)
    (out / name).write_bytes(whole)
    assert len(read_embeddings(out).rows) == 8


@pytest.mark.parametrize("key", [*KEYS, "format"])
def test_a_manifest_without_a_key_is_one_sentence(folder: Path, tmp_path: Path, key: str) -> None:
    shutil.copytree(folder, tmp_path / "out")
    values = json.loads((folder / MANIFEST).read_text())
    del values[key]
    (tmp_path / "out" / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(FormatError, match=r"manifest\.json"):
        read_manifest(tmp_path / "out")


def test_a_missing_or_unnamed_file_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "out")
    (tmp_path / "out" / "part-00001.parquet").unlink()
    with pytest.raises(FormatError, match=r"part-00001.parquet is not there"):
        read_embeddings(tmp_path / "out")
    with pytest.raises(FormatError, match="do not fit the sha256"):
        read_file(folder, read_manifest(folder), MANIFEST)


def test_no_thread_holds_the_bytes_of_a_table_that_was_read(folder: Path) -> None:
    """One that did would end the process with an abort, whenever Python ended right after a table was read."""
    data = (folder / "part-00000.parquet").read_bytes()
    free = sys.getrefcount(data)
    for _ in range(300):
        table = parse_table(data)
        assert len(table)
        assert sys.getrefcount(data) == free
