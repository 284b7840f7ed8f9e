"""The verb calibrate: checkpoint + images -> how well its variance would fit; writes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from vssl.cli.export import BRANCHES
from vssl.cli.model_facts import describe_calibration
from vssl.cli.options import Branch, CalibrationImages, CalibrationSeed, Json
from vssl.cli.output import check_choice, note, say, say_json


def calibrate(
    run: Annotated[Path, typer.Argument(help="Run folder of `vssl train`, or a checkpoint.pt.")],
    images: Annotated[str | None, typer.Argument(help="Unlabelled images; the run's own otherwise.")] = None,
    space: Annotated[list[str] | None, typer.Option(help="features or projector; both otherwise.")] = None,
    branch: Branch = "student",
    whitening: Annotated[
        float, typer.Option(help="Even out the means' spread over directions, 0 to 1.", min=0.0, max=1.0)
    ] = 0.5,
    calibration_images: CalibrationImages = 2000,
    seed: CalibrationSeed = 0,
    as_json: Json = False,
) -> None:
    """Fit the variance on unlabelled images and say how well it fits held-out ones; writes nothing.

    `vssl export RUN model.onnx --calibration IMAGES` fits the same and puts it into the file.
    """
    from vssl.model.card import SPACES

    spaces = space or ["features", "projector"]
    for name in spaces:
        check_choice("--space", name, SPACES)
    check_choice("--branch", branch, BRANCHES)
    fits = {}
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
