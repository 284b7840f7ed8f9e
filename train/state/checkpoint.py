"""A training run's state <-> checkpoint.pt, written whole or not at all.

The file holds plain values and tensors only and is loaded with `weights_only=True`, so that
opening an untrusted checkpoint runs none of its code. It is a zip archive, as torch writes it, whose
comment is the sha256 of all before it: torch checks no tensor's checksum itself.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train.settings.config import TrainConfig
from vssl.errors import FormatError, InputError, VsslError, raise_lack
from vssl.files import atomic_write
from vssl.images.preprocess import Preprocess
from vssl.model.identity import sha256_file

CHECKPOINT_FORMAT = 2
UNSEALED_FORMAT = 1  # of files from before there was a seal
SEAL = b"vssl.sha256:"
SEAL_BYTES = len(SEAL) + 64
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
    """Write to `path`, whole or not at all, and seal it."""
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
        try:
            torch.save(values, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # a full disk, which torch tells as a fault of its own
                raise error.__context__ from None
            raise
        file.seek(-2, os.SEEK_END)
        file.write(SEAL_BYTES.to_bytes(2, "little"))  # a zip archive ends with the length of its comment
        file.flush()
        file.write(SEAL + sha256_file(Path(file.name)).encode())


def load_checkpoint(path: Path) -> Checkpoint:
    """Load from a run's folder or its checkpoint.pt, tensors on the CPU.

    Raises InputError when there is none, FormatError when the file is damaged or of another
    format version.
    """
    file = path / CHECKPOINT_NAME if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"no checkpoint at {str(file)!r}; expected the folder of a training run. "
            f"Train one: {shlex.join(['vssl', 'train', 'IMAGES', '--out', 'RUN' if path.exists() else str(path)])}"
        )
    try:
        is_sealed = _check_seal(file)
        values = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise_lack(error)
        raise FormatError(
            f"{file}: not a readable checkpoint ({type(error).__name__}); it is damaged or no file of vssl. "
            f"{_again(file)}"
        ) from error
    known = CHECKPOINT_FORMAT if is_sealed else UNSEALED_FORMAT
    if isinstance(values, dict) and values.get("format") == CHECKPOINT_FORMAT != known:
        raise FormatError(f"{file}: its seal is damaged. {_again(file)}")
    if not isinstance(values, dict) or values.get("format") != known:
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


def _check_seal(file: Path) -> bool:
    """Return whether a file carries a seal; raises FormatError for one that does not fit."""
    size = file.stat().st_size
    if size < SEAL_BYTES:
        return False
    with file.open("rb") as data:
        data.seek(-SEAL_BYTES, os.SEEK_END)
        seal = data.read()
        if not seal.startswith(SEAL):
            return False
        data.seek(0)
        digest, left = hashlib.sha256(), size - SEAL_BYTES
        while left:
            block = data.read(min(left, 1 << 20))
            digest.update(block)
            left -= len(block)
    if seal != SEAL + digest.hexdigest().encode():
        raise FormatError(f"{file} is damaged: its bytes do not fit its seal. {_again(file)}")
    return True


def _again(file: Path) -> str:
    if file.name != CHECKPOINT_NAME:  # perhaps another file altogether, in a folder that is no run's
        return f"Expected is the folder of a run, or its {CHECKPOINT_NAME}"
    return f"Train again: {shlex.join(['vssl', 'train', 'IMAGES', '--out', str(file.parent), '--overwrite'])}"
