"""Options that several verbs take, each said once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer


def named(*suffixes: str) -> Callable[[Path | None], Path | None]:
    """Return a check of a file to write, before the work: its name ends as its kind's do, and no other is lost."""

    def check(path: Path | None) -> Path | None:
        if path is not None and suffixes and path.suffix.lower() not in suffixes:
            raise typer.BadParameter(
                f"found {str(path)!r}, expected a name that ends in {' or '.join(suffixes)}"
            )
        if path is not None and not path.parent.is_dir():
            raise typer.BadParameter(f"there is no folder {str(path.parent)!r} to write {path.name!r} into")
        return path

    return check


DISTANCES = (
    "cosine, euclidean, expected, wasserstein, kl, reverse-kl, jeffreys, mahalanobis, student-t, mls, "
    "bhattacharyya or posterior"
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print everything that was measured.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Precision = Annotated[
    str | None,
    typer.Option(help="What openvino and tensorrt compute in: fp32 (default), bf16; tensorrt fp16 too."),
]
MaxRisk = Annotated[
    float | None,
    typer.Option(
        help="Mark the answers to abstain from, so that at most this share of the others has a wrong nearest image; "
        "calibrated on the gallery's labelled images."
    ),
]
Metadata = Annotated[
    Path | None,
    typer.Option(help="CSV or Parquet table with a column id; the others can be filtered by."),
]
Branch = Annotated[str, typer.Option(help="Whose weights: student or teacher.")]
CalibrationImages = Annotated[int, typer.Option(help="Most images to draw views of.", min=8)]
CalibrationSeed = Annotated[int, typer.Option("--seed", help="Seed of the calibration's views.")]
