"""What a flood leaves is handed back, and a process that has not grown is left alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from serve.inference.memory import GROWTH, hand_back, resident_bytes

FLOOD = """
import threading
from serve.inference.memory import hand_back, resident_bytes
level = resident_bytes()
def flood():
    blocks = [bytes(60_000) for _ in range(4000)]  # below the size that the system takes back at once
    kept.append(blocks[-1])
kept = []
for _ in range(4):
    thread = threading.Thread(target=flood)
    thread.start()
    thread.join()
before = resident_bytes()
print(level, before, hand_back(level))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc_trim")
def test_memory_returns_to_its_level_after_a_flood() -> None:
    found = subprocess.run([sys.executable, "-c", FLOOD], check=True, capture_output=True, text=True)
    level, before, after = map(int, found.stdout.split())
    assert before > level + GROWTH
    assert after < level + (before - level) / 4


def test_a_process_that_has_not_grown_keeps_its_level() -> None:
    level = resident_bytes()
    assert hand_back(level) <= level
    assert hand_back(2 * level) <= 2 * level
