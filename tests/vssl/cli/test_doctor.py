"""`vssl doctor` says what works on this machine and what to install."""

from __future__ import annotations

import json
from importlib.metadata import version

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
    assert f"onnxruntime {version('onnxruntime')}" in " ".join(shown.split())
    assert "next: " in shown


@pytest.mark.parametrize("extra", ["train", "cpu"])
def test_a_missing_package_comes_with_the_command_that_brings_it(extra: str) -> None:
    lines = advice({"extras": {extra: {"there": "1.0", "absent": None}}})
    assert any(f"pip install 'vssl[{extra}]' (missing: absent)" in line for line in lines)
    assert advice({"extras": {extra: {"there": "1.0"}}}) == ["vssl demo, or vssl extract IMAGES EMBEDDINGS"]


def test_completion_is_offered_for_the_shell() -> None:
    assert "--install-completion" in vssl("--help").stdout
