"""`vssl gallery`: a gallery is looked at, changed, refitted and copied."""

from __future__ import annotations

import json
from pathlib import Path

from tests.vssl.cli.command import one_sentence, vssl


def test_a_gallery_is_changed_by_add_remove_and_compact(house: Path, tmp_path: Path) -> None:
    target = tmp_path / "gallery"
    vssl("index", house / "embeddings", target)
    some = vssl("gallery", "remove", target, "a/0.png", "a/1.png", "nobody")
    assert (some.returncode, "removed 2, now 22" in some.stdout) == (1, True)
    assert "not in the gallery: 'nobody'" in some.stderr
    assert vssl("gallery", "remove", target, "a/2.png").returncode == 0
    assert "removed 8, now 13" in vssl("gallery", "remove", target, "--where", '{"label": "b"}').stdout
    done = vssl("gallery", "add", target, house / "embeddings")
    assert done.returncode == 1
    assert "13 of 24 ids are in the gallery already" in done.stderr
    assert "added 24, now 24" in vssl("gallery", "add", target, house / "embeddings", "--replace").stdout
    assert "bytes before" in vssl("gallery", "compact", target).stdout
    facts = json.loads(vssl("gallery", "info", target, "--json").stdout)
    assert (facts["items"], facts["labels"], facts["index_damage"]) == (24, 3, None)
    assert vssl("gallery", "remove", target).returncode == 2
    twice = '{"id": {">": "a/4"}, "id": {"<": "a/6"}}'
    assert "the key 'id' is given twice" in one_sentence(vssl("gallery", "remove", target, "--where", twice))


def test_refit_chooses_again_and_compact_refits_what_is_stale(labelled: Path, tmp_path: Path) -> None:
    target = tmp_path / "gallery"
    vssl("index", labelled, target, "--no-normalise", "--distance", "mls")
    assert "distance mls" in vssl("gallery", "refit", target).stdout
    made = json.loads(vssl("gallery", "refit", target, "--distance", "best", "--json").stdout)
    assert (made["distance"], made["fitting"]["chosen"]) == ("posterior", "best on held-out images")
    vssl("gallery", "remove", target, *(f"i{row}" for row in range(100)))
    assert f"run: vssl gallery refit {target}" in vssl("gallery", "info", target).stdout
    done = vssl("gallery", "compact", target)
    assert "75 held-out images searched" in done.stdout
    assert json.loads(vssl("gallery", "info", target, "--json").stdout)["fitting"]["stale"] is None
    done = vssl("gallery", "add", target, labelled, "--replace")
    assert f"run: vssl gallery refit {target}" in done.stderr


def test_a_place_without_a_gallery_says_how_to_make_one(tmp_path: Path) -> None:
    done = vssl("gallery", "info", tmp_path / "nothing")
    assert done.returncode == 1
    assert "vssl index EMBEDDINGS" in done.stderr
    for verb in ("refit", "compact", "map"):
        said = one_sentence(vssl("gallery", verb, "milvus:./photos.db#a"))
        assert "vssl gallery move milvus:URI#NAME FOLDER" in said


def test_move_and_snapshot_copy_a_gallery(house: Path, tmp_path: Path) -> None:
    assert "24 images" in vssl("gallery", "snapshot", house / "gallery", tmp_path / "copy").stdout
    for verb in ("snapshot", "move"):
        within = vssl("gallery", verb, tmp_path / "copy", tmp_path / "copy" / "backup")
        assert (within.returncode, "lies within the gallery" in within.stderr) == (1, True)
        assert not (tmp_path / "copy" / "backup").exists()
    assert "24 images" in vssl("gallery", "move", tmp_path / "copy", tmp_path / "moved").stdout
    done = vssl("gallery", "move", tmp_path / "copy", tmp_path / "moved")
    assert done.returncode == 1
    assert "exists already" in done.stderr


def test_metadata_from_a_table_can_be_filtered_by(house: Path, tmp_path: Path) -> None:
    table = tmp_path / "notes.csv"
    table.write_text("id,year\na/0.png,2020\nb/1.png,2021\nnobody,1\n")
    target = tmp_path / "gallery"
    done = vssl("index", house / "embeddings", target, "--metadata", table)
    assert done.returncode == 0
    assert (
        "metadata: 22 of 24 images have none, 1 of 3 ids of the table are no image, such as 'nobody'"
        in done.stderr
    )
    asked = ("search", target, house / "images" / "c" / "0.png", "--model", house / "model.onnx", "--json")
    found = json.loads(vssl(*asked, "--where", '{"year": {">=": 2020}}').stdout)
    assert {n["id"] for n in found["neighbours"]} == {"a/0.png", "b/1.png"}
    table.write_text("id,year\na/0.png,1999\n")
    assert (
        vssl("gallery", "add", target, house / "embeddings", "--replace", "--metadata", table).returncode == 0
    )
    found = json.loads(vssl(*asked, "--where", '{"year": {"<": 2020}}').stdout)
    assert [n["id"] for n in found["neighbours"]] == ["a/0.png"]


def test_info_lists_the_metadata_and_a_filter_means_what_a_person_writes(house: Path, tmp_path: Path) -> None:
    table, target = tmp_path / "notes.csv", tmp_path / "gallery"
    table.write_text("id,year,make\na/0.png,2020,x\na/1.png,2021,\nb/1.png,2021,y\n")
    assert vssl("index", house / "embeddings", target, "--metadata", table).returncode == 0
    facts = json.loads(vssl("gallery", "info", target, "--json").stdout)
    assert facts["metadata"] == {"make": {"text": 2}, "year": {"number": 3}}
    shown = vssl("gallery", "info", target).stdout
    assert "metadata make      2 text" in shown
    assert "metadata year      3 number" in shown
    asked = ("search", target, house / "images" / "c" / "0.png", "--model", house / "model.onnx", "--json")
    found = json.loads(vssl(*asked, "--where", "year=2021").stdout)["neighbours"]
    assert {n["id"]: n["metadata"] for n in found} == {
        "a/1.png": {"year": 2021},
        "b/1.png": {"year": 2021, "make": "y"},
    }
    for where, told in (("yaer=2021", "did you mean 'year'?"), ("year=new", "no item has a text there")):
        done = vssl(*asked, "--where", where)
        assert done.returncode == 1
        assert told in " ".join(done.stderr.split())


def test_a_table_of_other_ids_is_refused_and_changes_nothing(house: Path, tmp_path: Path) -> None:
    table, target = tmp_path / "notes.csv", tmp_path / "gallery"
    table.write_text("id,year\n0.png,2020\n")
    done = vssl("index", house / "embeddings", target, "--metadata", table)
    assert done.returncode == 1
    assert "none of its 1 ids, such as '0.png', is among the images" in " ".join(done.stderr.split())
    assert not target.exists()
    assert vssl("index", house / "embeddings", target).returncode == 0
    done = vssl("gallery", "add", target, house / "embeddings", "--replace", "--metadata", table)
    assert done.returncode == 1
    assert json.loads(vssl("gallery", "info", target, "--json").stdout)["metadata"] == {}
