"""What the verbs say to a person: results and tables to stdout, progress to stderr, errors with exit 1."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from vssl.errors import ExistsError, MissingExtraError

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
    "sklearn": "demo",
    "matplotlib": "plots",
    "tritonclient": "triton",
    "ray": "ray",
    "pymilvus": "milvus",
}

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


def refuse_existing(path: Path, *, overwrite: bool, flag: str = "--overwrite") -> None:
    """Raise ExistsError when an output exists and was not asked to be replaced."""
    if path.exists() and not overwrite:
        raise ExistsError(f"{path} exists already; choose another output or add {flag}")


def check_choice(flag: str, found: str, expected: Sequence[str]) -> None:
    """Refuse a value that is none of those expected, as wrong usage of the flag."""
    if found not in expected:
        import typer

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
    """Print a table; long cells fold, nothing is cut."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for name, justify in columns:
        table.add_column(name, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    print_table(table)


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal, or as a file may be."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else FILE_WIDTH, highlight=False).print(table)


def show_fitting(distance: str, fitting: dict[str, Any]) -> None:
    """Print the facts of `index.calibration.fit.Fitting.facts`, the gallery's own distance marked."""
    rows = []
    for name, figures in fitting["trials"].items():
        quality = ("", "", "", "")
        if "map_at_r" in figures:
            quality = (
                f"{figures['map_at_r']:.3f}",
                f"{figures['low']:.3f} .. {figures['high']:.3f}",
                "" if name == "cosine" else f"{figures['gain']:+.3f} (se {figures['gain_error']:.3f})",
                f"{figures['recall_at_1']:.3f}",
            )
        own = f"{name} *" if name == distance else name
        hubs = str(figures["hub_max"]), f"{figures['hub_skew']:.1f}"
        rows.append((own, f"{figures['alpha']:.4g}", *quality, *hubs))
    show_table(f"* {distance}: {fitting['chosen']}", FITTING, rows)
    say(fitting["basis"])
    if fitting.get("stale"):
        say(f"stale: {fitting['stale']}")
