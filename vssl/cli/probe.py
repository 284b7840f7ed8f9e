"""The verb probe: a run and labelled images -> how good its features are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vssl.cli.options import Device, Json
from vssl.cli.output import note, progress, say, say_json

if TYPE_CHECKING:
    from train.evaluation.probe import ProbeResult

SHOWN = {"knn": "k-NN", "linear": "linear, offline", "online": "linear, online"}


def probe(
    run: Annotated[Path, typer.Argument(help="Folder of the run, or its checkpoint.")],
    images: Annotated[str, typer.Argument(help="Labelled images: class folders, cifar10:DIR ...")],
    test: Annotated[
        str | None, typer.Option(help="Held-out images; without it a fifth of IMAGES is held out.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure a run's features on labelled images: k-NN, offline and online linear accuracy."""
    from train.evaluation.probe import probe as measure
    from train.loop.run import choose_device

    with progress() as bars:
        task = bars.add_task("reading", total=None, status="images")
        result = measure(
            run,
            images,
            test,
            device=choose_device(device),
            tick=lambda done: bars.update(task, completed=done),
        )
    if result.online_left_out is not None:
        note(f"no accuracy of the online classifier: {result.online_left_out}")
    if as_json:
        counts = {"train": result.train_images, "test": result.test_images, "classes": result.classes}
        say_json({"run": str(run), "images": images, **counts, "metrics": _metrics(result)})
        return
    say(
        f"{result.classes} classes, {result.train_images} images to learn from, {result.test_images} held out"
    )
    for (branch, space, kind), accuracy in result.accuracies.items():
        interval = f"{accuracy.low:.3f} to {accuracy.high:.3f}"
        say(f"{branch:<8} {space:<10} {SHOWN[kind]:<15} {accuracy.value:.3f}  (95 %: {interval})")


def _metrics(result: ProbeResult) -> dict[str, float]:
    """Return each accuracy as `branch_space_kind` with its interval as `..._low` and `..._high`."""
    metrics: dict[str, float] = {}
    for key, accuracy in result.accuracies.items():
        name = "_".join(key)
        metrics |= {name: accuracy.value, f"{name}_low": accuracy.low, f"{name}_high": accuracy.high}
    return metrics
