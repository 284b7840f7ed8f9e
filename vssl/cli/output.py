"""What the verbs share with a person: results to stdout, progress to stderr, errors with exit 1."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vssl.errors import ExistsError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress

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
    "prometheus_client": "cpu",
    "sklearn": "demo",
    "matplotlib": "plots",
    "tritonclient": "triton",
    "ray": "ray",
    "pymilvus": "milvus",
}


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


Report = Callable[[str], None]
