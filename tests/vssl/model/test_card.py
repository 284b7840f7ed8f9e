"""The model card: one JSON text, strict about what it holds."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from vssl.errors import FormatError
from vssl.images.preprocess import Preprocess
from vssl.model.card import Calibration, ModelCard, UncertaintyFit

CARD = ModelCard(
    name="digits",
    method="vssl",
    backbone="resnet18-small",
    space="projector",
    dim=16,
    feature_dim=512,
    preprocess=Preprocess(32, 36),
    calibration=Calibration("fitted-head", images=500, views=8, ratio=1.02, rank_correlation=0.7),
    training={"epochs": 10, "loss": 0.25, "note": None, "resumed": True},
)


def test_it_survives_its_json() -> None:
    assert ModelCard.from_json(CARD.to_json()) == CARD


def test_the_same_card_is_the_same_text() -> None:
    assert CARD.to_json() == replace(CARD).to_json()
    assert list(json.loads(CARD.to_json())) == sorted(CARD.to_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "found format 2, expected 1; export the model again"),
        ({"space": "logits"}, "found space 'logits'"),
        ({"supervision": "some"}, "found supervision 'some'"),
        ({"dim": 0}, "found dim 0, expected a positive integer"),
        ({"dim": True}, "found dim True"),
        ({"feature_dim": 1.5}, "found feature_dim 1.5"),
        ({"calibration": {"kind": "guessed"}}, "calibration.kind: found 'guessed'"),
        ({"calibration": None}, "not readable"),
        ({"preprocess": {"size": 3}}, "another version of vssl"),
        ({"colour": "blue"}, "unknown entries .*colour"),
    ],
)
def test_what_is_no_card_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        ModelCard.from_json(json.dumps(CARD.to_dict() | change))


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "3", '{"name": 1}', "\x00"])
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match=r"model card: not readable.*vssl export RUN"):
        ModelCard.from_json(text)


def test_a_predicted_uncertainty_is_one_more_output() -> None:
    assert CARD.output_shapes == {"mean": (16,), "variance": (16,), "features": (512,)}
    predicts = replace(CARD, uncertainty_fit=UncertaintyFit(100, 0.6, 0.9, 0.99), pixel_mean=(0.5, 0.5, 0.5))
    assert predicts.output_shapes["uncertainty"] == ()
    assert ModelCard.from_json(predicts.to_json()) == predicts


def test_a_card_of_an_earlier_version_is_read() -> None:
    later = ("weights", "supervision", "pixel_mean", "pixel_std", "uncertainty_fit")
    values = {name: value for name, value in CARD.to_dict().items() if name not in later}
    del values["calibration"]["ratio_low"], values["calibration"]["ratio_high"]
    assert ModelCard.from_json(json.dumps(values)) == CARD


@pytest.mark.parametrize(
    ("calibration", "said"),
    [
        (Calibration("fitted-head", 1000, 8, 1.02, 0.7, 0.98, 1.06), []),
        (Calibration("none"), ["not calibrated"]),
        (Calibration("scale", 40, 8), ["fitted on 40 images, too few"]),
        (Calibration("fitted-head", 300, 8, 1.54, 0.7, 1.4, 1.7), [r"is 1.54 \(1.40 to 1.70\) times"]),
        (Calibration("fitted-head", 300, 8, 0.79, 0.7), ["is 0.79 times"]),
        (Calibration("fitted-head", 300, 8, 1.0, 0.05), ["rank correlation 0.05"]),
        (Calibration("fitted-head", 300, 8, 2.0, 0.05), ["is 2.00 times", "rank correlation 0.05"]),
    ],
)
def test_a_calibration_says_what_is_wrong_with_it(calibration: Calibration, said: list[str]) -> None:
    found = calibration.warnings()
    assert len(found) == len(said)
    for warning, expected in zip(found, said, strict=True):
        assert re.search(expected, warning)
        assert "export again with more images" in warning
