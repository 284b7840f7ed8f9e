"""A checkpoint is written whole, holds plain values only, and says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from train.settings.config import TrainConfig
from train.state.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vssl.errors import FormatError, InputError
from vssl.images.preprocess import Preprocess


def example(step: int = 3) -> Checkpoint:
    return Checkpoint(
        config=TrainConfig(options={"pairs": "all"}),
        preprocess=Preprocess(size=32, resize=32),
        student={"weight": torch.arange(3.0)},
        teacher=None,
        heads={},
        step=step,
        epoch=1,
        sums={"loss": torch.tensor(1.5, dtype=torch.float64)},
        summary={"source": "digits", "images": 5},
    )


def test_round_trip_by_folder_and_by_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint.pt", example())
    for path in (tmp_path, tmp_path / "checkpoint.pt"):
        found = load_checkpoint(path)
        assert found.config == example().config
        assert found.preprocess == example().preprocess
        assert torch.equal(found.student["weight"], torch.arange(3.0))
        assert found.teacher is None
        assert found.sums["loss"].dtype == torch.float64
        assert found.summary == {"source": "digits", "images": 5}


def test_a_write_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, example(3))
    broken = example(4)
    broken.summary["bad"] = lambda: 0  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        save_checkpoint(path, broken)
    assert load_checkpoint(path).step == 3


def test_none_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="vssl train"):
        load_checkpoint(tmp_path)


def test_damaged_foreign_and_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, example())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match="damaged"):
        load_checkpoint(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        load_checkpoint(path)
    torch.save({"format": 99}, path)
    with pytest.raises(FormatError, match="found checkpoint format 99"):
        load_checkpoint(path)
    torch.save({"format": 1, "config": {}}, path)
    with pytest.raises(FormatError, match="incomplete"):
        load_checkpoint(path)


def test_code_inside_is_not_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return (tmp_path / "mark").mkdir, ()

    torch.save({"format": 1, "config": Hostile()}, tmp_path / "checkpoint.pt")
    with pytest.raises(FormatError):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "mark").exists()
