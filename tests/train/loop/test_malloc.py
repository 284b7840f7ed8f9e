"""Freed buffers stay with the process: taking them again costs no page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from train.loop.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(20):  # aligned blocks reach a steady state after a few rounds
    torch.ones(16_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator only")
def test_a_buffer_taken_again_faults_no_pages() -> None:
    faults = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", SCRIPT, how], check=True, capture_output=True, text=True
            ).stdout
        )
        for how in ("keep", "leave")
    }
    assert faults["keep"] < 1000
    assert faults["leave"] > 5 * 10_000  # 64 MB in pages of 4 kB, five times: the test can fail
