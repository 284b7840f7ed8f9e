"""`vssl doctor` says what works on this machine and what to install."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.vssl.cli.command import vssl
from vssl.cli.doctor import advice


def test_it_says_what_is_installed_and_what_works() -> None:
    done = vssl("doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["extras"]["cpu"]["onnxruntime"] == version("onnxruntime")
    assert "golden pair" in found["engines"]["the shipped model"]
    assert found["engines"]["faiss"]
    shown = vssl("doctor").stdout
    assert f"onnxruntime=={version('onnxruntime')}" in " ".join(shown.split())
    assert "next: " in shown


@pytest.mark.parametrize("extra", ["train", "cpu"])
def test_a_missing_package_comes_with_the_command_that_brings_it(extra: str) -> None:
    lines = advice({"extras": {extra: {"there": "1.0", "absent": None}}})
    assert any(f"pip install 'vssl[{extra}]' (missing: absent)" in line for line in lines)
    assert advice({"extras": {extra: {"there": "1.0"}}}) == ["vssl demo, or vssl extract IMAGES EMBEDDINGS"]


@pytest.mark.parametrize(
    ("typed", "completed"), [("vssl ex", ["export", "extract"]), ("vssl index --di", ["--distance"])]
)
def test_a_shell_completes_verbs_and_flags(typed: str, completed: list[str]) -> None:
    assert "--install-completion" in vssl("--help").stdout
    command = shutil.which("vssl", path=Path(sys.executable).parent)
    if command is None:
        pytest.skip("the command vssl is not installed beside this Python")
    asked = {"_VSSL_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = subprocess.run([command], env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == completed
