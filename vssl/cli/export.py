"""The verb export: checkpoint -> model.onnx, and into a Triton repository."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vssl.cli.model_facts import (
    describe_calibration,
    describe_fidelity,
    describe_measured,
    describe_preprocess,
    describe_uncertainty,
)
from vssl.cli.options import Branch, CalibrationImages, CalibrationSeed, Json
from vssl.cli.output import check_choice, note, refuse_existing, say, say_json

if TYPE_CHECKING:
    from export.package import Exported
    from export.repositories.triton.repository import RepositoryEntry


BRANCHES = ("student", "teacher")

Encoder = Annotated[
    str,
    typer.Argument(
        help="Run folder of `vssl train`, a checkpoint.pt, the name of a network of torchvision or timm, "
        "another tool's encoder.onnx, or a model.onnx of vssl, to calibrate on other images."
    ),
]
Model = Annotated[Path | None, typer.Argument(help="File to write, model.onnx.")]
Weights = Annotated[
    Path | None, typer.Option(help="Weights of a named network; those its library publishes otherwise.")
]
Size = Annotated[int | None, typer.Option(help="Side of the network's pictures.", min=8)]
Resize = Annotated[
    int | None, typer.Option(help="Shorter side before the centre crop; the side itself otherwise.", min=8)
]
PixelMean = Annotated[str | None, typer.Option("--mean", help="Of channels in 0..1, as 0.485,0.456,0.406.")]
PixelStd = Annotated[str | None, typer.Option("--std", help="Of channels in 0..1.")]
Interpolation = Annotated[str, typer.Option(help="bilinear, bicubic, lanczos or box.")]
Output = Annotated[str | None, typer.Option(help="Output of another tool's encoder.onnx that is the vector.")]
Supervision = Annotated[
    str | None, typer.Option(help="Whether labels made the weights, for the card: none, labels or unknown.")
]
Space = Annotated[
    str | None,
    typer.Option(help="What is served as the mean: features, or the projector where one was trained."),
]
Dim = Annotated[int | None, typer.Option(help="Principal directions that are served.", min=2)]
Whitening = Annotated[
    float | None,
    typer.Option(help="Even out the means' spread over directions, 0 to 1.", min=0.0, max=1.0),
]
Calibration = Annotated[
    str | None, typer.Option(help="Images that calibrate the variance; the run's own otherwise.")
]
Minutes = Annotated[float, typer.Option(help="Begin no more views after this time.", min=0.0)]
Evaluation = Annotated[str | None, typer.Option(help="Labelled images to measure the file on, for its card.")]
Name = Annotated[str | None, typer.Option(help="Name on the card; the file's own otherwise.")]
Licence = Annotated[str | None, typer.Option(help="Licence of the weights, for the card.")]
WrittenPrecision = Annotated[str, typer.Option(help="fp32, fp16 (for GPUs) or int8 (for CPUs).")]
AcceptLoss = Annotated[bool, typer.Option(help="Write a lower precision whatever it loses.")]
HalfWeights = Annotated[
    bool,
    typer.Option(
        "--half-weights", help="Store large weights in half precision, for half the file; computed in fp32."
    ),
]
Triton = Annotated[
    Path | None, typer.Option(metavar="REPOSITORY", help="Put the model into a Triton model repository.")
]
TritonBackend = Annotated[str, typer.Option(help="onnxruntime, or python for a Triton without that backend.")]
HuggingFace = Annotated[
    Path | None,
    typer.Option("--hf", metavar="DIR", help="Write a folder that timm and the Hugging Face hub load, too."),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace existing outputs, and another model in the repository."),
]


def export(
    encoder: Encoder,
    model: Model = None,
    weights: Weights = None,
    size: Size = None,
    resize: Resize = None,
    pixel_mean: PixelMean = None,
    pixel_std: PixelStd = None,
    interpolation: Interpolation = "bicubic",
    output: Output = None,
    supervision: Supervision = None,
    space: Space = None,
    dim: Dim = None,
    whitening: Whitening = None,
    branch: Branch = "student",
    calibration: Calibration = None,
    calibration_images: CalibrationImages = 2000,
    minutes: Minutes = 30.0,
    evaluation: Evaluation = None,
    name: Name = None,
    licence: Licence = None,
    precision: WrittenPrecision = "fp32",
    accept_loss: AcceptLoss = False,
    half_weights: HalfWeights = False,
    seed: CalibrationSeed = 0,
    triton: Triton = None,
    triton_backend: TritonBackend = "onnxruntime",
    hf: HuggingFace = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write one verified, calibrated, self-describing ONNX file of an encoder.

    `vssl export model.onnx --triton REPOSITORY` puts a file that exists into a repository.
    """
    from vssl.model.card import SPACES, SUPERVISION

    if model is None:
        _copy(Path(encoder), triton, triton_backend, hf, name, overwrite=overwrite, as_json=as_json)
        return
    if model.suffix != ".onnx":
        raise typer.BadParameter(f"found {str(model)!r}, expected a name that ends in .onnx")
    for place in (model, hf):
        if place is not None:
            refuse_existing(place, overwrite=overwrite)
    check_choice("--branch", branch, BRANCHES)
    check_choice("--space", space, SPACES)
    check_choice("--supervision", supervision, SUPERVISION)
    from export.calibration.head import CalibrationConfig
    from export.package import ExportOptions
    from export.sources.named import EncoderOptions
    from vssl import api

    source = EncoderOptions(
        weights, size, resize, pixel_mean, pixel_std, interpolation, output, supervision, branch
    )
    drawn = CalibrationConfig(images=calibration_images, minutes=minutes, seed=seed)
    options = ExportOptions(
        space, branch, name, calibration, evaluation, whitening, dim, licence, precision, accept_loss,
        half_weights, drawn,
    )  # fmt: skip
    note(f"loading {encoder}")
    written = api.export(encoder, model, hf=hf, options=options, source=source, report=note)
    entry = _put(model, triton, name, triton_backend, overwrite=overwrite) if triton is not None else None
    if as_json:
        say_json(_facts(written) | ({"triton": _entry_facts(entry)} if entry else {}))
        return
    _say_written(written)
    if entry is not None:
        _say_entry(entry)


