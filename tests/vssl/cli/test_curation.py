"""`vssl gallery duplicates / uncertain / outliers / suspects`: a table, JSON, Parquet and a sheet of one list."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.vssl.cli.command import vssl


@pytest.mark.parametrize("verb", ["duplicates", "uncertain", "outliers", "suspects"])
def test_curation_prints_writes_and_draws(house: Path, tmp_path: Path, verb: str) -> None:
    done = vssl(
        "gallery", verb, house / "gallery", "-n", "5", "--json",
        *(("--least", "0") if verb == "duplicates" else ()),
        "--parquet", tmp_path / "found.parquet", "--csv", tmp_path / "found.csv", "--sheet", tmp_path / "sheet.png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert pq.read_table(tmp_path / "found.parquet").to_pylist() == found
    with (tmp_path / "found.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [list(row) for row in table] == [list(row) for row in found]
    assert [row["id"] for row in table] == [row["id"] for row in found]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 100
    assert 0 < len(found) <= 5
    shown = vssl("gallery", verb, house / "gallery", "-n", "2")
    assert shown.returncode == 0, shown.stderr
