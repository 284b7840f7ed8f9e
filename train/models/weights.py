"""A trained student <-> student.safetensors, and weights of a file -> a new run's student.

The file holds backbone, projector and the normalisation of their input, as plain tensors that
any framework reads; its metadata holds the settings as JSON. No code in a file is run:
`.pth` files are loaded with `weights_only=True`. Weights of torchvision's and timm's networks
come under their libraries' names (`train.models.published_weights`).
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train.models.encoder import Encoder
from train.models.published_weights import under_our_names
from train.state.checkpoint import Checkpoint, load_checkpoint
from vssl.errors import FormatError, InputError, MismatchError, raise_lack
from vssl.files import write_bytes

WEIGHTS_NAME = "student.safetensors"
NESTED = ("student", "state_dict", "model")
"""Names under which `.pth` files of this and other programs keep the tensors."""
DIGEST = "sha256"
SHOWN = 8  # tensors named in an error


def save_weights(path: Path, checkpoint: Checkpoint) -> None:
    """Write the student's tensors to `path` atomically.

    Metadata: `format` ("pt"), `config`, `preprocess` and `summary`, the last three JSON, and `sha256` of the
    tensors, which `read_weights` checks.
    """
    from safetensors.torch import save

    metadata = {
        "format": "pt",
        "config": json.dumps(checkpoint.config.to_dict()),
        "preprocess": json.dumps(checkpoint.preprocess.to_dict()),
        "summary": json.dumps(checkpoint.summary),
    }
    tensors = {name: value.cpu().contiguous() for name, value in checkpoint.student.items()}
    metadata[DIGEST] = _digest(tensors)
    write_bytes(path, save(tensors, metadata))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a run's folder, its checkpoint, a `.safetensors` or a `.pth` / `.pt` file.

    Raises InputError when there is none, FormatError when it cannot be read or holds no tensors.
    """
    if path.is_dir():
        return load_checkpoint(path).student
    if not path.is_file():
        raise InputError(
            f"--init: no file or folder {str(path)!r}; expected FILE.safetensors, FILE.pth or the folder of a run"
        )
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise FormatError(f"{path}: not a readable safetensors file ({error})") from error
        if (metadata or {}).get(DIGEST) not in (None, _digest(tensors)):
            raise FormatError(
                f"{path} is damaged: its tensors do not fit the sha256 in it; fetch or write it again"
            )
        return tensors
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise_lack(error)
        raise FormatError(
            f"{path}: cannot be read with weights_only ({type(error).__name__}); expected a file of plain "
            "tensors. Write one with torch.save(model.state_dict(), FILE) or as .safetensors"
        ) from error
    return _tensors(path, values)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of names, types, shapes and bytes."""
    seen = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        seen.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        seen.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return seen.hexdigest()


def initialise(student: Encoder, weights: Mapping[str, Tensor], origin: str) -> None:
    """Copy the weights into the student: all of it, or all but its projector.

    A file without `projector.*` leaves the projector new; one of an outside backbone alone may
    name its tensors as their library does, classifier and all. Raises MismatchError that names each
    tensor whose shape differs, that the student lacks, or that the file lacks.
    """
    own = student.state_dict()
    given = under_our_names(student.backbone, weights, origin)
    if not any(name.startswith("projector.") for name in given):
        given |= {name: value for name, value in own.items() if name.startswith("projector.")}
    # The running count of batches and the input's normalisation may be left out: both have a sound start.
    optional = {n for n in own if n.endswith("num_batches_tracked") or n.startswith("normalise.")}
    wrong = [
        f"{name}: found {tuple(given[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    wrong += [f"{name}: not in the file" for name in own if name not in given and name not in optional]
    wrong += [f"{name}: in the file, not in this network" for name in given if name not in own]
    if wrong:
        more = f"\n  and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise MismatchError(
            f"--init {origin}: {len(wrong)} tensors do not fit:\n  "
            + "\n  ".join(wrong[:SHOWN])
            + more
            + "\nTrain with the network and the method it was made with (config.json next to it says which), "
            "or give a file of the tensors backbone.* alone" + _advice(student, given)
        )
    student.load_state_dict(given, strict=False)


def _advice(student: Encoder, given: Mapping[str, Tensor]) -> str:
    """Return what else may help with weights of torchvision or timm."""
    config = student.backbone.config
    if student.backbone.model is not None and config.stem != "large":
        return f'. Published weights fit the stem "large", found network.stem = "{config.stem}"'
    if student.backbone.model is None and "layer1.0.conv1.weight" in given:
        return f'. These are named as torchvision names them: set network.backbone = "torchvision/{config.backbone}"'
    return ""


def _tensors(path: Path, values: Any) -> dict[str, Tensor]:
    """Find the tensors in what a file holds."""
    if isinstance(values, dict):
        for name in NESTED:
            if isinstance(values.get(name), dict):
                values = values[name]
                break
    if isinstance(values, dict):
        found = {str(name): value for name, value in values.items() if isinstance(value, Tensor)}
        if found:
            return found
    raise FormatError(f"{path}: found {type(values).__name__} without tensors, expected a state dict")
