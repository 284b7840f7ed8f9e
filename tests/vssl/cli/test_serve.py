"""The verb serve: what it says before it listens, what it refuses, and how options become settings."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from serve.inference.engine import Engine
from tests.serve.http.conftest import encoded, make_gallery
from tests.serve.running import VSSL, free_port, get, post, running
from tests.support.tiny_model import tiny_model


def refused(*arguments: str) -> str:
    """Run `vssl serve` that must not start; return its message."""
    done = subprocess.run(
        [*VSSL, "serve", *arguments, "--port", str(free_port())], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_it_says_where_it_listens_and_warns_of_a_raw_variance(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model.onnx", calibration="none")
    with running(["--model", str(model)], tmp_path) as server:
        said = server.log.read_text()
    assert f"{server.url}/ui" in said
    assert "curl --data-binary @photo.jpg" in said
    assert "the variance is not calibrated" in said


def test_a_missing_or_broken_model_refuses_with_what_to_type(tmp_path: Path) -> None:
    assert "vssl export" in refused("--model", str(tmp_path / "absent.onnx"))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(tiny_model(tmp_path / "model.onnx").read_bytes()[:-2000])
    assert "vssl export" in refused("--model", str(broken))


def test_a_gallery_of_another_model_is_refused(tmp_path: Path) -> None:
    from serve.inference.engine import Engine

    one, other = tiny_model(tmp_path / "one.onnx"), tiny_model(tmp_path / "other.onnx", seed=1)
    make_gallery(tmp_path, Engine.open(one, threads=1))
    message = refused("--model", str(other), "--gallery", str(tmp_path / "gallery"))
    assert "vssl index" in message


def test_an_address_that_cannot_be_listened_on_is_refused(tmp_path: Path) -> None:
    model = str(tiny_model(tmp_path / "model.onnx"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*VSSL, "serve", "--model", model, "--port", port], capture_output=True, text=True
        )
    assert done.returncode == 1
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr
    assert "--host" in refused("--model", model, "--host", "example.org")


def test_an_empty_key_file_is_refused(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model.onnx")
    keys = tmp_path / "keys"
    keys.write_text("# nothing\n")
    assert "no API key" in refused("--model", str(model), "--api-key-file", str(keys))


@pytest.mark.parametrize(("variable", "value"), [("VSSL_MAX_ITEMS", "many"), ("VSSL_DEADLINE_S", "0")])
def test_a_wrong_setting_is_named(
    tmp_path: Path, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert variable in refused("--model", str(tiny_model(tmp_path / "model.onnx")))


def test_options_reach_the_server_and_overrule_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths are found from the folder in which the command was typed."""
    tiny_model(tmp_path / "model.onnx")
    make_gallery(tmp_path, Engine.open(tmp_path / "model.onnx", threads=1))
    monkeypatch.chdir(tmp_path)
    environment = {"VSSL_MODEL": "elsewhere.onnx", "VSSL_LOG": "text", "VSSL_MAX_ITEMS": "3"}
    options = ["--model", "pets=model.onnx", "--gallery", "gallery", "--show-images", "--threads", "1"]
    with running([*options, "--log", "off"], tmp_path, environment=environment) as server:
        described = get(f"{server.url}/model").json()
        assert (described["name"], described["threads"], described["gallery"]) == ("pets", 1, True)
        assert (described["show_images"], described["limits"]["max_items"]) == (True, 3)
        assert post(f"{server.url}/search", content=encoded(3)).status_code == 200
    assert "POST /search" not in server.log.read_text()
