"""What the verbs say to a person: results and tables to stdout, progress to stderr, errors with exit 1."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import typer

from vssl.errors import ExistsError, MissingExtraError
from vssl.files import require_local

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress
    from rich.table import Table

Column = tuple[str, Literal["left", "right"]]
FILE_WIDTH = 160  # columns when stdout is no terminal and has no width of its own
EXTRAS = {
    "torch": "train",
    "torchvision": "train",
    "onnx": "train",
    "onnxscript": "train",
    "safetensors": "train",
    "onnxruntime": "cpu",
    "faiss": "cpu",
    "bentoml": "cpu",
    "starlette": "cpu",
    "orjson": "cpu",
    "pybase64": "cpu",
    "httpx": "cpu",
    "pydantic": "cpu",
    "prometheus_client": "cpu",
    "datasets": "hf",
    "huggingface_hub": "backbones",
    "sklearn": "demo",
    "matplotlib": "plots",
    "openTSNE": "map",
    "tritonclient": "triton",
    "ray": "ray",
    "pymilvus": "milvus",
}

STEERING = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    code: f"\\u{code:04x}" for code in (*range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
}
"""Characters of file names that move the cursor, change colours, end a line or turn the direction of a text."""

FITTING: tuple[Column, ...] = (
    ("distance", "left"),
    ("variance times", "right"),
    ("mAP@R", "right"),
    ("95 % interval", "left"),
    ("over cosine", "left"),
    ("recall@1", "right"),
    ("hub max", "right"),
    ("hub skew", "right"),
)


def say(text: str = "") -> None:
    """Print a result line to stdout."""
    sys.stdout.write(text + "\n")


def note(text: str = "") -> None:
    """Print a line about progress to stderr."""
    sys.stderr.write(text + "\n")


def say_json(value: Any) -> None:
    """Print one JSON value as one line to stdout."""
    say(json.dumps(value, sort_keys=False))


@contextmanager
def extras() -> Iterator[None]:
    """Turn a missing package of an extra into an error that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in EXTRAS:
            raise MissingExtraError(package, EXTRAS[package]) from error
        raise


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise ExistsError when an output exists and was not asked to be replaced, InputError for a URL."""
    require_local(path)
    if path.exists() and not overwrite:
        raise ExistsError(f"{path} exists already; choose another output or add --overwrite")


def check_choice(flag: str, found: str | None, expected: Sequence[str]) -> None:
    """Refuse a value that is none of those expected, as wrong usage of the flag; None is not given."""
    if found is not None and found not in expected:
        raise typer.BadParameter(f"found {found!r}, expected {' or '.join(expected)}", param_hint=flag)


def progress() -> Progress:
    """Return a rich progress display on stderr: description, bar, count, rate, ETA; none where it is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )


def show_table(title: str, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; long cells fold, nothing is cut, and what would steer a terminal is escaped."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for name, justify in columns:
        table.add_column(name, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell.translate(STEERING)) for cell in row))
    print_table(table)


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal, or as a file may be."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else FILE_WIDTH, highlight=False).print(table)


def show_fitting(gallery: object, distance: str, fitting: dict[str, Any], *, verbose: bool) -> None:
    """Print the facts of `index.calibration.fit.Fitting.facts`: a sentence, and the best distances.

    The gallery's own distance and cosine are always among them. verbose: all distances.
    """
    trials = fitting["trials"]
    by_rank = sorted(trials, key=lambda name: -trials[name].get("map_at_r", 0.0))
    few = {distance, "cosine", *by_rank[:4]} if "map_at_r" in trials.get(distance, {}) else set()
    shown = [name for name in trials if verbose or name in few]
    say(f"distance {distance}: {fitting['chosen']}{_gain(distance, trials)}")
    if shown:
        show_table(f"* {distance}", FITTING, [_fitting_row(name, trials[name], distance) for name in shown])
    say(fitting["basis"])
    if len(shown) < len(trials):
        every = shlex.join(["vssl", "gallery", "info", str(gallery), "--verbose"])
        say(f"{len(trials) - len(shown)} more distances: {every}")
    if fitting.get("stale"):
        say(f"stale: {fitting['stale']}")


def _gain(distance: str, trials: dict[str, Any]) -> str:
    own = trials.get(distance, {})
    if "map_at_r" not in own:
        return ""
    figures = f"; mAP@R {own['map_at_r']:.3f} ({own['low']:.3f} .. {own['high']:.3f})"
    return figures if distance == "cosine" else f"{figures}, cosine {trials['cosine']['map_at_r']:.3f}"


def _fitting_row(name: str, figures: dict[str, Any], distance: str) -> Sequence[str]:
    quality = ("", "", "", "")
    if "map_at_r" in figures:
        quality = (
            f"{figures['map_at_r']:.3f}",
            f"{figures['low']:.3f} .. {figures['high']:.3f}",
            "" if name == "cosine" else f"{figures['gain']:+.3f} (se {figures['gain_error']:.3f})",
            f"{figures['recall_at_1']:.3f}",
        )
    hubs = str(figures["hub_max"]), f"{figures['hub_skew']:.1f}"
    return (f"{name} *" if name == distance else name, f"{figures['alpha']:.4g}", *quality, *hubs)
