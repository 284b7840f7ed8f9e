"""A checkpoint is written whole, holds plain values only, and says what is wrong with it."""

from __future__ import annotations

import resource
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
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


@pytest.mark.parametrize("size", [1_000, 20_000])
def test_a_full_disk_is_told_as_one_and_leaves_the_old_one(tmp_path: Path, size: int) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, example())
    larger = replace(example(4), student={"weight": torch.zeros(100_000)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as told:
            save_checkpoint(path, larger)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert told.value.filename == str(path)
    assert load_checkpoint(path).step == 3
    assert list(tmp_path.iterdir()) == [path]


def test_none_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="vssl train"):
        load_checkpoint(tmp_path)


def test_damaged_other_files_and_another_version(tmp_path: Path) -> None:
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


def test_no_flipped_byte_is_loaded(tmp_path: Path) -> None:
    """torch alone loads other tensors for nearly every one of them."""
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, example())
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for place in [len(whole) - 1, len(whole) - 70, len(whole) - 76, *random.integers(0, len(whole), 200)]:
        data = bytearray(whole)
        data[place] ^= 1 << int(random.integers(8))
        path.write_bytes(data)
        with pytest.raises(FormatError, match="vssl train"):
            load_checkpoint(path)
    path.write_bytes(whole)
    assert load_checkpoint(path).step == 3


def test_other_programs_still_read_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint.pt", example())
    assert zipfile.ZipFile(tmp_path / "checkpoint.pt").testzip() is None
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3


def test_a_file_from_before_there_was_a_seal_is_read(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint.pt", example())
    values = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save({**values, "format": 1}, tmp_path / "checkpoint.pt")
    assert load_checkpoint(tmp_path).step == 3
    torch.save(values, tmp_path / "checkpoint.pt")
    with pytest.raises(FormatError, match="seal"):
        load_checkpoint(tmp_path)
