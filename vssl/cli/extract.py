"""The verb extract: images + model.onnx -> an embeddings folder."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vssl.cli.options import Device, Json, Precision, named
from vssl.cli.output import check_choice, note, progress, say, say_json
from vssl.errors import InputError, shown_path

if TYPE_CHECKING:
    from types import FrameType

    from serve.extraction.extract import Summary
    from serve.extraction.writer import Progress
    from vssl.images.decode import DecodeLimits

PLAIN_SECONDS = 5.0  # between progress lines when stderr is no terminal


Images = Annotated[str, typer.Argument(help="Image folder, file, list:FILE, parquet:FILE, cifar10:DIR, ...")]
Model = Annotated[
    str | None,
    typer.Option(
        help="The exported model.onnx, or triton://HOST:PORT/MODEL on a Triton server; without it the "
        "photo encoder that comes with vssl."
    ),
]
Update = Annotated[bool, typer.Option("--update", help="Embed what is new or changed, drop what vanished.")]
Shard = Annotated[
    str | None, typer.Option(metavar="I/N", help="Do share I (from 0) of N; all shards share OUT.")
]
Form = Annotated[
    str, typer.Option("--format", help="parquet, or npy for clip-retrieval's arrays in addition.")
]
Engine = Annotated[
    str,
    typer.Option(
        help="local, openvino (often faster on CPUs with bf16 units), tensorrt on a GPU, or ray for Ray Data."
    ),
]
Pictures = Annotated[
    bool,
    typer.Option(
        "--images", help="Write the files themselves too, as a column that Hugging Face's tools show."
    ),
]
MaxFailures = Annotated[
    int | None, typer.Option(help="Stop with exit 1 when more images than this fail.", min=0)
]
Histogram = Annotated[bool, typer.Option("--histogram", help="Print the distribution of uncertainty.")]
ContactSheet = Annotated[
    Path | None,
    typer.Option(help="Write a PNG of the most and the least certain images.", callback=named(".png")),
]


def extract(
    images: Images,
    out: Annotated[Path, typer.Argument(help="Folder to write the embeddings into.")],
    *,
    model: Model = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a stopped run ended.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what the folder holds.")] = False,
    update: Update = False,
    shard: Shard = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a thread embeds at once.", min=1)] = None,
    workers: Annotated[int | None, typer.Option(help="Threads; all usable cores by default.", min=1)] = None,
    features: Annotated[bool, typer.Option("--features", help="Write the backbone's features too.")] = False,
    sha256: Annotated[bool, typer.Option("--sha256", help="Write the sha256 of each file too.")] = False,
    pictures: Pictures = False,
    dtype: Annotated[str, typer.Option(help="float32 or float16, of the stored numbers.")] = "float32",
    form: Form = "parquet",
    engine: Engine = "local",
    precision: Precision = None,
    device: Device = "auto",
    max_failures: MaxFailures = None,
    max_pixels: Annotated[int | None, typer.Option(help="Refuse larger images before decoding.")] = None,
    histogram: Histogram = False,
    contact_sheet: ContactSheet = None,
    as_json: Json = False,
) -> None:
    """Embed every image: Gaussians to Parquet, unreadable files to failures.parquet."""
    from serve.extraction.extract import extract as run
    from vssl.model.shipped import shipped_model

    if resume + overwrite + update > 1:
        raise typer.BadParameter("give one of --resume, --update and --overwrite")
    check_choice("--format", form, ("parquet", "npy"))
    check_choice("--dtype", dtype, ("float32", "float16"))
    check_choice("--engine", engine, ("local", "openvino", "tensorrt", "ray"))
    with _quiet_decoders(), stoppable(), _display() as report:
        summary = run(
            images, out, model=model or str(shipped_model()), resume=resume, overwrite=overwrite, update=update,
            shard=_share(shard), batch_size=batch_size, workers=workers, features=features, digests=sha256,
            pictures=pictures, dtype=dtype, arrays=form == "npy", engine=engine, precision=precision, device=device,
            max_failures=max_failures, limits=_limits(max_pixels), report=report,
        )  # fmt: skip
    say_json(summary.to_dict()) if as_json else _print_summary(summary)
    if summary.complete and not summary.rows:
        raise _nothing_embedded(out)
    if summary.complete and (histogram or contact_sheet):
        _show_uncertainty(images, out, contact_sheet, histogram=histogram)


def _nothing_embedded(out: Path) -> InputError:
    from vssl.embeddings.store import read_failures

    first = read_failures(out)[0]
    return InputError(f"not one image could be read: {shown_path(first.path)}: {first.reason}")


def _limits(max_pixels: int | None) -> DecodeLimits:
    from vssl.images.decode import DEFAULT_LIMITS, DecodeLimits

    if max_pixels is None:
        return DEFAULT_LIMITS
    try:
        return DecodeLimits(max_pixels=max_pixels)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _show_uncertainty(images: str, out: Path, contact_sheet: Path | None, *, histogram: bool) -> None:
    from serve.extraction.report import draw_extremes, uncertainty_histogram

    if histogram:
        say(uncertainty_histogram(out))
    if contact_sheet:
        draw_extremes(out, images, contact_sheet)
        note(f"wrote {contact_sheet}")


def _share(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    part, _, whole = text.partition("/")
    if not (part.isdecimal() and whole.isdecimal()):
        raise typer.BadParameter(f"--shard: found {text!r}, expected I/N, for example 0/8")
    return int(part), int(whole)


def _print_summary(summary: Summary) -> None:
    say(f"{summary.rows} of {summary.images} images embedded into {summary.out}")
    if not summary.complete:
        say("  other shards are not finished; the last one to finish completes the folder")
    if summary.resumed:
        say(f"  {summary.resumed} of them by an earlier run or another shard")
    if summary.reused:
        say(f"  {summary.reused} of them unchanged since the last run")
    if summary.images_per_second > 0:
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
def _quiet_decoders() -> Iterator[None]:
    """Keep what libtiff and its like print about damaged files off the screen; failures.parquet has it."""
    warnings.filterwarnings("ignore", module="PIL")
    try:
        usual = sys.stderr.fileno() == 2
    except OSError:  # a stream in memory
        usual = False
    if not usual:
        yield
        return
    before, screen = sys.stderr, os.dup(2)
    before.flush()
    with Path(os.devnull).open("w") as nowhere, os.fdopen(os.dup(screen), "w", buffering=1) as ours:
        os.dup2(nowhere.fileno(), 2)
        sys.stderr = ours
        try:
            yield
        finally:
            sys.stderr = before
            os.dup2(screen, 2)
            os.close(screen)


@contextmanager
def stoppable(said: str = "the finished parts stay, go on with --resume") -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does, with a word on what stays: nothing half is left.

    A signal that comes just when a lock is taken back leaves as that lock's error; it is a stop all the same.
    """
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        kinds.append(signal.SIGINT)
    before = {kind: signal.signal(kind, stop) for kind in kinds}
    try:
        yield
    except BaseException as error:
        if not stopped:
            raise
        note(f"vssl: stopped; {said}")
        raise KeyboardInterrupt from error
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
