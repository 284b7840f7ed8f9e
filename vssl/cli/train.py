"""The verb train: images -> checkpoint."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vssl.cli.options import Device, Json
from vssl.cli.output import note, progress, say, say_json

if TYPE_CHECKING:
    from train.data.image_cache import Failure
    from train.data.split import Split
    from train.loop.trainer import Outcome, Progress
    from train.settings.config import TrainConfig

LISTED_FAILURES = 5  # named on the screen; all of them are in failures.json


Images = Annotated[
    str, typer.Argument(help="An image folder, or list:FILE, parquet:FILE, cifar10:DIR, stl10:DIR ...")
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the images; 0 writes the untrained encoder.")]
Init = Annotated[
    Path | None,
    typer.Option(help="Begin with these weights: a run, FILE.safetensors, FILE.pth, or pretrained."),
]


def train(
    images: Images,
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.")],
    method: Annotated[str | None, typer.Option(help="Training method (default: vssl).")] = None,
    recipe: Annotated[str, typer.Option(help="Settings to start from: folder, small, ...")] = "folder",
    config: Annotated[Path | None, typer.Option(help="TOML file of settings over the recipe's.")] = None,
    epochs: Epochs = None,
    minutes: Annotated[float | None, typer.Option(help="Shorten the run to about so many minutes.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the pictures the network sees, pixels.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness.")] = None,
    device: Device = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 uses all.")] = 0,
    init: Init = None,
    backbone: Annotated[
        str | None, typer.Option(help="Network: resnet18, torchvision/NAME or timm/NAME.")
    ] = None,
    freeze: Annotated[
        bool,
        typer.Option("--freeze", help="Leave the backbone of --init as it is; train heads on its features."),
    ] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the run's curves to RUN/curves.png.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")] = False,
    as_json: Json = False,
) -> None:
    """Train an encoder on unlabelled images."""
    if plot:
        import matplotlib  # noqa: F401  # refused before a long run, not after it
    from train.evaluation.curves import plot_curves
    from train.loop.run import Display
    from train.settings.recipe import merge, read_settings
    from train.state.distributed import join_group
    from vssl import api

    asked = ({"freeze": True} if freeze else {}) | ({"network": {"backbone": backbone}} if backbone else {})
    settings = merge(read_settings(config) if config is not None else {}, asked)
    with progress() as bars:
        screen = _Screen(bars)
        outcome = api.train(
            images, out, method=method, recipe=recipe, settings=settings, epochs=epochs, minutes=minutes,
            batch_size=batch_size, size=size, seed=seed, device=device, threads=threads, init=init,
            resume=resume, overwrite=overwrite,
            display=Display(screen.decoded, screen.planned, screen.stepped),
        )  # fmt: skip
    if join_group().is_first:  # of several processes, only the first prints
        if plot:
            note(f"drawn: {plot_curves(out)}")
        _conclude(out, outcome, as_json)


def _conclude(out: Path, outcome: Outcome, as_json: bool) -> None:
    summary = outcome.checkpoint.summary
    if outcome.stopped_by is not None:
        note(
            f"stopped by {signal.Signals(outcome.stopped_by).name} after step {outcome.checkpoint.step}; "
            f"saved. Go on with: {shlex.join(['vssl', 'train', str(summary['source']), '--out', str(out), '--resume'])}"
        )
        raise typer.Exit(128 + outcome.stopped_by)
    if as_json:
        say_json({"run": str(out), **summary, "metrics": outcome.metrics})
        return
    done = f"{summary['epochs']} epochs over {summary['train_images']} images in {summary['seconds']:.0f} s"
    say(f"{out}: {done}{_figures(outcome.metrics)}")
    say(f"next: {shlex.join(['vssl', 'export', str(out), str(out / 'model.onnx')])}")


def _figures(metrics: dict[str, float]) -> str:
    names = (
        ("knn_top1", "k-NN"), ("linear_top1", "linear"), ("r_auroc", "R-AUROC"), ("view_recall", "view recall")
    )  # fmt: skip
    return "".join(f", {shown} {metrics[name]:.3f}" for name, shown in names if name in metrics)


class _Screen:
    """Shows a run: bars on a terminal, a line per evaluation where stderr is a file."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._decoding: Any = None
        self._training: Any = None
        self._shown: dict[str, float] = {}

    def decoded(self, done: int, total: int) -> None:
        if self._decoding is None:
            self._decoding = self._bars.add_task("reading", total=total, status="images")
        self._bars.update(self._decoding, completed=done)

    def planned(self, config: TrainConfig, split: Split, failures: list[Failure]) -> None:
        for failure in failures[:LISTED_FAILURES]:
            note(f"left out: {failure.path}: {failure.reason}")
        if len(failures) > LISTED_FAILURES:
            note(f"left out: {len(failures) - LISTED_FAILURES} more, see failures.json")
        note(
            f"{config.method}: {len(split.train)} images to train on, {len(split.validation)} held out, "
            f"{config.size} px, batch {config.batch_size}, {config.epochs} epochs"
        )

    def stepped(self, now: Progress) -> None:
        status = f"loss {now.loss:.3f}, {now.images_per_second:.0f} images/s{_figures(now.metrics)}"
        if self._training is None:
            self._training = self._bars.add_task("training", total=now.total, status=status)
        self._bars.update(self._training, completed=now.step, status=status)
        if now.metrics and now.metrics != self._shown:
            self._shown = dict(now.metrics)
            if not sys.stderr.isatty():
                note(f"epoch {now.epoch}, step {now.step} of {now.total}: {status}")
