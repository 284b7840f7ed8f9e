"""The artefact that `bentoml build` makes, served and searched from another folder than the repository's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serve.inference.engine import Engine
from tests.serve.http.conftest import encoded, make_gallery
from tests.serve.running import get, post, running
from tests.support.tiny_model import tiny_model

ROOT = Path(__file__).resolve().parents[2]


def test_the_built_bento_embeds_and_searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "true"}
    built = subprocess.run(
        [sys.executable, "-m", "bentoml", "build", "-o", "tag"],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=200,
    )  # fmt: skip
    tag = built.stdout.strip().removeprefix("__tag__:")
    bento = tmp_path / "home" / "bentos" / tag.replace(":", "/")
    kept = {path.name for path in (bento / "src").iterdir()}
    assert {"vssl", "serve", "index"} <= kept
    assert not {"train", "export", "tests"} & kept
    # What answers must be the Bento's own copy, as where vssl is not installed: it comes first on the
    # path, and has a version that no other has.
    environment["PYTHONPATH"] = str(bento / "src")
    version = bento / "src" / "vssl" / "model" / "identity.py"
    version.write_text(version.read_text() + '\nVERSION = "0.0.0+bento"\n')
    model = tiny_model(tmp_path / "model.onnx")
    make_gallery(tmp_path, Engine.open(model))
    environment |= {"VSSL_MODEL": str(model), "VSSL_GALLERY": str(tmp_path / "gallery")}
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "bentoml", "serve", tag, "--host", "127.0.0.1"]
    with running([], tmp_path, environment=environment, command=command) as server:
        assert get(f"{server.url}/openapi.json").json()["info"]["version"] == "0.0.0+bento"
        assert post(f"{server.url}/embed", content=encoded(1)).status_code == 200
        found = post(f"{server.url}/search?k=3", content=encoded(1)).json()
        (result,) = found["results"]
        assert result["neighbours"][0]["id"] == "set/1.png"
        assert len(result["neighbours"]) == 3
        assert server.terminate() == 0
