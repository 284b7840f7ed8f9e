"""The verb extract: images + model.onnx -> an embeddings folder."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vssl.cli.console import extras, note, progress, say, say_json

if TYPE_CHECKING:
    from types import FrameType

    from serve.extract import Progress, Summary

PLAIN_SECONDS = 5.0  # between progress lines when stderr is no terminal


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    app.command()(extract)


def extract(
    images: Annotated[
        str, typer.Argument(help="Image folder, file, list:FILE, parquet:FILE, cifar10:DIR, ...")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write the embeddings into.")],
    model: Annotated[Path, typer.Option(help="The exported model.onnx.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a stopped run ended.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what the folder holds.")] = False,
    batch_size: Annotated[int | None, typer.Option(help="Images a thread embeds at once.")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads; all usable cores by default.")] = None,
    features: Annotated[bool, typer.Option("--features", help="Write the backbone's features too.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    max_failures: Annotated[
        int | None, typer.Option(help="Stop with exit 1 when more images than this fail.")
    ] = None,
    max_pixels: Annotated[int | None, typer.Option(help="Refuse larger images before decoding.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Embed every image: Gaussians to Parquet, unreadable files to failures.parquet."""
    with extras():
        from serve.extract import extract as run
    from vssl.decode import DEFAULT_LIMITS, DecodeLimits

    limits = DEFAULT_LIMITS
    if max_pixels is not None:
        try:
            limits = DecodeLimits(max_pixels=max_pixels)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    if resume and overwrite:
        raise typer.BadParameter("give --resume or --overwrite, not both")
    with _stoppable(), _display() as report:
        summary = run(
            images,
            out,
            model=model,
            resume=resume,
            overwrite=overwrite,
            batch_size=batch_size,
            workers=workers,
            features=features,
            device=device,
            max_failures=max_failures,
            limits=limits,
            report=report,
        )
    if as_json:
        say_json(summary.to_dict())
    else:
        _print_summary(summary)


def _print_summary(summary: Summary) -> None:
    say(f"{summary.rows} of {summary.images} images embedded into {summary.out}")
    if summary.resumed:
        say(f"  {summary.resumed} of them by an earlier run")
    if summary.resumed < summary.images:
        say(f"  {summary.images_per_second:.1f} images/s over {summary.seconds:.1f} s")
    if summary.mean_uncertainty is not None:
        say(f"  mean uncertainty {summary.mean_uncertainty:.4f}")
    if summary.failures:
        say(f"  {summary.failures} failed, listed in {Path(summary.out) / 'failures.parquet'}:")
        for reason, count in sorted(summary.reasons.items(), key=lambda pair: -pair[1]):
            say(f"    {count:7d}  {reason}")


def _status(state: Progress) -> str:
    text = f"{state.rate:.1f} images/s, {state.failures} failed"
    return text if state.uncertainty is None else f"{text}, uncertainty {state.uncertainty:.3f}"


@contextmanager
def _display() -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, a line every few seconds elsewhere."""
    if sys.stderr.isatty():
        with progress() as bar:
            task = bar.add_task("extract", total=None, status="")

            def draw(state: Progress) -> None:
                bar.update(task, total=state.total, completed=state.done, status=_status(state))

            yield draw
        return
    last = time.monotonic()

    def line(state: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            left = (state.total - state.done) / state.rate if state.rate else 0.0
            note(f"extract: {state.done}/{state.total}, {_status(state)}, eta {left:.0f} s")

    yield line


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does: finished parts stay, nothing half is left."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        note("vssl: stopped; the finished parts stay, go on with --resume")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
