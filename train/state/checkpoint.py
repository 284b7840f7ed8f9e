"""A training run's state <-> checkpoint.pt, written whole or not at all.

The file holds plain values and tensors only and is loaded with `weights_only=True`, so that
opening a stranger's checkpoint runs no code of theirs.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train.settings.config import TrainConfig
from vssl.errors import FormatError, InputError, VsslError
from vssl.files import atomic_write
from vssl.images.preprocess import Preprocess

CHECKPOINT_FORMAT = 1
CHECKPOINT_NAME = "checkpoint.pt"
Fact = str | int | float | bool | None
State = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to be exported or continued.

    student, teacher: state of the encoders (`train.models.encoder.Encoder`), teacher None where the
        method keeps none; heads: state of the method's other modules.
    optimiser: its state_dict; classifier: the online classifier's `weights`, `optimiser` and the names
        of its `classes`, or {}.
    step, epoch: done so far; sums: running totals of the epoch under way.
    summary: flat facts about the training, among them `source` (the spec of the images),
        `images` (how many could be read) and `epochs`.
    """

    config: TrainConfig
    preprocess: Preprocess
    student: State
    teacher: State | None
    heads: State
    step: int
    epoch: int
    optimiser: dict[str, Any] = field(default_factory=dict)
    classifier: dict[str, Any] = field(default_factory=dict)
    sums: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Fact] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write to `path`, whole or not at all."""
    values = {
        "format": CHECKPOINT_FORMAT,
        "config": checkpoint.config.to_dict(),
        "preprocess": checkpoint.preprocess.to_dict(),
        **{
            name: getattr(checkpoint, name)
            for name in (
                "student", "teacher", "heads", "step", "epoch", "optimiser", "classifier", "sums", "summary"
            )
        },
    }  # fmt: skip
    with atomic_write(path) as file:
        torch.save(values, file)


def load_checkpoint(path: Path) -> Checkpoint:
    """Load from a run's folder or its checkpoint.pt, tensors on the CPU.

    Raises InputError when there is none, FormatError when the file is damaged or of another
    format version.
    """
    file = path / CHECKPOINT_NAME if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"no checkpoint at {str(file)!r}; expected the folder of a training run. "
            f"Train one: vssl train IMAGES --out {path}"
        )
    try:
        values = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise FormatError(
            f"{file}: not a readable checkpoint ({type(error).__name__}); it is damaged or no file of vssl. "
            f"Train again: vssl train IMAGES --out {file.parent} --overwrite"
        ) from error
    if not isinstance(values, dict) or values.get("format") != CHECKPOINT_FORMAT:
        found = values.get("format") if isinstance(values, dict) else type(values).__name__
        raise FormatError(
            f"{file}: found checkpoint format {found!r}, expected {CHECKPOINT_FORMAT}; "
            "it was written by another version of vssl. Train again, or use that version"
        )
    del values["format"]
    try:
        values["config"] = TrainConfig.from_dict(values["config"])
        values["preprocess"] = Preprocess.from_dict(values["preprocess"])
        return Checkpoint(**values)
    except (TypeError, KeyError, VsslError) as error:
        raise FormatError(f"{file}: incomplete checkpoint ({error}); train again") from error
