"""`vssl train` and `vssl probe` as a person types them: results on stdout, the rest on stderr, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.train.picture_folder import write_pictures
from train.state.checkpoint import load_checkpoint
from train.state.metrics_log import read_metrics
from vssl.cli import main

SETTINGS = """
size = 16
cache_size = 16
batch_size = 16
epochs = 2
precision = "fp32"
[network]
width = 8
dim = 8
projector_hidden = 16
predictor_hidden = 16
denoiser_hidden = 16
[evaluation]
validation = 0.3
every = 1
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "pictures", 24)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "tiny.toml"
    path.write_text(SETTINGS)
    return path


class Terminal:
    """Types `vssl ...` within this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capture = monkeypatch, capsys

    def __call__(self, *words: str | Path) -> tuple[int, str, str]:
        """Return exit code, stdout, stderr."""
        self._patch.setattr(sys, "argv", ["vssl", *map(str, words)])
        code = 0
        try:
            main.run()
        except SystemExit as end:
            code = int(end.code or 0)
        said = self._capture.readouterr()
        return code, said.out, said.err


@pytest.fixture
def vssl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(monkeypatch, capsys)


def words(pictures: Path, settings: Path, out: Path) -> list[str | Path]:
    return ["train", pictures, "--out", out, "--recipe", "small", "--config", settings, "--device", "cpu",
            "--threads", "1"]  # fmt: skip


def test_a_run_ends_with_what_it_reached_and_what_to_type_next(
    vssl: Terminal, pictures: Path, settings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, said, noted = vssl(*words(pictures, settings, out), "--seed", "3", "--method", "byol", "--plot")
    assert code == 0
    first, second = said.splitlines()
    assert first.startswith(f"{out}: 2 epochs over ")
    assert "k-NN 0." in first
    assert second == f"next: vssl export {out} {out}/model.onnx"
    assert "byol: " in noted
    assert all("epoch " in line for line in noted.splitlines() if "images/s" in line)  # and no bar in a file
    assert f"drawn: {out / 'curves.png'}" in noted
    assert load_checkpoint(out).config.seed == 3
    for name in ("checkpoint.pt", "best.pt", "student.safetensors", "config.json", "curves.png"):
        assert (out / name).stat().st_size > 100, name


def test_as_json_it_is_one_object(vssl: Terminal, pictures: Path, settings: Path, tmp_path: Path) -> None:
    code, said, _ = vssl(*words(pictures, settings, tmp_path / "run"), "--epochs", "1", "--json")
    assert code == 0
    result = json.loads(said)
    assert (result["epochs"], result["images"], result["method"]) == (1, 72, "vssl")
    assert {"knn_top1", "r_auroc_views", "variance_spread"} <= set(result["metrics"])


def test_the_options_decide_over_the_file_and_the_file_over_the_recipe(
    vssl: Terminal, pictures: Path, settings: Path, tmp_path: Path
) -> None:
    more = ["--epochs", "0", "--batch-size", "8", "--size", "12"]
    assert vssl(*words(pictures, settings, tmp_path / "run"), *more)[0] == 0
    config = load_checkpoint(tmp_path / "run").config
    assert (config.epochs, config.batch_size, config.size, config.network.width) == (0, 8, 12, 8)
    assert config.optimiser.name == "adamw"


def test_a_probe_prints_every_accuracy_with_its_interval(
    vssl: Terminal, pictures: Path, settings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert vssl(*words(pictures, settings, out), "--epochs", "0")[0] == 0
    code, said, noted = vssl("probe", out, pictures, "--device", "cpu")
    assert code == 0
    assert said.splitlines()[0].startswith("3 classes, ")
    assert len(said.splitlines()) == 1 + 2 * 2 * 2
    assert "no accuracy of the online classifier: it may have seen" in noted
    code, said, noted = vssl("probe", out, pictures, "--test", pictures)
    assert (
        sum(line.split()[:4] == ["student", "features", "linear,", "online"] for line in said.splitlines())
        == 1
    )
    assert "no accuracy" not in noted
    code, said, _ = vssl("probe", out, pictures, "--test", pictures, "--json")
    result = json.loads(said)
    assert result["test"] == 72
    for kind in ("knn", "linear", "online"):
        name = f"student_features_{kind}"
        low, value, high = (result["metrics"][name + end] for end in ("_low", "", "_high"))
        assert 0 <= low <= value <= high <= 1


def test_what_is_wrong_is_said_in_one_line_and_exits_1(
    vssl: Terminal, pictures: Path, settings: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for picture in sorted((pictures / "rings").iterdir())[:5]:
        (few / picture.name).write_bytes(picture.read_bytes())
    for images, expected in ((few, "found 5 readable images"), (tmp_path / "absent", "absent")):
        code, said, noted = vssl(*words(images, settings, tmp_path / "run"))
        assert (code, said) == (1, "")
        assert expected in noted
        assert "Traceback" not in noted
    code, _, noted = vssl("probe", tmp_path / "absent", pictures)
    assert code == 1
    assert "no checkpoint" in noted
    code, _, noted = vssl(*words(pictures, settings, tmp_path / "run"), "--method", "sim")
    assert code == 1
    assert "expected one of vssl" in noted
    assert vssl("train", pictures)[0] == 2  # no --out
    code, _, noted = vssl(*words(pictures, settings, pictures / "run"))
    assert (code, "lies inside" in noted, (pictures / "run").exists()) == (1, True, False)
    (tmp_path / "model.onnx").write_bytes(b"no checkpoint")
    code, _, noted = vssl("probe", tmp_path / "model.onnx", pictures)
    assert (code, "Expected is the folder of a run" in noted, "--overwrite" in noted) == (1, True, False)


def test_broken_files_are_named_and_a_long_list_is_cut(
    vssl: Terminal, pictures: Path, settings: Path, tmp_path: Path
) -> None:
    images = write_pictures(tmp_path / "images", 8)
    for number in range(7):
        (images / f"bad{number}.png").write_bytes(b"nothing")
    code, _, noted = vssl(*words(images, settings, tmp_path / "run"), "--epochs", "0")
    assert code == 0
    assert sum("left out: " in line and "bad" in line for line in noted.splitlines()) == 5
    assert "left out: 2 more, see failures.json" in noted


def test_stopped_by_sigterm_it_saves_and_says_how_to_go_on(
    vssl: Terminal, pictures: Path, settings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    more = [*words(pictures, settings, out), "--epochs", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vssl", *map(str, more)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
    )
    try:
        deadline = time.monotonic() + 120
        while len(read_metrics(out)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        noted = process.communicate(timeout=200)[1]
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert f"vssl train {pictures.resolve()} --out {out} --resume" in noted
    stopped = load_checkpoint(out)
    assert stopped.epoch >= 2
    assert not (out / "student.safetensors").exists()  # of a finished run
    code, _, noted = vssl("train", pictures, "--out", out, "--resume", "--epochs", "3")
    assert code == 1
    assert "leave the other options out" in noted
