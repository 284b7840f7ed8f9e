"""The model card: one JSON text, strict about what it holds."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from vssl.errors import FormatError
from vssl.images.preprocess import Preprocess
from vssl.model.card import Calibration, ModelCard

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
