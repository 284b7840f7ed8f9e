"""Image side S -> the batch sizes a model is run at: powers of two up to what pays.

A graph that only ever sees a few batch sizes keeps its memory flat. The engine cuts its work
into these sizes and a Triton repository names them as its preferred ones.
"""

from __future__ import annotations

CPU_BATCH_PIXELS = 16 * 224 * 224  # larger batches leave the cache and run slower
CPU_LARGEST = 32
GPU_LARGEST = 128


def batch_sizes(side: int, *, gpu: bool = False) -> tuple[int, ...]:
    """Return the batch sizes for square images of `side` pixels, ascending from 1."""
    largest = GPU_LARGEST if gpu else min(CPU_LARGEST, max(1, CPU_BATCH_PIXELS // side**2))
    return tuple(2**power for power in range(largest.bit_length()))
