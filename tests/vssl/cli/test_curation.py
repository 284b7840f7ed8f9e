"""`vssl gallery duplicates / uncertain / ... / select`: a table, JSON, Parquet and a sheet of one list; and `map`."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.vssl.cli.command import vssl
from vssl.images.sources import open_source


@pytest.mark.parametrize("verb", ["duplicates", "uncertain", "outliers", "suspects", "select"])
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


def test_nothing_found_is_a_table_of_no_rows(house: Path, tmp_path: Path) -> None:
    csv_file, parquet = tmp_path / "none.csv", tmp_path / "none.parquet"
    done = vssl(
        "gallery", "duplicates", house / "gallery", "--least", "1", "--csv", csv_file, "--parquet", parquet
    )
    assert (done.returncode, "near-duplicates: none" in done.stderr) == (0, True)
    with csv_file.open(newline="") as file:
        reader = csv.DictReader(file)
        assert (list(reader), reader.fieldnames) == ([], pq.read_table(parquet).column_names)
    assert {"id", "other", "distance"} <= set(pq.read_table(parquet).column_names)


@pytest.mark.parametrize("flag", ["--csv", "--parquet", "--sheet", "--list"])
def test_a_file_of_another_kind_is_not_replaced(house: Path, tmp_path: Path, flag: str) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"the only copy")
    done = vssl("gallery", "select", house / "gallery", flag, photo)
    assert (done.returncode, "expected a name that ends in ." in done.stderr) == (2, True)
    assert photo.read_bytes() == b"the only copy"
    lost = vssl("gallery", "select", house / "gallery", "--csv", tmp_path / "none" / "a.csv")
    assert (lost.returncode, "there is no folder" in lost.stderr) == (2, True)


def test_a_table_shows_ten_and_says_how_to_see_the_others(house: Path, tmp_path: Path) -> None:
    short = vssl("gallery", "uncertain", house / "gallery", "--csv", tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="") as file:
        found = [row["id"] for row in csv.DictReader(file)]
    assert 10 < len(found) <= 50
    assert short.stdout.splitlines()[-1] == f"{len(found) - 10} more: -n {len(found)}, or --csv FILE"
    assert [id_ in short.stdout for id_ in found] == [True] * 10 + [False] * (len(found) - 10)
    assert found[-1] in vssl("gallery", "uncertain", house / "gallery", "-n", str(len(found))).stdout


def test_what_to_label_next_is_a_list_that_extract_reads(house: Path, tmp_path: Path) -> None:
    listed = tmp_path / "next.jsonl"
    done = vssl(
        "gallery", "select", house / "gallery", "-n", "3", "--strategy", "diverse", "--list", listed, "--json"
    )
    assert done.returncode == 0, done.stderr
    chosen = [json.loads(line)["id"] for line in done.stdout.splitlines()]
    assert [item.id for item in open_source(f"list:{listed}").items] == chosen
    wrong = vssl("gallery", "select", house / "gallery", "--strategy", "clever")
    assert (wrong.returncode, "expected one of uncertain, diverse, typical" in wrong.stderr) == (1, True)


def test_a_map_is_made_once(house: Path, tmp_path: Path) -> None:
    gallery = shutil.copytree(house / "gallery", tmp_path / "gallery")
    done = vssl("gallery", "map", gallery, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert len(pq.read_table(said["map"])) == said["images"] > 0
