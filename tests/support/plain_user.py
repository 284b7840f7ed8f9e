"""Commands started as a user who may not do everything, which tests that run as root need."""

from __future__ import annotations

import os
import shutil

import pytest


def as_a_plain_user() -> list[str]:
    """Return what starts a command without the right to read and write everything, which root has."""
    if os.getuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may read everything, and there is no setpriv to give that up")
    rights = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
