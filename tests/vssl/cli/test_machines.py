"""Machines as they are: their locale, streams, rights and disks, and what lies in a person's folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.serve.running import VSSL
from tests.support.plain_user import as_a_plain_user
from tests.vssl.cli.command import jpeg, one_sentence, started, vssl
from vssl.embeddings.store import read_embeddings

HELD = """
import sys
from index.gallery.folder.gallery import FolderGallery
from vssl.__main__ import main

def fit(gallery, distance):
    print("half built", flush=True)
    sys.stdin.read()

FolderGallery.fit = fit
main()
"""
"""`vssl` that builds half a gallery, says so and goes no further."""

OURS = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
NO_UTF8 = ("env", "LC_ALL=C", "PYTHONUTF8=0", "PYTHONCOERCECLOCALE=0")


@pytest.fixture(scope="module")
def named(good: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with names of many scripts, and a gallery of them made under another encoding."""
    folder = tmp_path_factory.mktemp("named")
    jpeg(folder / "in" / "café.jpg", 1)
    jpeg(folder / "in" / "猫.jpg", 2)
    for words in (("extract", "in", "e", "--model", model), ("index", "e", "g")):
        done = started(*words, cwd=folder, before=NO_UTF8)
        assert done.returncode == 0, done.stderr
    return folder


def half_built(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start `vssl index WORDS`; return once it has built half of it."""
    pipe = subprocess.PIPE
    building = subprocess.Popen(
        [VSSL[0], "-c", HELD, "index", *words],
        cwd=folder, env=OURS, stdin=pipe, stdout=pipe, stderr=pipe, text=True,
    )  # fmt: skip
    assert building.stdout is not None
    assert building.stdout.readline() == "half built\n"
    return building


class TestEnds:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_build_that_is_ended_leaves_what_was_there(
        self, named: Path, tmp_path: Path, number: signal.Signals
    ) -> None:
        shutil.copytree(named / "g", tmp_path / "g")
        before = (tmp_path / "g" / "store.db").read_bytes()
        with half_built(tmp_path, str(named / "e"), "g", "--overwrite") as building:
            assert list(tmp_path.glob(".g.*.tmp"))
            building.send_signal(number)
            errors = building.communicate()[1]
        assert (building.returncode, "Traceback" in errors) == (130, False), errors
        assert [path.name for path in tmp_path.iterdir()] == ["g"]
        assert (tmp_path / "g" / "store.db").read_bytes() == before

    @pytest.mark.parametrize("command", [VSSL, [VSSL[0], "-c", "from vssl.__main__ import main; main()"]])
    def test_ctrl_c_while_the_command_line_is_loaded_is_one_line(
        self, tmp_path: Path, command: list[str]
    ) -> None:
        (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
        done = subprocess.run(
            [*command, "doctor"], cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**OURS, "PYTHONPATH": f"{tmp_path}:{OURS['PYTHONPATH']}"},
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "vssl: interrupted\n")

    def test_what_a_killed_build_left_is_removed_by_the_next(self, named: Path, tmp_path: Path) -> None:
        with half_built(tmp_path, str(named / "e"), "g") as building:
            building.kill()
        assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
        done = vssl("index", named / "e", tmp_path / "g")
        assert done.returncode == 0, done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["g"]


class TestMachines:
    def test_ids_are_the_same_under_every_locale(self, named: Path) -> None:
        assert read_embeddings(named / "e").rows.ids == ["café.jpg", "猫.jpg"]
        done = started("search", "g", "--id", "café.jpg", cwd=named, before=NO_UTF8)
        assert done.returncode == 0, done.stderr
        assert "猫.jpg" in done.stdout

    def test_what_a_stream_cannot_write_is_escaped(self, named: Path) -> None:
        done = started("search", "g", "--id", "café.jpg", cwd=named, before=("env", "PYTHONIOENCODING=ascii"))
        assert done.returncode == 0, done.stderr
        assert r"\u732b.jpg" in done.stdout

    def test_a_closed_stream_is_no_fault(self, named: Path) -> None:
        done = started(
            "search", "g", "--id", "café.jpg", cwd=named, before=("sh", "-c", 'exec "$@" >&-', "sh")
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_persons_own_modules_are_never_taken_for_ours(
        self, good: Path, model: Path, tmp_path: Path
    ) -> None:
        for name in ("serve", "train", "index", "export"):
            (tmp_path / f"{name}.py").write_text("raise SystemExit('this is not vssl')\n")
        done = started("extract", good, "out", "--model", model, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert started("index", "out", "gallery", cwd=tmp_path).returncode == 0
        one_sentence(started("export", "nothing", "m.onnx", cwd=tmp_path))

    def test_an_output_that_may_not_be_written_is_one_sentence(
        self, good: Path, model: Path, tmp_path: Path
    ) -> None:
        tmp_path.chmod(0o500)
        done = started("extract", good, tmp_path / "out", "--model", model, before=as_a_plain_user())
        assert "Permission denied" in one_sentence(done)

    @pytest.mark.parametrize("verb", ["extract", "index", "train"])
    def test_an_output_below_a_file_is_one_sentence(
        self, good: Path, model: Path, extracted: Path, tmp_path: Path, verb: str
    ) -> None:
        (tmp_path / "file").write_text("")
        out = tmp_path / "file" / "out"
        words = {
            "extract": ("extract", good, out, "--model", model),
            "index": ("index", extracted, out),
            "train": ("train", good, "--out", out, "--epochs", 0, "--size", 16),
        }[verb]
        assert str(tmp_path / "file") in one_sentence(vssl(*words))
