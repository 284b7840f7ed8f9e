"""The name or path of an encoder, and options -> the encoder to export."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from export.sources.encoder_source import EncoderSource
from export.sources.exported_model import exported_encoder
from export.sources.onnx_encoder import onnx_encoder, read_config
from export.sources.published import published_encoder
from export.sources.run import run_encoder
from train.models.published_weights import WeightsInfo, library_info, resized
from train.settings.backbone_names import full_name
from train.state.checkpoint import load_checkpoint
from vssl.errors import InputError
from vssl.images.preprocess import Preprocess
from vssl.model.card import CARD_KEY
from vssl.model.seal import read_metadata


@dataclass(frozen=True)
class EncoderOptions:
    """What the command line says of an encoder; None where it says nothing.

    weights: file of a named network; size, resize, pixel_mean, pixel_std, interpolation: what it expects of a
    picture, the two in the middle as "0.485,0.456,0.406"; output: of an ONNX file; supervision: whether labels
    made it; branch: of a run.
    """

    weights: Path | None = None
    size: int | None = None
    resize: int | None = None
    pixel_mean: str | None = None
    pixel_std: str | None = None
    interpolation: str = "bicubic"
    output: str | None = None
    supervision: str | None = None
    branch: str = "student"


def find_encoder(name: str, given: EncoderOptions) -> EncoderSource:
    """Return the encoder of a run, a library's network, another tool's ONNX file or a model of vssl.

    Raises InputError for a name that is none of these, or what else is wrong with it.
    """
    path = Path(name)
    if path.suffix == ".onnx":
        if path.is_file() and CARD_KEY in read_metadata(path.read_bytes()):
            _require_no_other_encoder(path, given)
            found = exported_encoder(path)
        else:
            found = onnx_encoder(path, info=_weights_info(given, None, path), output=given.output)
    elif path.exists() or path.suffix in (".pt", ".pth"):
        return run_encoder(load_checkpoint(path), given.branch)
    else:
        _require_network(name)
        info = _weights_info(given, name, path)
        found = published_encoder(name, given.weights, info=info)
    return found if given.supervision is None else replace(found, supervision=given.supervision)


def _require_no_other_encoder(path: Path, given: EncoderOptions) -> None:
    if replace(given, supervision=None) != EncoderOptions():
        raise InputError(
            f"{path} is a model of vssl, whose encoder and preprocessing stay as they are; leave out --weights, "
            "--size, --resize, --mean, --std, --interpolation, --output and --branch"
        )


def _require_network(name: str) -> None:
    try:
        full_name(name)
    except InputError as error:
        raise InputError(
            f"there is no run, checkpoint or ONNX file {name!r} here, and no network of that name: {error}"
        ) from error


def _weights_info(given: EncoderOptions, network: str | None, path: Path) -> WeightsInfo | None:
    """Return what the encoder expects of a picture: what is given, else what its library or file says."""
    stated = (given.pixel_mean, given.pixel_std)
    if network is None and given.size is not None and all(stated):
        size = given.size
        preprocess = Preprocess(size=size, resize=given.resize or size, interpolation=given.interpolation)
        return WeightsInfo(preprocess, _three("--mean", given.pixel_mean), _three("--std", given.pixel_std))
    if network is None and given.size is None and not any(stated):
        return None  # from the configuration next to the file
    info = read_config(path) if network is None else library_info(full_name(network))
    if given.size is not None:
        info = replace(info, preprocess=resized(info.preprocess, given.size))
    if given.resize is not None:
        info = replace(info, preprocess=replace(info.preprocess, resize=given.resize))
    if given.pixel_mean is not None:
        info = replace(info, pixel_mean=_three("--mean", given.pixel_mean))
    if given.pixel_std is not None:
        info = replace(info, pixel_std=_three("--std", given.pixel_std))
    return info


def _three(option: str, text: str | None) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(part) for part in str(text).split(","))
    except ValueError:
        raise InputError(
            f"{option}: found {text!r}, expected three numbers, as in 0.485,0.456,0.406"
        ) from None
    return red, green, blue
