"""FAISS multiplies matrices by the best kernels that this CPU runs, whatever its model number."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from pathlib import Path

import pytest

from index.search import blas as module
from index.search.blas import KERNELS, best_kernels, cpu_flags

ASK = """
import ctypes
import index.search.exact
lines = open("/proc/self/maps").read().splitlines()
paths = {line.split()[-1] for line in lines if "faiss" in line and "openblas" in line}
for path in paths:
    core = ctypes.CDLL(path).openblas_get_corename
    core.restype = ctypes.c_char_p
    print(core().decode())
"""


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(module).failed == 0


def test_more_flags_never_mean_older_kernels() -> None:
    wide, usual = KERNELS[0][1], KERNELS[1][1]
    assert best_kernels(wide | usual | {"sse2"}) == "SkylakeX"
    assert best_kernels(usual | (wide - {"avx512vl"})) == "Haswell"
    assert best_kernels(frozenset({"sse2", "avx"})) is None


def test_flags_are_read_of_the_first_cpu(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel\t\t: 207\nflags\t\t: fpu avx2 fma\n\nflags\t\t: other\n")
    assert cpu_flags(file) == {"fpu", "avx2", "fma"}
    assert cpu_flags(tmp_path / "nowhere") == frozenset()


def loaded(environment: dict[str, str]) -> list[str]:
    """Return which kernels a fresh process's FAISS loads; nothing where its OpenBLAS is not a file of its own."""
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_a_fresh_process_loads_them_unless_the_variable_is_set() -> None:
    clean = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    found = loaded(clean)
    if not found:
        pytest.skip("this FAISS carries no OpenBLAS")
    best = best_kernels(cpu_flags())
    if best is None:
        pytest.skip("a CPU without AVX2")
    assert found == [best]
    assert loaded(clean | {"OPENBLAS_CORETYPE": "Nehalem"}) == ["Nehalem"]
