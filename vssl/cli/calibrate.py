"""The verb calibrate: checkpoint + images -> how well its variance would fit; writes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from vssl.cli.export import describe_calibration
from vssl.cli.output import extras, note, say, say_json


def register(app: typer.Typer) -> None:
    """Add this verb to the application."""
    app.command("calibrate")(calibrate)


def calibrate(
    run: Annotated[Path, typer.Argument(help="Run folder of `vssl train`, or a checkpoint.pt.")],
    images: Annotated[str | None, typer.Argument(help="Unlabelled images; the run's own otherwise.")] = None,
    space: Annotated[list[str] | None, typer.Option(help="features or projector; both otherwise.")] = None,
    branch: Annotated[str, typer.Option(help="Whose weights: student or teacher.")] = "student",
    whitening: Annotated[
        float, typer.Option(help="Even out the means' spread over directions, 0 to 1.", min=0.0, max=1.0)
    ] = 0.5,
    calibration_images: Annotated[int, typer.Option(help="Most images to calibrate on.", min=8)] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the calibration's views.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit the variance on unlabelled images and say how well it fits held-out ones; writes nothing.

    `vssl export RUN model.onnx --calibration IMAGES` fits the same and puts it into the file.
    """
    spaces = space or ["features", "projector"]
    for name in spaces:
        if name not in ("features", "projector"):
            raise typer.BadParameter(f"found {name!r}, expected features or projector", param_hint="--space")
    fits = {}
    with extras():
        from export.calibration.head import CalibrationConfig
        from export.package import ExportOptions, fit_served
        from train.state.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(run)
        for name in spaces:
            options = ExportOptions(
                space=name,
                branch=branch,
                calibration_source=images,
                whitening=whitening,
                calibration=CalibrationConfig(images=calibration_images, seed=seed),
            )
            fits[name] = fit_served(checkpoint, options, note).calibration
    if as_json:
        say_json({name: dataclasses.asdict(fit) for name, fit in fits.items()})
        return
    for name, fit in fits.items():
        say(f"{name:<9}  {describe_calibration(fit)}")
    asked = {
        "--branch": branch if branch != "student" else None,
        "--whitening": whitening if whitening != 0.5 else None,
        "--calibration": images,
        "--calibration-images": calibration_images if calibration_images != 2000 else None,
        "--seed": seed or None,
    }
    words = "".join(f" {name} {value}" for name, value in asked.items() if value is not None)
    note(f"next: vssl export {run} model.onnx --space {spaces[-1]}{words}")
