"""`vssl search`: neighbours for a person and for a program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.tiny_model import tiny_model
from tests.vssl.cli.command import one_sentence, vssl


def test_search_json_is_one_object_a_query_in_order(house: Path) -> None:
    asked = [house / "images" / name for name in ("b/3.png", "a/0.png")]
    done = vssl("search", house / "gallery", *asked, "--model", house / "model.onnx", "-k", "3", "--json")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [f["query"] for f in found] == [str(path) for path in asked]
    for answer, name in zip(found, ("b/3.png", "a/0.png"), strict=True):
        assert set(answer) == {"query", "uncertainty", "uncertainty_percentile", "risk", "neighbours"}
        assert len(answer["neighbours"]) == 3
        nearest = answer["neighbours"][0]
        scores = {"distance", "variance_score", "match_probability", "uncertainty"}
        assert set(nearest) == {"id", "label", *scores, "metadata"}
        assert (nearest["id"], nearest["label"]) == (name, name[0])
        assert nearest["distance"] == pytest.approx(0, abs=1e-6)


def test_an_unreadable_query_is_answered_with_the_others(house: Path) -> None:
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
    done = vssl("search", house / "gallery", image, "--model", model, "--max-uncertainty", "0", "--json")
    assert json.loads(done.stdout)["neighbours"] == []
    unknown = vssl("search", house / "gallery", image, "--model", model, "--max-uncertainty", "nan")
    assert (unknown.returncode, "max_uncertainty: found nan" in unknown.stderr) == (1, True)
    for percent in ("30", "-0.1"):
        wrong = vssl("search", house / "gallery", image, "--model", model, f"--max-uncertainty={percent}")
        assert "expected a number from 0 to 1" in one_sentence(wrong)


def test_a_risk_says_which_answers_not_to_trust(house: Path) -> None:
    image, model = house / "images" / "a" / "0.png", house / "model.onnx"
    done = vssl("search", house / "gallery", image, "--model", model, "--max-risk", "0.05", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    known = {"uncertainty", "uncertainty_percentile", "risk", "abstain"}
    assert set(found) == {"query", *known, "neighbours"}
    assert found["abstain"] is True  # so few images prove nothing
    assert "of 18 images of the gallery that search it, 0% are answered at a risk of 0.05" in done.stderr
    assert "the least risk that could be held is about" in done.stderr or "no risk up to 0.5" in done.stderr
    done = vssl("search", house / "gallery", image, "--model", model, "--max-risk", "0.05")
    assert "too uncertain to answer" in done.stdout
    done = vssl("search", house / "gallery", image, "--model", model, "--max-risk", "5")
    assert done.returncode == 1
    assert "--max-risk 0.05" in done.stderr


def test_another_model_is_refused_with_what_to_type(house: Path) -> None:
    tiny_model(house / "other.onnx", seed=1)
    done = vssl("search", house / "gallery", house / "images", "--model", house / "other.onnx")
    assert done.returncode == 1
    assert "vssl extract IMAGES EMBEDDINGS" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_distance_that_may_be_negative_is_explained(house: Path) -> None:
    image, model = house / "images" / "a" / "0.png", house / "model.onnx"
    done = vssl("search", house / "gallery", image, "--model", model, "--distance", "mls")
    assert "may be negative; lower is nearer" in done.stderr
    done = vssl("search", house / "gallery", image, "--model", model, "--distance", "cosine")
    assert "negative" not in done.stderr
