"""Ray Data runs the same mapper: its output is the local engine's."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from serve.extraction.extract import extract
from tests.serve.photo_folder import assert_same, photo_folder
from tests.support.tiny_model import tiny_model
from vssl.embeddings.store import read_embeddings

COMMAND = """
import sys
from pathlib import Path
from serve.extraction.extract import extract
extract(sys.argv[1], Path(sys.argv[2]), model=Path(sys.argv[3]), engine="ray", part_rows=8, batch_size=3, workers=1)
"""


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: the extra `ray`")
def test_ray_and_local_write_the_same(tmp_path: Path) -> None:
    photos, model = photo_folder(tmp_path / "photos"), tiny_model(tmp_path / "model.onnx")
    extract(photos, tmp_path / "local", model=model, part_rows=8, batch_size=3)
    command = [sys.executable, "-c", COMMAND, str(photos), str(tmp_path / "ray"), str(model)]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    assert_same(read_embeddings(tmp_path / "ray"), read_embeddings(tmp_path / "local"))
