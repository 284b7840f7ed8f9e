"""`vssl inspect` prints a model's card, and repeats what is wrong with its calibration."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import helper

from tests.support.tiny_model import tiny_model
from tests.support.tiny_run import tiny_run
from tests.vssl.cli.test_search import vssl
from vssl.model.card import CARD_KEY
from vssl.model.seal import sealed


def with_calibration(path: Path, **values: object) -> Path:
    """Write another calibration onto a model's card."""
    model = onnx.load(str(path))
    entries = {entry.key: entry.value for entry in model.metadata_props}
    card = json.loads(entries[CARD_KEY])
    card["calibration"] |= values
    helper.set_model_props(model, entries | {CARD_KEY: json.dumps(card)})
    path.write_bytes(sealed(model.SerializeToString()))
    return path


def test_embeddings_a_gallery_and_a_run_say_what_they_are(house: Path, tmp_path: Path) -> None:
    embeddings = json.loads(vssl("inspect", house / "embeddings", "--json").stdout)
    assert (embeddings["artefact"], embeddings["rows"], embeddings["failures"]) == ("embeddings", 24, 1)
    assert embeddings["card"]["name"] == "tiny-0"
    gallery = json.loads(vssl("inspect", house / "gallery", "--json").stdout)
    assert (gallery["artefact"], gallery["items"], gallery["distance"]) == ("gallery", 24, "cosine")
    run = tiny_run(tmp_path / "run", house / "images")
    for path in (run, run / "checkpoint.pt"):
        facts = json.loads(vssl("inspect", path, "--json").stdout)
        assert (facts["artefact"], facts["step"], facts["preprocess"]["size"]) == ("checkpoint", 1, 16)
    assert "artefact" in vssl("inspect", house / "embeddings").stdout


def test_a_planted_bad_calibration_is_said(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model.onnx")
    planted = {"ratio": 1.54, "ratio_low": 1.4, "ratio_high": 1.7, "rank_correlation": 0.7, "images": 300}
    done = vssl("inspect", with_calibration(model, **planted))
    assert done.returncode == 0, done.stderr
    assert "warning: the predicted variance is 1.54 (1.40 to 1.70) times the measured one" in done.stderr
    assert "--calibration IMAGES" in done.stderr


def test_a_good_one_is_not_warned_of(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model.onnx")
    done = vssl("inspect", with_calibration(model, ratio=1.02, rank_correlation=0.7), "--json")
    assert "warning" not in done.stderr
    assert json.loads(done.stdout)["calibration"]["ratio"] == 1.02
