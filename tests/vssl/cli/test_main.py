"""The command line answers at once, says what is wrong, and exits with the documented codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.tiny_model import tiny_model

VERBS = (
    "train",
    "bench",
    "calibrate",
    "export",
    "inspect",
    "verify",
    "extract",
    "index",
    "gallery",
    "search",
    "evaluate",
    "serve",
    "demo",
    "doctor",
)
HEAVY = ("torch", "onnxruntime", "faiss", "bentoml", "pyarrow", "PIL", "numpy", "sklearn")


def vssl(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vssl", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def test_help_names_every_verb() -> None:
    done = vssl("--help")
    assert done.returncode == 0
    for verb in VERBS:
        assert f"  {verb} " in done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, vssl.cli.main as m\n"
        "try: m.app(['--help'])\n"
        "except SystemExit: pass\n"
        f"print([x for x in {HEAVY!r} if x in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_wrong_usage_exits_2_and_our_own_errors_exit_1_without_a_traceback(tmp_path: Path) -> None:
    assert vssl("search").returncode == 2
    assert vssl("nonsense").returncode == 2
    done = vssl("inspect", tmp_path / "absent")
    assert done.returncode == 1
    assert "nothing to inspect" in done.stderr
    assert "expected a run folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_inspect_prints_the_card_of_a_model(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model.onnx")
    done = vssl("inspect", model, "--json")
    facts = json.loads(done.stdout)
    assert facts["artefact"] == "model"
    assert facts["name"] == "tiny-0"
    assert facts["dim"] == 8
    assert len(facts["model_id"]) == 64
    assert "tiny-0" in vssl("inspect", model).stdout


def test_the_version_is_that_of_the_package() -> None:
    import vssl as package

    done = vssl("--version")
    assert (done.returncode, done.stdout) == (0, f"vssl {package.__version__}\n")


def test_an_existing_output_is_refused_unless_overwriting(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"mine")
    done = vssl("export", tmp_path / "run", model)
    assert done.returncode == 1
    assert "exists already" in done.stderr
    assert "--overwrite" in done.stderr
    assert model.read_bytes() == b"mine"


def test_the_demo_never_deletes_a_folder_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    done = vssl("demo", "--out", tmp_path, "--overwrite", "--no-serve")
    assert done.returncode == 1
    assert (tmp_path / "precious.txt").read_text() == "mine"
