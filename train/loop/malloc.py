"""Large buffers of a training step -> kept by the process instead of handed back after each use.

A step on the CPU allocates and frees the same tens of megabytes again and again. glibc gives
each back to the kernel, which then clears its pages again: with the `small` recipe a third of a
step went there (docs/measurements/training.md). Other allocators and systems are left as they are.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
KEPT_BYTES = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed, for this process; return whether it agreed."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
