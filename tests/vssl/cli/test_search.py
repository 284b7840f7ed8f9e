"""`vssl index`, `vssl search` and `vssl gallery`, as a person and as a program use them."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.index.calibration.test_selection import classes
from tests.index.samples import MODEL, card
from tests.tiny_model import picture, tiny_model
from tests.vssl.cli import test_main
from vssl.cli import main
from vssl.embeddings.store import Rows, part_name, to_table, write_manifest, write_table


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def vssl(*words: str | Path) -> Done:
    """Run the command line in this process: the same entry point, without a start a call."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["vssl", *map(str, words)])
        try:
            main.run()
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, three folders of eight pictures each, one broken file, embeddings and a gallery."""
    home = tmp_path_factory.mktemp("house")
    tiny_model(home / "model.onnx")
    for label in "abc":
        (home / "images" / label).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(picture(ord(label) * 100 + i)).save(home / "images" / label / f"{i}.png")
    (home / "images" / "a" / "broken.png").write_bytes(b"no image")
    done = test_main.vssl("extract", home / "images", home / "embeddings", "--model", home / "model.onnx")
    assert done.returncode == 0, done.stderr
    done = test_main.vssl("index", home / "embeddings", home / "gallery")
    assert done.returncode == 0, done.stderr
    assert "24 images, distance cosine" in done.stdout
    return home


def test_search_json_is_one_object_a_query_in_order(house: Path) -> None:
    asked = [house / "images" / name for name in ("b/3.png", "a/0.png")]
    done = vssl("search", house / "gallery", *asked, "--model", house / "model.onnx", "-k", "3", "--json")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [f["query"] for f in found] == [str(path) for path in asked]
    for answer, name in zip(found, ("b/3.png", "a/0.png"), strict=True):
        assert list(answer) == ["query", "uncertainty", "neighbours"]
        assert len(answer["neighbours"]) == 3
        nearest = answer["neighbours"][0]
        assert list(nearest) == ["id", "label", "distance", "variance_score", "match_probability", "metadata"]
        assert (nearest["id"], nearest["label"]) == (name, name[0])
        assert nearest["distance"] == pytest.approx(0, abs=1e-6)


def test_an_unreadable_query_is_answered_beside_the_others(house: Path) -> None:
    asked = [house / "images" / "a" / name for name in ("broken.png", "1.png")]
    done = vssl("search", house / "gallery", *asked, "--model", house / "model.onnx", "--json")
    assert done.returncode == 1
    broken, good = (json.loads(line) for line in done.stdout.splitlines())
    assert broken["query"].endswith("broken.png")
    assert broken["error"]["code"] == "unsupported_type"
    assert len(good["neighbours"]) == 10


def test_search_prints_a_table_with_filters_applied(house: Path) -> None:
    image, model = house / "images" / "a" / "0.png", house / "model.onnx"
    done = vssl("search", house / "gallery", image, "--model", model, "-k", "4", "--where", "label=c")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("│ c/") == 4
    assert "│ a/" not in done.stdout
    assert "of the gallery" in " ".join(done.stdout.split())
    done = vssl("search", house / "gallery", image, "--model", model, "--max-uncertainty", "-1", "--json")
    assert json.loads(done.stdout)["neighbours"] == []


def test_a_risk_says_which_answers_not_to_trust(house: Path) -> None:
    image, model = house / "images" / "a" / "0.png", house / "model.onnx"
    done = vssl("search", house / "gallery", image, "--model", model, "--max-risk", "0.05", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == ["query", "uncertainty", "abstain", "neighbours"]
    assert found["abstain"] is True  # so few images prove nothing
    assert "answers 0% of 18 images" in done.stderr
    done = vssl("search", house / "gallery", image, "--model", model, "--max-risk", "0.05")
    assert "too doubtful to answer" in done.stdout
    done = vssl("search", house / "gallery", image, "--model", model, "--max-risk", "5")
    assert done.returncode == 1
    assert "--max-risk 0.05" in done.stderr


def test_another_model_is_refused_with_what_to_type(house: Path) -> None:
    tiny_model(house / "other.onnx", seed=1)
    done = vssl("search", house / "gallery", house / "images", "--model", house / "other.onnx")
    assert done.returncode == 1
    assert "vssl extract IMAGES EMBEDDINGS" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_existing_gallery_is_kept_unless_told(house: Path, tmp_path: Path) -> None:
    target = tmp_path / "gallery"
    assert vssl("index", house / "embeddings", target).returncode == 0
    done = vssl("index", house / "embeddings", target)
    assert done.returncode == 1
    assert "--overwrite" in done.stderr
    done = vssl("index", house / "embeddings", target, "--overwrite", "--distance", "wasserstein")
    assert done.returncode == 0
    assert [p.name for p in tmp_path.iterdir()] == ["gallery"]
    assert json.loads(vssl("gallery", "info", target, "--json").stdout)["distance"] == "wasserstein"
    done = vssl("index", house / "embeddings", house / "images", "--overwrite")
    assert done.returncode == 1
    assert "is no gallery" in done.stderr
    assert (house / "images" / "a").is_dir()


def test_a_gallery_is_changed_by_add_remove_and_compact(house: Path, tmp_path: Path) -> None:
    target = tmp_path / "gallery"
    vssl("index", house / "embeddings", target)
    assert "removed 2, now 22" in vssl("gallery", "remove", target, "a/0.png", "a/1.png", "nobody").stdout
    assert "removed 8, now 14" in vssl("gallery", "remove", target, "--where", '{"label": "b"}').stdout
    done = vssl("gallery", "add", target, house / "embeddings")
    assert done.returncode == 1
    assert "14 of 24 ids are in the gallery already" in done.stderr
    assert "added 24, now 24" in vssl("gallery", "add", target, house / "embeddings", "--replace").stdout
    assert "bytes before" in vssl("gallery", "compact", target).stdout
    facts = json.loads(vssl("gallery", "info", target, "--json").stdout)
    assert (facts["items"], facts["labels"], facts["index_damage"]) == (24, 3, None)
    assert vssl("gallery", "remove", target).returncode == 2


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embeddings folder of classes whose images are blurred by their own variance."""
    folder = tmp_path_factory.mktemp("labelled") / "embeddings"
    folder.mkdir()
    items, labels = classes(400, 8)
    names = [f"i{row}" for row in range(400)]
    write_table(to_table(Rows(names, names, labels, items), card(), MODEL), folder / part_name(0))
    write_manifest(folder, model_id=MODEL, parts=[part_name(0)], rows=400, failures=0)
    return folder


