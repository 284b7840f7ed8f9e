"""Encoded queries -> the items of largest inner product, by FAISS on the CPU or by a copy on a GPU.

Shape letters: Q queries, N items, E encoded dimension, L length of a shortlist.
"""

from __future__ import annotations

import threading
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.distances.parameters import Float64s
from index.search.certificate import Rows
from index.search.gpu import LONGEST, WORTH, Copy, gpus
from vssl.embeddings.gaussian import Floats


class Proposals:
    """Where one flat index is searched, and its copy on a GPU where there is one. device: auto, cpu or cuda."""

    def __init__(self) -> None:
        self.device = "auto"
        self._copy: Copy | None = None
        self._copying = threading.Lock()

    def largest(
        self,
        index: Any,
        widest: Float64s,
        asked: Floats,
        length: int,
        keep: NDArray[np.bool_] | None,
    ) -> tuple[Floats, Rows]:
        """Return the `length` largest float32 scores (Q, L), descending, and their rows.

        asked (Q, E); widest (E,) the largest magnitude of each feature; keep (N,) the rows allowed.
        """
        if keep is None and length <= LONGEST:
            copy = self._on_device(index, widest, len(asked))
            if copy is not None:
                return copy.search(asked, length)
        # FAISS takes matrix products only above this many numbers in a batch; four queries pay.
        faiss.cvar.distance_compute_blas_threshold = 4 * asked.shape[1]
        threads = faiss.omp_get_max_threads()
        selection = None if keep is None else _selection(keep)
        if len(asked) == 1:  # one query split over threads is slower than on one
            faiss.omp_set_num_threads(1)
        try:
            scores, rows = index.search(asked, length, params=selection)
        finally:
            faiss.omp_set_num_threads(threads)
        return scores, rows

    def _on_device(self, index: Any, widest: Float64s, queries: int) -> Copy | None:
        """Return the copy on the GPU, made when it is worth it; None where the CPU is to search."""
        if self.device == "cpu" or not gpus():
            return None
        with self._copying:
            if self._copy is None or self._copy.count != index.ntotal:
                if self._copy is None and self.device == "auto" and queries < WORTH:
                    return None
                self._copy = Copy(index, widest)
            return self._copy if self._copy.usable else None


def _selection(keep: NDArray[np.bool_]) -> Any:
    """Return FAISS's form of "only these rows"."""
    engine: Any = faiss  # its Python wrappers take arrays, which its type hints do not know
    return engine.SearchParameters(sel=engine.IDSelectorBitmap(np.packbits(keep, bitorder="little")))
