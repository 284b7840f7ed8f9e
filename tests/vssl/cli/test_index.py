"""`vssl index`: a gallery that says which distance it has, and why."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

from tests.vssl.cli.command import vssl


def test_an_existing_gallery_is_kept_without_overwrite(house: Path, tmp_path: Path) -> None:
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


def test_a_gallery_and_its_embeddings_do_not_lie_within_each_other(house: Path, tmp_path: Path) -> None:
    source = tmp_path / "all" / "embeddings"
    shutil.copytree(house / "embeddings", source)
    before = sorted(source.rglob("*"))
    for target in (source / "gallery", source / "deep" / "gallery", source, source.parent):
        done = vssl("index", source, target, "--overwrite")
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
        assert sorted(source.rglob("*")) == before
    done = vssl("index", source, source / "gallery")
    assert "lie within each other" in done.stderr


def test_index_says_which_distance_won_and_uses_it(labelled: Path, tmp_path: Path) -> None:
    target = tmp_path / "gallery"
    done = vssl("index", labelled, target, "--no-normalise")
    assert done.returncode == 0, done.stderr
    assert "400 images, distance posterior" in done.stdout
    assert "distance posterior: best on held-out images; mAP@R" in done.stdout
    assert "posterior *" in done.stdout
    rows = [line for line in done.stdout.splitlines() if line.startswith("│")]
    assert 4 <= len(rows) <= 6
    assert any(line.startswith("│ cosine") for line in rows)
    assert f"more distances: vssl gallery info {target} --verbose" in done.stdout
    everything = vssl("gallery", "info", target, "--verbose").stdout
    for name in ("cosine", "mls", "posterior *", "mAP@R", "hub max", "100 held-out images searched"):
        assert name in everything
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


def test_the_search_it_recommends_runs_as_printed(house: Path, tmp_path: Path) -> None:
    done = vssl("index", house / "embeddings", tmp_path / "my photos")
    command = shlex.split(done.stderr.partition("search it with: ")[2])
    assert command[:2] == ["vssl", "search"]
    found = vssl(*command[1:], "--json")
    assert found.returncode == 0, found.stderr
    assert len(json.loads(found.stdout)["neighbours"]) == 10


def test_a_budget_prints_what_was_measured(house: Path, tmp_path: Path) -> None:
    done = vssl("index", house / "embeddings", tmp_path / "g", "--budget", "recall=0.9")
    assert done.returncode == 0, done.stderr
    assert "index: flat: recall@10 1.000" in done.stdout
    done = vssl("index", house / "embeddings", tmp_path / "h", "--budget", "speed=9")
    assert done.returncode == 1
    assert "expected memory=2GB" in done.stderr
