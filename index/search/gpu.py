"""Encoded queries -> the items of largest inner product, by FAISS on the CPU or by a copy on a GPU.

The copy only proposes: what it returns is certified and evaluated in float64 as on the CPU, and only the
CPU's index is ever saved. The certificate's bound holds for float32 sums in any order, so the copy is kept
in float32, a process that forces TF32 on is refused, and each copy is first asked for scores that float64
can check: one that errs by more than the bound is not used.

A GPU index knows no filters, no more than 2,048 neighbours and one caller at a time; the CPU's answers the
rest. Shape letters: Q queries, N items, E encoded dimension, L length of a shortlist.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np

from index.arrays import Bools, Float64s, Int64s
from index.search.certificate import slack
from vssl.embeddings.gaussian import Floats
from vssl.errors import InputError

DEVICES = ("auto", "cpu", "cuda")
LONGEST = 2048
WORTH = 16  # queries at once from which `auto` copies an index to the GPU: starting one takes about a second
PROBES = 64
FORCED = "NVIDIA_TF32_OVERRIDE"


def gpus() -> int:
    """Return how many GPUs can be used: 0 for faiss-cpu, where none is visible or where TF32 is forced."""
    if not hasattr(faiss, "StandardGpuResources") or os.environ.get(FORCED) == "1":
        return 0
    return int(faiss.get_num_gpus())


def checked_device(device: str) -> str:
    """Return the name of a device. Raises InputError for an unknown one, and for `cuda` where it cannot be had."""
    if device not in DEVICES:
        raise InputError(f"device: found {device!r}, expected one of {', '.join(DEVICES)}")
    if device == "cuda" and os.environ.get(FORCED) == "1":
        raise InputError(
            f"device cuda: {FORCED}=1 rounds products to ten bits; unset it, or use --device cpu"
        )
    if device == "cuda" and not gpus():
        why = (
            "sees no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES"
            if hasattr(faiss, "StandardGpuResources")
            else "has no GPU support; in an environment without faiss-cpu: pip install 'vssl[gpu]'"
        )
        raise InputError(f"device cuda: this faiss {faiss.__version__} {why}, or use --device cpu")
    return device


def copy_to_gpu(index: Any) -> tuple[Any, Any]:
    """Return a float32 copy of a flat inner-product index on the first GPU, and what must live as long."""
    engine: Any = faiss  # the CPU wheel's hints know nothing of these
    config = engine.GpuIndexFlatConfig()
    config.useFloat16, config.device = False, 0
    if hasattr(config, "use_cuvs"):
        config.use_cuvs = False  # cuBLAS in float32 is what the bound is known for
    resources = engine.StandardGpuResources()
    return engine.GpuIndexFlatIP(resources, index, config), resources


class Copy:
    """One index's copy on a device; `usable` says whether it kept the bound."""

    def __init__(self, index: Any, widest: Float64s) -> None:
        self._engine, self._resources = copy_to_gpu(index)
        self._lock = threading.Lock()
        self.count = int(index.ntotal)
        self.usable = self._keeps_the_bound(index, widest)

    def search(self, encoded: Floats, length: int) -> tuple[Floats, Int64s]:
        """Return the `length` largest float32 scores (Q, L) and their rows."""
        with self._lock:
            scores, rows = self._engine.search(encoded, length)
        return scores, rows

    def _keeps_the_bound(self, index: Any, widest: Float64s) -> bool:
        """Compare scores with float64 for some of the items and for random vectors as large as any item."""
        random = np.random.default_rng(0)
        picked = np.sort(random.choice(index.ntotal, min(PROBES, index.ntotal), replace=False))
        items = np.stack([index.reconstruct(int(row)) for row in picked])
        probes = np.concatenate([items, (widest * random.uniform(-1, 1, items.shape)).astype(np.float32)])
        length = min(10, int(index.ntotal))
        scores, rows = self.search(probes, length)
        truth = np.empty(scores.shape)
        for probe, found in enumerate(rows):
            if (found < 0).any():
                return False
            stored = np.stack([index.reconstruct(int(row)) for row in found]).astype(np.float64)
            truth[probe] = stored @ probes[probe].astype(np.float64)
        allowed = slack(probes.astype(np.float64), np.zeros(len(probes)), widest)
        return bool((np.abs(scores - truth).max(axis=1) <= allowed).all())


class FlatSearch:
    """Searches one flat index, and keeps its copy on a GPU where there is one."""

    def __init__(self) -> None:
        self._copy: Copy | None = None
        self._copying = threading.Lock()

    def largest(
        self,
        index: Any,
        widest: Float64s,
        encoded: Floats,
        length: int,
        keep: Bools | None,
        *,
        device: str = "auto",
    ) -> tuple[Floats, Int64s]:
        """Return the `length` largest float32 scores (Q, L), descending, and their rows.

        encoded (Q, E); widest (E,) the largest magnitude of each feature; keep (N,) the rows allowed.
        """
        if keep is None and length <= LONGEST:
            copy = self._on_device(index, widest, len(encoded), device)
            if copy is not None:
                return copy.search(encoded, length)
        engine: Any = faiss  # its Python wrappers take arrays, which its type hints do not know
        # FAISS takes matrix products only above this many numbers in a batch; four queries pay.
        faiss.cvar.distance_compute_blas_threshold = 4 * encoded.shape[1]
        selection = None
        if keep is not None:
            bits = np.packbits(keep, bitorder="little")
            selection = engine.SearchParameters(sel=engine.IDSelectorBitmap(bits))
        with threads_for(len(encoded)):
            scores, rows = index.search(encoded, length, params=selection)
        return scores, rows

    def _on_device(self, index: Any, widest: Float64s, queries: int, device: str) -> Copy | None:
        """Return the copy on the GPU, made when it is worth it; None where the CPU is to search."""
        if device == "cpu" or not gpus():
            return None
        with self._copying:
            if self._copy is None or self._copy.count != index.ntotal:
                if self._copy is None and device == "auto" and queries < WORTH:
                    return None
                self._copy = Copy(index, widest)
            return self._copy if self._copy.usable else None


@contextlib.contextmanager
def threads_for(queries: int) -> Iterator[None]:
    """Let FAISS search with one thread while there is one query: split over threads it is slower."""
    threads = faiss.omp_get_max_threads()
    if queries == 1:
        faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