def _copy(
    path: Path,
    triton: Path | None,
    backend: str,
    hf: Path | None,
    name: str | None,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Put an exported file that exists into folders that other programs load."""
    if path.suffix != ".onnx":
        raise typer.BadParameter(f"missing the file to write: vssl export {path} model.onnx")
    if triton is None and hf is None:
        raise typer.BadParameter(
            f"say what to make of {path}: a model from another tool's encoder, with: vssl export {path} model.onnx "
            f"--calibration IMAGES; or an entry of a repository, with: --triton REPOSITORY or --hf DIR"
        )
    if triton is not None:
        put = _put(path, triton, name, backend, overwrite=overwrite)
        say_json(_entry_facts(put)) if as_json else _say_entry(put)
    if hf is not None:
        from export.repositories.hugging_face import write_folder

        note(write_folder(path, hf, overwrite=overwrite).describe())


def _facts(written: Exported) -> dict[str, Any]:
    return {
        "path": str(written.path),
        "model_id": written.model_id,
        "bytes": written.size,
        "card": written.card.to_dict(),
        "warnings": written.card.calibration.warnings(),
        "largest_difference_from_encoder": {
            k: v for k, v in vars(written.agreement).items() if k != "images"
        },
        "fidelity": dataclasses.asdict(written.fidelity) if written.fidelity else None,
    }


def _say_written(written: Exported) -> None:
    card, agreement = written.card, written.agreement
    say(f"{written.path}  {written.size / 1e6:.1f} MB  model id {written.model_id[:12]}")
    whose = card.branch if card.method != "published" else card.backbone
    say(
        f"  mean and variance of {card.dim} dimensions ({card.space}, {whose}), features of {card.feature_dim}"
    )
    if card.method == "published":
        say(f"  weights: {card.weights}; labels: {card.supervision}; licence: {card.licence}")
        say(f"  preprocessing: {describe_preprocess(card)}")
    largest = max(agreement.mean, agreement.log_variance, agreement.features, agreement.uncertainty or 0.0)
    say(
        f"  agrees with the encoder itself on {agreement.images} images at every batch size: largest relative "
        f"difference {largest:.1g}"
    )
    say(f"  variance: {describe_calibration(card.calibration)}")
    say(f"  uncertainty: {describe_uncertainty(card)}")
    if card.measured:
        say(f"  measured: {describe_measured(card.measured)}")
    if written.fidelity is not None:
        say(f"  {card.precision}: {describe_fidelity(written.fidelity)}")
    for warning in card.calibration.warnings():
        note(f"vssl: warning: {warning}")


def _put(
    model: Path, repository: Path, name: str | None, backend: str, *, overwrite: bool
) -> RepositoryEntry:
    from export.repositories.triton.repository import write_repository

    return write_repository(model, repository, name=name, backend=backend, overwrite=overwrite)


def _entry_facts(entry: RepositoryEntry) -> dict[str, Any]:
    return {**dataclasses.asdict(entry), "path": str(entry.path)}


def _say_entry(entry: RepositoryEntry) -> None:
    verb = "is" if entry.added else "was already"
    say(
        f"{entry.path}  version {entry.version} {verb} model id {entry.model_id[:12]} ({entry.backend} backend)"
    )
    note(f"serve it with: tritonserver --model-repository {entry.path.parent}")
    note(f"and use it with: vssl serve --model triton://127.0.0.1:8001/{entry.name}")
