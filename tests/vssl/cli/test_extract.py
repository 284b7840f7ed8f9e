"""`vssl extract` as a person and as a program meets it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serve.photo_folder import assert_same, photo_folder
from tests.serve.running import until
from tests.support.tiny_model import tiny_model
from tests.vssl.cli.command import vssl
from vssl.cli.extract import stoppable
from vssl.embeddings.store import read_embeddings

HELD = """
import os
from vssl.__main__ import main
from vssl.images.readers.folders import FileSource

real = FileSource.read

def read(source, row):
    if row >= 100:
        os.read(0, 1)
    return real(source, row)

FileSource.read = read
main()
"""
"""`vssl` that reads no further than a source's hundredth picture until its input is closed."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photo_folder(tmp_path_factory.mktemp("photos"))


def test_it_prints_a_summary_and_exits_0(photos: Path, model: Path, tmp_path: Path) -> None:
    found = vssl("extract", photos, tmp_path / "out", "--model", model)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(f"30 of 33 images embedded into {tmp_path / 'out'}\n")
    assert "1  undecodable" in found.stdout
    assert len(read_embeddings(tmp_path / "out").rows) == 30


def test_json_is_one_line_for_programs(photos: Path, model: Path, tmp_path: Path) -> None:
    found = vssl("extract", photos, tmp_path / "out", "--model", model, "--json", "--features")
    values = json.loads(found.stdout)
    assert (values["images"], values["rows"], values["failures"]) == (33, 30, 3)
    assert read_embeddings(tmp_path / "out").rows.features is not None


def test_refusals_exit_1_without_a_traceback(photos: Path, model: Path, tmp_path: Path) -> None:
    found = vssl("extract", photos, tmp_path / "out", "--model", model, "--max-failures", 1)
    assert found.returncode == 1
    assert found.stderr.startswith("vssl: stopped: 3 of 32 images failed, expected at most 1")
    assert "Traceback" not in found.stderr
    found = vssl("extract", photos, tmp_path / "out", "--model", model)
    assert found.returncode == 1
    assert "--resume" in found.stderr
    assert vssl("extract", photos, tmp_path / "out", "--model", model, "--resume").returncode == 0


def test_wrong_usage_exits_2(photos: Path, model: Path, tmp_path: Path) -> None:
    assert vssl("extract", photos).returncode == 2
    both = vssl("extract", photos, tmp_path / "o", "--model", model, "--resume", "--overwrite")
    assert (both.returncode, "give one of" in both.stderr) == (2, True)
    huge = vssl("extract", photos, tmp_path / "o", "--model", model, "--max-pixels", 10**12)
    assert (huge.returncode, "max_pixels" in huge.stderr) == (2, True)
    for flag, value in {
        "--max-failures": -1,
        "--workers": 0,
        "--batch-size": 0,
        "--dtype": "int8",
        "--engine": "x",
    }.items():
        wrong = vssl("extract", photos, tmp_path / "o", "--model", model, flag, value)
        assert (wrong.returncode, flag in wrong.stderr) == (2, True)
    assert not (tmp_path / "o").exists()


def test_the_parts_of_a_job_array_share_a_folder(photos: Path, model: Path, tmp_path: Path) -> None:
    first = vssl("extract", photos, tmp_path / "out", "--model", model, "--shard", "1/2")
    assert (first.returncode, "other shards are not finished" in first.stdout) == (0, True)
    second = vssl("extract", photos, tmp_path / "out", "--model", model, "--shard", "0/2", "--format", "npy")
    assert (second.returncode, second.stdout.startswith("30 of 33 images")) == (0, True)
    assert (tmp_path / "out" / "img_emb" / "img_emb_00000.npy").exists()
    for wrong in (["--shard", "2"], ["--shard", "a/b"], ["--format", "csv"]):
        assert vssl("extract", photos, tmp_path / "out", "--model", model, *wrong).returncode == 2


def test_certainty_on_request(photos: Path, model: Path, tmp_path: Path) -> None:
    sheet, photo = tmp_path / "sheet.png", next(path for path in photos.rglob("*") if path.is_file())
    before = photo.read_bytes()
    wrong = vssl("extract", photos, tmp_path / "out", "--model", model, "--contact-sheet", photo)
    assert (wrong.returncode, "expected a name that ends in .png" in wrong.stderr) == (2, True)
    assert photo.read_bytes() == before
    found = vssl(
        "extract", photos, tmp_path / "out", "--model", model, "--histogram", "--contact-sheet", sheet
    )
    assert "uncertainty            images" in found.stdout
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert vssl("extract", photos, tmp_path / "out", "--model", model, "--update").returncode == 0


def test_decoders_do_not_print_on_the_screen(model: Path, tmp_path: Path) -> None:
    """A TIFF whose strip is missing: libtiff would complain on stderr."""
    folder = photo_folder(tmp_path / "in", 2, bad=False)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / "x.tif", compression="tiff_deflate")
    whole = (folder / "x.tif").read_bytes()
    (folder / "x.tif").write_bytes(whole[:8] + b"\xff" * 40 + whole[48:])
    command = [sys.executable, "-m", "vssl", "extract", folder, tmp_path / "out", "--model", model]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")
    assert "1  undecodable" in found.stdout


def test_a_terminal_gets_a_bar(photos: Path, model: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "vssl", "extract", photos, tmp_path / "out", "--model", model]
    environment = os.environ | {"COLUMNS": "140"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # how Linux says that the other end of a terminal is closed
        while data := os.read(ours, 4096):
            shown += data
    os.close(ours)
    assert process.wait() == 0
    assert b"33/33" in shown
    assert b"3 failed" in shown


def interrupted(number: signal.Signals) -> None:
    """Do what a condition does that a signal interrupts while it takes its lock."""
    try:
        signal.raise_signal(number)
    finally:
        threading.Lock().release()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_midst_of_a_lock_is_a_stop_too(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), stoppable():
            interrupted(number)
    finally:
        signal.signal(signal.SIGINT, usual)
    assert capsys.readouterr().err == "vssl: stopped; the finished parts stay, go on with --resume\n"


def test_an_error_without_a_signal_stays_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="unlocked"), stoppable():
        threading.Lock().release()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_it_can_go_on(
    photos: Path, model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    folder = photo_folder(tmp_path / "in", 4)
    for link in range(200):
        os.link(folder / "cats" / "img_0.png", folder / f"{link}.png")
    words = ["extract", str(folder), str(tmp_path / "out"), "--model", str(model)]
    # A shell that starts the tests in the background has them ignore SIGINT, and children inherit that.
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, *words],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    plan = tmp_path / "out" / ".progress" / "plan.json"
    until(lambda: process.poll() is not None or plan.exists())
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors.strip()) == (
        130,
        "vssl: stopped; the finished parts stay, go on with --resume",
    )
    assert vssl(*words, "--resume").returncode == 0
    assert vssl("extract", folder, tmp_path / "whole", "--model", model).returncode == 0
    assert_same(read_embeddings(tmp_path / "out"), read_embeddings(tmp_path / "whole"))
