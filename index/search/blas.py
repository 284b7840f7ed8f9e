"""A CPU's flags -> the OpenBLAS kernels it can run.

FAISS's wheels carry an OpenBLAS of 2021 that names CPUs by their model number and gives those it does
not know the kernels of 2004: on an Intel Xeon of model 207 a matrix product then takes four times as
long. Its variable OPENBLAS_CORETYPE, read once when it is loaded, says which kernels to take instead.
"""

from __future__ import annotations

from pathlib import Path

KERNELS = (
    ("SkylakeX", frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"})),
    ("Haswell", frozenset({"avx2", "fma"})),
)
FIRST_CPU = 8192  # characters of /proc/cpuinfo that hold the flags of the first CPU


def best_kernels(flags: frozenset[str]) -> str | None:
    """Return OpenBLAS's name for the best kernels that a CPU of these flags runs, None for its own choice.

    >>> best_kernels(frozenset({"fma", "avx2", "sse2"}))
    'Haswell'
    """
    return next((name for name, needed in KERNELS if needed <= flags), None)


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the flags of this machine's first CPU as Linux tells them, none elsewhere."""
    try:
        with cpuinfo.open() as file:
            text = file.read(FIRST_CPU)
    except OSError:
        return frozenset()
    lines = (line for line in text.splitlines() if line.startswith("flags"))
    return frozenset(next(lines, "").partition(":")[2].split())
