"""Memory freed after a flood of large pictures -> handed back to the system.

glibc keeps freed blocks in the arena of each thread that decoded; a server then stays as large as its worst second.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

GROWTH = 64 * 2**20  # bytes beyond the last level, before it is worth the time

STATUS = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Return the memory of this process that is in use, 0 where the system does not say."""
    try:
        return int(STATUS.read_text().split()[1]) * 4096
    except (OSError, ValueError, IndexError):
        return 0


def hand_back(level: int) -> int:
    """Hand freed memory back when the process has grown beyond `level`; return the level it has now.

    Takes milliseconds, without Python's lock. Other systems and allocators are left as they are.
    """
    found = resident_bytes()
    if found < level + GROWTH or not sys.platform.startswith("linux"):
        return min(found, level) if level else found
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return found
    trim(0)
    return resident_bytes()
