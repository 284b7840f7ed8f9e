"""What runs a graph: uint8 images (N, S, S, 3) -> the outputs that its card names, in that order.

`LocalGraph` runs it here, with onnxruntime. The modules openvino and triton hold the graph that OpenVINO
compiles and the one on a Triton server. The engine treats all alike.
Shape letters: N images, S side, D embedding dimension, F feature dimension.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnxruntime as ort

from serve.inference.backends.io_binding import BoundRuns
from serve.inference.backends.providers import CUDA
from vssl.embeddings.gaussian import Floats
from vssl.images.preprocess import Pixels
from vssl.model.batch_sizes import batch_sizes
from vssl.model.card import ModelCard


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph: name, kind as onnxruntime writes it, shape (a word where any size fits)."""

    name: str
    kind: str
    shape: tuple[int | str | None, ...]


class Graph(Protocol):
    """A loaded graph; every method may be called from any thread.

    engine: onnxruntime, openvino, tensorrt or triton. providers: where it runs, in words.
    precision: what it computes in when that was asked for, None for the file's own.
    buckets: batch sizes, ascending.
    lanes: runs at the same time that still gain something. remote: whether a run waits on a network.
    threads: cores that one run uses here.
    """

    engine: str
    providers: list[str]
    precision: str | None
    buckets: tuple[int, ...]
    lanes: int
    remote: bool
    threads: int

    def cut(self, total: int) -> Iterator[tuple[int, int, int]]:
        """Cut `total` images into (start, stop, batch size); what a batch lacks is padded."""

    def run(self, images: Pixels, *, more_waiting: bool = False) -> Sequence[Floats]:
        """Return the outputs of one batch, in the order of the card.

        more_waiting: whether more images wait than these; then a run that shares its cores costs least.
        """

    def stamp(self) -> Hashable | None:
        """Return what changes when there is a newer model at the source; None when that cannot be told now."""

    def close(self) -> None:
        """Let go of connections."""


class LocalGraph:
    """A graph in this process's onnxruntime.

    A run uses all the cores it may. With a second session of one thread, runs at the same time share them:
    a run that is alone, with none waiting, uses all; any other uses one. That answers a lone image soonest,
    and costs less when there are many, since threads of one run wait for each other (docs/measurements/serving.md).
    """

    remote = False

    def __init__(
        self,
        path: Path,
        session: ort.InferenceSession,
        card: ModelCard,
        threads: int,
        *,
        narrow: ort.InferenceSession | None = None,
        engine: str = "onnxruntime",
        precision: str | None = None,
    ) -> None:
        """narrow: the same graph with one thread, for runs at the same time."""
        self.engine, self.precision = engine, precision
        self.providers: list[str] = session.get_providers()
        self.buckets = batch_sizes(card.preprocess.size, gpu=self.on_gpu)
        self.threads = threads
        self._outputs = tuple(card.output_shapes)
        self._bound = BoundRuns(session, card.output_shapes, "cuda") if self.on_gpu else None
        self.lanes = 1 if narrow is None else threads
        self._path, self._session, self._narrow = path, session, narrow
        self._running, self._counting = 0, threading.Lock()

    @property
    def on_gpu(self) -> bool:
        """Whether the graph runs on CUDA."""
        return CUDA in self.providers

    def cut(self, total: int) -> Iterator[tuple[int, int, int]]:
        """Cut into buckets: all full on a CPU, the rest padded on a GPU."""
        return into_buckets(total, self.buckets, pad=self.on_gpu)

    def run(self, images: Pixels, *, more_waiting: bool = False) -> Sequence[Floats]:
        """Return the outputs of one batch, in the order of the card."""
        if self._bound is not None:
            return self._bound.run(images)
        if self._narrow is None:
            return self._answers(self._session, images)
        with self._counting:
            alone = self._running == 0 and not more_waiting
            self._running += 1
        try:
            return self._answers(self._session if alone else self._narrow, images)
        finally:
            with self._counting:
                self._running -= 1

    def _answers(self, session: ort.InferenceSession, images: Pixels) -> Sequence[Floats]:
        try:
            found: Sequence[Floats] = session.run(self._outputs, {"images": images})
        except Exception as error:  # onnxruntime's errors share no base class
            if "allocate" in str(error):
                raise MemoryError(f"no memory for a batch of {len(images)} images") from error
            raise
        return found

    def stamp(self) -> Hashable | None:
        """Return the file's identity on the disk, None while it is not there."""
        return file_stamp(self._path)

    def close(self) -> None:
        """Nothing is held open."""


def file_stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced, or None while it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def into_buckets(total: int, buckets: tuple[int, ...], *, pad: bool) -> Iterator[tuple[int, int, int]]:
    """Cut `total` images into (start, stop, bucket).

    On a CPU a batch costs what its images cost, so the rest is cut into smaller buckets; on a
    GPU a call costs more than the padding, so the rest is padded up to one bucket.
    """
    start = 0
    while start < total:
        left = total - start
        fitting = [b for b in buckets if (b >= left if pad else b <= left)]
        bucket = (fitting[0] if fitting else buckets[-1]) if pad else fitting[-1]
        yield start, start + min(left, bucket), bucket
        start += bucket