def test_index_says_which_distance_won_and_uses_it(labelled: Path, tmp_path: Path) -> None:
    target = tmp_path / "gallery"
    done = vssl("index", labelled, target, "--no-normalise")
    assert done.returncode == 0, done.stderr
    assert "400 images, distance posterior" in done.stdout
    for name in ("cosine", "mls", "posterior *", "mAP@R", "hub max", "100 held-out images asked"):
        assert name in done.stdout
    facts = json.loads(vssl("gallery", "info", target, "--json").stdout)
    assert facts["distance"] == "posterior"
    assert next(iter(facts["fitting"]["trials"])) == "cosine"
    assert len(facts["fitting"]["parameters"]["between"]) == 8
    for verb in (("gallery", "info"), ("inspect",)):
        assert "between" in vssl("inspect", target).stdout
        assert "posterior" in vssl(*verb, target).stdout
    done = vssl("index", labelled, target, "--overwrite", "--distance", "mls", "--json")
    made = json.loads(done.stdout)
    assert (made["images"], made["distance"], made["fitting"]["chosen"]) == (400, "mls", "given")
    assert vssl("index", labelled, tmp_path / "other", "--distance", "angle").returncode == 1
    assert [p.name for p in tmp_path.iterdir()] == ["gallery"]


def test_refit_chooses_anew_and_compact_refits_what_is_stale(labelled: Path, tmp_path: Path) -> None:
    target = tmp_path / "gallery"
    vssl("index", labelled, target, "--no-normalise", "--distance", "mls")
    assert "distance mls" in vssl("gallery", "refit", target).stdout
    made = json.loads(vssl("gallery", "refit", target, "--distance", "best", "--json").stdout)
    assert (made["distance"], made["fitting"]["chosen"]) == ("posterior", "best on held-out images")
    vssl("gallery", "remove", target, *(f"i{row}" for row in range(100)))
    assert "run: vssl gallery refit GALLERY" in vssl("gallery", "info", target).stdout
    done = vssl("gallery", "compact", target)
    assert "75 held-out images asked" in done.stdout
    assert json.loads(vssl("gallery", "info", target, "--json").stdout)["fitting"]["stale"] is None
    done = vssl("gallery", "add", target, labelled, "--replace")
    assert "run: vssl gallery refit GALLERY" in done.stderr


