"""Weights leave as safetensors and come back from any plain file, or the message names what does not fit."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.train.picture_folder import TINY, write_pictures
from train.loop.run import train_images
from train.loop.trainer import Outcome
from train.methods import build_encoder
from train.models.weights import WEIGHTS_NAME, read_weights
from train.settings.config import TrainConfig
from train.settings.recipe import merge
from train.state.checkpoint import CHECKPOINT_NAME, load_checkpoint
from vssl.errors import FormatError, InputError, MismatchError


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "pictures", 12)


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "trained"
    train(pictures, out, {"epochs": 1})
    return out


def train(pictures: Path, out: Path, over: dict[str, Any], **options: Any) -> Outcome:
    return train_images(
        str(pictures), out, recipe="small", settings=merge(TINY, over), device="cpu", threads=1, **options
    )


def test_a_finished_run_leaves_its_student_with_its_settings(trained: Path) -> None:
    checkpoint, tensors = load_checkpoint(trained), load_file(trained / WEIGHTS_NAME)
    assert tensors.keys() == checkpoint.student.keys()
    assert all(torch.equal(value, checkpoint.student[name]) for name, value in tensors.items())
    with safe_open(trained / WEIGHTS_NAME, "pt") as file:
        metadata = file.metadata()
    assert TrainConfig.from_dict(json.loads(metadata["config"])) == checkpoint.config
    assert json.loads(metadata["preprocess"])["size"] == 16
    assert json.loads(metadata["summary"])["epochs"] == 1


def forms(trained: Path, folder: Path) -> dict[str, Path]:
    """The same weights in every form that is read."""
    student = load_checkpoint(trained).student
    paths = {"run": trained, "checkpoint": trained / CHECKPOINT_NAME, "safetensors": trained / WEIGHTS_NAME}
    for name, values in (
        ("plain", student),
        ("nested", {"state_dict": student, "epoch": 3}),
        ("backbone", {name: v for name, v in student.items() if name.startswith("backbone.")}),
    ):
        paths[name] = folder / f"{name}.pth"
        torch.save(values, paths[name])
    return paths


def test_a_new_run_begins_with_the_weights_of_any_form(pictures: Path, trained: Path, tmp_path: Path) -> None:
    student = load_checkpoint(trained).student
    for name, path in forms(trained, tmp_path).items():
        outcome = train(pictures, tmp_path / name, {"epochs": 0}, init=path)
        for key, value in outcome.checkpoint.student.items():
            expected = torch.equal(value, student[key])
            assert expected or (name == "backbone" and key.startswith("projector.")), (name, key)
        assert outcome.checkpoint.summary["init"] == str(path)
        teacher = build_encoder(outcome.checkpoint, "teacher").state_dict()
        assert all(torch.equal(v, teacher[k]) for k, v in outcome.checkpoint.student.items())


def test_the_method_may_be_another_when_the_projector_is_left_out(
    pictures: Path, trained: Path, tmp_path: Path
) -> None:
    path = forms(trained, tmp_path)["backbone"]
    outcome = train(pictures, tmp_path / "run", {"method": "simclr", "epochs": 1}, init=path)
    assert outcome.checkpoint.summary["method"] == "simclr"
    with pytest.raises(MismatchError, match=r"projector.*expected|projector.*not in"):
        train(pictures, tmp_path / "other", {"method": "simclr"}, init=trained)


def test_what_does_not_fit_is_named_before_anything_is_decoded(
    pictures: Path, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        MismatchError, match=r"backbone.stem.0.weight: found \(8, 3, 3, 3\), expected \(12, 3, 3, 3\)"
    ):
        train(pictures, tmp_path / "wide", {"network": {"width": 12}}, init=trained)
    tensors = load_file(trained / WEIGHTS_NAME)
    tensors["fc.weight"] = torch.zeros(2, 2)
    del tensors["backbone.stem.1.bias"]
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(MismatchError, match="2 tensors do not fit") as caught:
        train(pictures, tmp_path / "odd", {}, init=tmp_path / "other.safetensors")
    assert "backbone.stem.1.bias: not in the file" in str(caught.value)
    assert "fc.weight: in the file, not in this network" in str(caught.value)
    assert not (tmp_path / "odd" / CHECKPOINT_NAME).exists()


class Trap:
    """What a hostile file would run when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("sprung",)


def test_files_that_are_no_weights_run_nothing_and_are_refused(tmp_path: Path) -> None:
    (tmp_path / "trap.pth").write_bytes(pickle.dumps({"state_dict": Trap()}, protocol=2))
    torch.save({"state_dict": Trap()}, tmp_path / "trap2.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"not tensors at all")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    for name, message in (
        ("trap.pth", "weights_only"),
        ("trap2.pth", "weights_only"),
        ("broken.safetensors", "not a readable safetensors file"),
        ("empty.pth", "without tensors"),
    ):
        with pytest.raises(FormatError, match=message):
            read_weights(tmp_path / name)
    assert not Path("sprung").exists()
    with pytest.raises(InputError, match="no file or folder"):
        read_weights(tmp_path / "absent.pth")


def test_a_resumed_run_keeps_its_weights(pictures: Path, trained: Path, tmp_path: Path) -> None:
    train(pictures, tmp_path / "run", {"epochs": 1}, init=trained)
    resumed = train_images(str(pictures), tmp_path / "run", device="cpu", threads=1, resume=True)
    assert resumed.checkpoint.summary["init"] == str(trained)
    with pytest.raises(InputError, match="leave the other options out"):
        train_images(str(pictures), tmp_path / "run", device="cpu", resume=True, init=trained)


def test_a_flipped_byte_of_a_tensor_is_refused(trained: Path, tmp_path: Path) -> None:
    whole = (trained / WEIGHTS_NAME).read_bytes()
    begin = 8 + int.from_bytes(whole[:8], "little")
    for place in range(begin, len(whole), (len(whole) - begin) // 20):
        data = bytearray(whole)
        data[place] ^= 1
        (tmp_path / "flipped.safetensors").write_bytes(data)
        with pytest.raises(FormatError, match="do not fit the sha256"):
            read_weights(tmp_path / "flipped.safetensors")
