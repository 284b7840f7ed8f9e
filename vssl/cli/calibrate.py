"""The verb calibrate: checkpoint + images -> how well its variance would fit; writes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from vssl.cli.export import BRANCHES, SPACES, Branch, Images, Json, Seed, Whitening
from vssl.cli.model_facts import describe_calibration
from vssl.cli.output import check_choice, extras, note, say, say_json


def register(app: typer.Typer) -> None:
    """Add this verb to the application."""
    app.command("calibrate")(calibrate)


def calibrate(
    run: Annotated[Path, typer.Argument(help="Run folder of `vssl train`, or a checkpoint.pt.")],
    images: Annotated[str | None, typer.Argument(help="Unlabelled images; the run's own otherwise.")] = None,
    space: Annotated[list[str] | None, typer.Option(help="features or projector; both otherwise.")] = None,
    branch: Branch = "student",
    whitening: Whitening = 0.5,
    calibration_images: Images = 2000,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fit the variance on unlabelled images and say how well it fits held-out ones; writes nothing.

    `vssl export RUN model.onnx --calibration IMAGES` fits the same and puts it into the file.
    """
    spaces = space or ["features", "projector"]
    for name in spaces:
        check_choice("--space", name, SPACES)
    check_choice("--branch", branch, BRANCHES)
    fits = {}
    with extras():
        from export.calibration.head import CalibrationConfig
        from export.package import ExportOptions, fit_served
        from export.sources.run import run_encoder
        from train.state.checkpoint import load_checkpoint

        encoder = run_encoder(load_checkpoint(run), branch)
        for name in spaces:
            options = ExportOptions(
                space=name,
                branch=branch,
                calibration_source=images,
                whitening=whitening,
                calibration=CalibrationConfig(images=calibration_images, seed=seed),
            )
            fits[name] = fit_served(encoder, options, note).fit.calibration
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