def test_a_place_without_a_gallery_says_how_to_make_one(tmp_path: Path) -> None:
    done = vssl("gallery", "info", tmp_path / "nothing")
    assert done.returncode == 1
    assert "vssl index EMBEDDINGS" in done.stderr


@pytest.mark.parametrize("verb", ["duplicates", "uncertain", "outliers", "suspects"])
def test_curation_prints_writes_and_draws(house: Path, tmp_path: Path, verb: str) -> None:
    done = vssl(
        "gallery", verb, house / "gallery", "-n", "5", "--json",
        *(("--least", "0") if verb == "duplicates" else ()),
        "--parquet", tmp_path / "found.parquet", "--sheet", tmp_path / "sheet.png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert pq.read_table(tmp_path / "found.parquet").to_pylist() == found
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 100
    assert 0 < len(found) <= 5
    table = vssl("gallery", verb, house / "gallery", "-n", "2")
    assert table.returncode == 0, table.stderr


def test_move_and_snapshot_copy_a_gallery(house: Path, tmp_path: Path) -> None:
    assert "24 images" in vssl("gallery", "snapshot", house / "gallery", tmp_path / "copy").stdout
    assert "24 images" in vssl("gallery", "move", tmp_path / "copy", tmp_path / "moved").stdout
    done = vssl("gallery", "move", tmp_path / "copy", tmp_path / "moved")
    assert done.returncode == 1
    assert "exists already" in done.stderr


def test_a_budget_prints_what_was_measured(house: Path, tmp_path: Path) -> None:
    done = vssl("index", house / "embeddings", tmp_path / "g", "--budget", "recall=0.9")
    assert done.returncode == 0, done.stderr
    assert "index: flat: recall@10 1.000" in done.stdout
    done = vssl("index", house / "embeddings", tmp_path / "h", "--budget", "speed=9")
    assert done.returncode == 1
    assert "expected memory=2GB" in done.stderr


def test_metadata_from_a_table_can_be_filtered_by(house: Path, tmp_path: Path) -> None:
    table = tmp_path / "notes.csv"
    table.write_text("id,year\na/0.png,2020\nb/1.png,2021\nnobody,1\n")
    target = tmp_path / "gallery"
    assert vssl("index", house / "embeddings", target, "--metadata", table).returncode == 0
    asked = ("search", target, house / "images" / "c" / "0.png", "--model", house / "model.onnx", "--json")
    found = json.loads(vssl(*asked, "--where", '{"year": {">=": 2020}}').stdout)
    assert {n["id"] for n in found["neighbours"]} == {"a/0.png", "b/1.png"}
    table.write_text("id,year\na/0.png,1999\n")
    assert (
        vssl("gallery", "add", target, house / "embeddings", "--replace", "--metadata", table).returncode == 0
    )
    found = json.loads(vssl(*asked, "--where", '{"year": {"<": 2020}}').stdout)
    assert [n["id"] for n in found["neighbours"]] == ["a/0.png"]
