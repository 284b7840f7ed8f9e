"""The verb export: checkpoint -> model.onnx, and into a Triton repository."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vssl.cli.output import check_choice, extras, note, refuse_existing, say, say_json

if TYPE_CHECKING:
    from export.package import Exported
    from export.triton.repository import RepositoryEntry


def register(app: typer.Typer) -> None:
    """Add this verb to the application."""
    app.command("export")(export)


SPACES, BRANCHES = ("features", "projector"), ("student", "teacher")
Space = Annotated[str, typer.Option(help="What is served as the mean: features or projector.")]
Whitening = Annotated[
    float, typer.Option(help="Even out the means' spread over directions, 0 to 1.", min=0.0, max=1.0)
]
Branch = Annotated[str, typer.Option(help="Whose weights: student or teacher.")]
Images = Annotated[int, typer.Option(help="Most images to calibrate on.", min=8)]
Seed = Annotated[int, typer.Option(help="Seed of the calibration's views.")]
Triton = Annotated[
    Path | None, typer.Option(metavar="REPOSITORY", help="Put the model into a Triton model repository.")
]
TritonBackend = Annotated[str, typer.Option(help="onnxruntime, or python for a Triton without that backend.")]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace an existing file, and another model in the repository."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def export(
    run: Annotated[
        Path,
        typer.Argument(
            help="Run folder of `vssl train`, or a checkpoint.pt; with --triton also a model.onnx."
        ),
    ],
    model: Annotated[Path | None, typer.Argument(help="File to write, model.onnx.")] = None,
    space: Space = "projector",
    whitening: Whitening = 0.5,
    branch: Branch = "student",
    calibration: Annotated[
        str | None, typer.Option(help="Images that calibrate the variance; the run's own otherwise.")
    ] = None,
    calibration_images: Images = 2000,
    evaluation: Annotated[
        str | None, typer.Option(help="Labelled images to measure the file on, for its card.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name on the card; the file's own otherwise.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the card.")] = "unspecified",
    precision: Annotated[str, typer.Option(help="fp32, fp16 (for GPUs) or int8 (for CPUs).")] = "fp32",
    accept_loss: Annotated[bool, typer.Option(help="Write a lower precision whatever it loses.")] = False,
    seed: Seed = 0,
    triton: Triton = None,
    triton_backend: TritonBackend = "onnxruntime",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write one verified, calibrated, self-describing ONNX file of a run's encoder.

    `vssl export model.onnx --triton REPOSITORY` puts a file that exists into a repository.
    """
    if run.suffix == ".onnx":
        if triton is None or model is not None:
            raise typer.BadParameter(
                f"{run} is exported already; put it into a repository with: vssl export {run} --triton REPOSITORY"
            )
        put = _put(run, triton, name, triton_backend, overwrite=overwrite)
        say_json(_entry_facts(put)) if as_json else _say_entry(put)
        return
    if model is None:
        raise typer.BadParameter(f"missing the file to write: vssl export {run} model.onnx")
    refuse_existing(model, overwrite=overwrite)
    check_choice("--space", space, SPACES)
    check_choice("--branch", branch, BRANCHES)
    with extras():
        from export.calibration.head import CalibrationConfig
        from export.package import ExportOptions, export_run

        options = ExportOptions(
            space=space,
            branch=branch,
            name=name,
            calibration_source=calibration,
            evaluation_source=evaluation,
            whitening=whitening,
            licence=licence,
            precision=precision,
            accept_loss=accept_loss,
            calibration=CalibrationConfig(images=calibration_images, seed=seed),
        )
        written = export_run(run, model, options, note)
    entry = _put(model, triton, name, triton_backend, overwrite=overwrite) if triton else None
    if as_json:
        say_json(_facts(written) | ({"triton": _entry_facts(entry)} if entry else {}))
        return
    _say_written(written)
    if entry:
        _say_entry(entry)


def _facts(written: Exported) -> dict[str, Any]:
    agreement = written.agreement
    return {
        "path": str(written.path),
        "model_id": written.model_id,
        "bytes": written.size,
        "card": written.card.to_dict(),
        "largest_difference_from_torch": {
            "mean": agreement.mean,
            "log_variance": agreement.log_variance,
            "features": agreement.features,
        },
        "fidelity": dataclasses.asdict(written.fidelity) if written.fidelity else None,
    }


def _say_written(written: Exported) -> None:
    card, agreement = written.card, written.agreement
    say(f"{written.path}  {written.size / 1e6:.1f} MB  model id {written.model_id[:12]}")
    say(
        f"  mean and variance of {card.dim} dimensions ({card.space}, {card.branch}), features of {card.feature_dim}"
    )
    say(
        f"  agrees with torch on {agreement.images} images at every batch size: largest relative difference "
        f"{max(agreement.mean, agreement.log_variance, agreement.features):.1g}"
    )
    say(f"  variance: {describe_calibration(card.calibration)}")
    if card.measured:
        say(f"  measured: {describe_measured(card.measured)}")
    if written.fidelity is not None:
        say(f"  {card.precision}: {describe_fidelity(written.fidelity)}")


def _put(
    model: Path, repository: Path, name: str | None, backend: str, *, overwrite: bool
) -> RepositoryEntry:
    from export.triton.repository import write_repository

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


def describe_calibration(fit: Any) -> str:
    """Return one line about a card's calibration."""
    if fit.kind == "none":
        return "not calibrated"
    text = f"{fit.kind} on {fit.images} images x {fit.views} views"
    if fit.ratio is None:
        return f"{text}; too few images to judge it on held-out ones"
    return (
        f"{text}; on held-out images predicted over measured {fit.ratio:.2f}, "
        f"rank correlation {fit.rank_correlation:.2f}"
    )


def describe_measured(found: Mapping[str, Any]) -> str:
    """Return one line about what a model reached on labelled images."""
    ordered = "" if found["r_auroc"] is None else f", R-AUROC {found['r_auroc']:.3f}"
    return (
        f"20-NN accuracy {found['knn_top1']:.3f}{ordered} on the {found['images']} images of "
        f"{found['source']}, each against the others"
    )


def describe_fidelity(found: Any) -> str:
    """Return one line about what a lower precision loses."""
    text = (
        f"{found.speed:.1f}x the images/s of fp32 here; on {found.images} images: same neighbour for "
        f"{found.same_neighbour:.1%}, uncertainty's rank correlation {found.rank_correlation:.3f}"
    )
    if found.knn is not None:
        text += f", k-NN {found.knn_fp32:.3f} -> {found.knn:.3f}"
    if found.r_auroc is not None:
        text += f", R-AUROC {found.r_auroc_fp32:.3f} -> {found.r_auroc:.3f}"
    return text
