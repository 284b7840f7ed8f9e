"""`vssl demo`: from a person's own folder to a server that answers, by commands that are printed as they run."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.serve.running import free_port, until
from tests.vssl.cli.command import vssl
from vssl.cli.demo import PHOTOS

STARTED_S = 1500
LABELS = ("dress", "hat", "shoes")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen small photos of each of three kinds, and a file that is none."""
    folder = tmp_path_factory.mktemp("demo") / "photos"
    with tarfile.open(PHOTOS) as archive:
        members = [m for m in archive.getmembers() if m.isfile()]
        for label in LABELS:
            (folder / label).mkdir(parents=True)
            for number, member in enumerate([m for m in members if m.name.startswith(f"{label}/")][:16]):
                file = archive.extractfile(member)
                assert file is not None
                with Image.open(io.BytesIO(file.read())) as picture:
                    picture.convert("RGB").resize((64, 64)).save(folder / label / f"{number}.jpg")
    (folder / "hat" / "broken.jpg").write_bytes(b"no picture")
    return folder


def ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.timeout(STARTED_S)
def test_it_ends_in_a_server_over_a_person_s_own_photos(photos: Path, tmp_path: Path) -> None:
    port, out = free_port(), tmp_path / "demo"
    words = ["demo", "--images", photos, "--out", out, "--minutes", "0.05", "--port", port]
    with (tmp_path / "log").open("w") as log:
        demo = subprocess.Popen(
            [sys.executable, "-m", "vssl", *map(str, words)], stdout=log, stderr=log, start_new_session=True
        )
        try:
            until(lambda: demo.poll() is not None or ready(port), STARTED_S)
            assert demo.poll() is None, (tmp_path / "log").read_text()
            picture = (photos / "dress" / "0.jpg").read_bytes()
            (found,) = httpx.post(f"http://127.0.0.1:{port}/search?k=1", content=picture, timeout=60).json()[
                "results"
            ]
            assert found["neighbours"][0]["id"] == "dress/0.jpg"
        finally:
            os.killpg(demo.pid, signal.SIGINT)  # Ctrl-C reaches the command and the server that it runs
            demo.wait(timeout=60)
    said = (tmp_path / "log").read_text()
    commands = [line.split()[2] for line in said.splitlines() if line.startswith("$ vssl ")]
    assert list(dict.fromkeys(commands)) == [
        "train",
        "export",
        "extract",
        "index",
        "evaluate",
        "gallery",
        "serve",
    ]
    assert said.index("Contact sheet:") < said.index("$ vssl gallery map"), "a log keeps its order"
    assert "hat/broken.jpg" in said
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["metrics"]) == ["photo encoder", "vssl from scratch", "raw pixels"]
    assert 0 <= summary["corrupted_above_clean"] <= 1
    assert summary["metrics"]["photo encoder"]["copies"]["instance_recall_at_1"] > 0
    for system in summary["metrics"]:
        each = json.loads((out / "reports" / system / "all.json").read_text())
        assert each["leave_one_out"]
        assert each["counts"]["queries"] == each["counts"]["gallery"] == 48
        assert each["metrics"]["knn_top1"] == summary["metrics"][system]["all"]["knn_top1"]
    (sheet,) = [
        Path(line.rpartition(" ")[2]) for line in said.splitlines() if line.startswith("Contact sheet:")
    ]
    with Image.open(sheet) as picture:
        assert min(picture.size) > 200


def test_what_it_would_overwrite_and_too_few_images_are_refused(photos: Path, tmp_path: Path) -> None:
    refused = vssl("demo", "--images", photos, "--out", tmp_path)
    assert (refused.returncode, "--overwrite" in refused.stderr) == (1, True)
    (tmp_path / "mine").write_text("mine")
    refused = vssl("demo", "--images", photos, "--out", tmp_path, "--overwrite")
    assert (refused.returncode, "not the folder of an earlier demo" in refused.stderr) == (1, True)
    assert (tmp_path / "mine").read_text() == "mine"
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "1.jpg").write_bytes((photos / "hat" / "1.jpg").read_bytes())
    refused = vssl("demo", "--images", tmp_path / "few", "--out", tmp_path / "new")
    assert (refused.returncode, "too few to hold one in five out" in refused.stderr) == (1, True)
