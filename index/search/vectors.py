"""The Gaussians that searches compare: held in memory, or mapped from two files, and growing in place.

One object is shared by a view and every index over it, so that each item is held once. Mapped arrays
are never written: what is added to them lies in memory.

Shape letters: N rows, M added rows, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.arrays import Bools, Int64s
from vssl.embeddings.gaussian import Floats, GaussianEmbedding
from vssl.errors import FormatError
from vssl.files import flush

LANES = 16
MEAN, VARIANCE = "mean.npy", "variance.npy"
Which = slice | Int64s | Bools


class Vectors:
    """N Gaussians that grow in place: adding one costs no copy of the others."""

    def __init__(self, gaussians: GaussianEmbedding) -> None:
        self._set(gaussians.mean, gaussians.variance)

    def _set(self, mean: Floats, variance: Floats) -> None:
        self._mean, self._variance = mean, variance
        self._count = len(mean)
        self._mapped: tuple[Floats, Floats] | None = (
            None  # the first rows; then the arrays above hold the rest
        )
        self._first = 0

    @classmethod
    def empty(cls, capacity: int, dim: int) -> Vectors:
        """Return no rows yet, with capacity for R of them, (R, D)."""
        made = cls(GaussianEmbedding(*(np.empty((0, dim), np.float32) for _ in range(2))))
        made._mean, made._variance = (np.empty((capacity, dim), np.float32) for _ in range(2))
        return made

    @classmethod
    def of(cls, items: GaussianEmbedding | Vectors) -> Vectors:
        """Return vectors as they are, and Gaussians as vectors that share their arrays."""
        return items if isinstance(items, Vectors) else cls(items)

    @classmethod
    def mapped(cls, folder: Path) -> Vectors:
        """Map what `save` wrote; the caller has verified the files. Raises FormatError when they do not fit."""
        try:
            parts = [np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (MEAN, VARIANCE)]
        except (OSError, ValueError) as error:
            raise FormatError(f"{folder} is not readable ({error}); it is built again") from error
        mean, variance = (np.asarray(part) for part in parts)
        if mean.shape != variance.shape or mean.dtype != np.float32 or variance.dtype != np.float32:
            raise FormatError(
                f"{folder}: found {mean.dtype} {mean.shape} and {variance.dtype} {variance.shape}"
            )
        made = cls.empty(0, mean.shape[1])
        made._mapped, made._first, made._count = (mean, variance), len(mean), len(mean)
        return made

    def save(self, folder: Path) -> None:
        """Write the rows into an existing folder, flushed, for `mapped`."""
        for name, parts in ((MEAN, self._parts(0)), (VARIANCE, self._parts(1))):
            with (folder / name).open("wb") as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": (len(self), self.dim)}
                np.lib.format.write_array_header_1_0(file, header)
                for part in parts:
                    file.write(np.ascontiguousarray(part).data)
            flush(folder / name)

    def _parts(self, which: int) -> list[Floats]:
        grown = (self._mean, self._variance)[which][: self._count - self._first]
        return [grown] if self._mapped is None else [self._mapped[which], grown]

    def __len__(self) -> int:
        return self._count

    @property
    def dim(self) -> int:
        """D."""
        return int(self._mean.shape[1])

    @property
    def nbytes(self) -> int:
        """The size of all rows."""
        return 2 * 4 * len(self) * self.dim

    @property
    def mean(self) -> Floats:
        """(N, D); a copy where rows were added to mapped ones."""
        return self._whole(0)

    @property
    def variance(self) -> Floats:
        """(N, D), likewise."""
        return self._whole(1)

    def _whole(self, which: int) -> Floats:
        parts = [part for part in self._parts(which) if len(part)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts or self._parts(which)[:1])

    def means(self, rows: Int64s) -> Floats:
        """Return (..., D) of rows (...)."""
        return self._taken(0, rows)

    def variances(self, rows: Int64s) -> Floats:
        """Return (..., D) of rows (...)."""
        return self._taken(1, rows)

    def _taken(self, which: int, rows: Int64s) -> Floats:
        grown = (self._mean, self._variance)[which]
        if self._mapped is None:
            return grown[rows]
        mapped = self._mapped[which]
        if self._count == self._first:
            return mapped[rows]
        late = rows >= self._first
        taken = np.empty((*rows.shape, self.dim), np.float32)
        taken[~late], taken[late] = mapped[rows[~late]], grown[rows[late] - self._first]
        return taken

    def __getitem__(self, rows: Which) -> GaussianEmbedding:
        """Return some rows as checked Gaussians."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1 and (stop <= self._first or start >= self._first):  # in one piece: no copy
                offset = 0 if stop <= self._first else self._first
                here = slice(start - offset, stop - offset)
                mean, variance = (
                    self._mapped if self._mapped and stop <= self._first else (self._mean, self._variance)
                )
                return GaussianEmbedding(mean[here], variance[here])
            at = np.arange(start, stop, step)
        else:
            at = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64, copy=False)
        return GaussianEmbedding(self.means(at), self.variances(at))

    def blocks(self, numbers: int, *, start: int = 0) -> Iterator[GaussianEmbedding]:
        """Yield the rows from `start` on in their order, about so many numbers at once."""
        step = max(1, numbers // max(1, self.dim))
        for first in range(start, len(self), step):
            yield self[first : first + step]

    def add(self, gaussians: GaussianEmbedding) -> None:
        """Append (M, D); what was handed out before stays as it is."""
        held, total = self._count - self._first, self._count - self._first + len(gaussians)
        if total > len(self._mean):  # grow by half again, so that single additions stay cheap
            capacity = max(total, held + held // 2)
            self._mean, self._variance = (_grown(a[:held], capacity) for a in (self._mean, self._variance))
        self._mean[held:total], self._variance[held:total] = gaussians.mean, gaussians.variance
        self._count += len(gaussians)


def padded(columns: NDArray[Any]) -> NDArray[Any]:
    """Return (N, E) with columns of zeros up to a multiple of 16.

    FAISS falls to scalar code for dimensions that are no multiple of its vector width.
    """
    count, width = columns.shape
    if width % LANES == 0:
        return columns
    whole = np.zeros((count, width + -width % LANES), columns.dtype)  # several times as fast as np.pad
    whole[:, :width] = columns
    return whole


def _grown(array: Floats, capacity: int) -> Floats:
    grown = np.empty((capacity, array.shape[1]), np.float32)
    grown[: len(array)] = array
    return grown
