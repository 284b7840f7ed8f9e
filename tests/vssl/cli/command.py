"""The command `vssl` for tests: in this process, which starts no new process."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.support.tiny_model import picture
from vssl.cli.main import run

ROOT = Path(__file__).resolve().parents[3]


def vssl(*words: object) -> subprocess.CompletedProcess[str]:
    """Do what `vssl WORDS` does; an exception that is no error of ours ends as it would there."""
    arguments = ["vssl", *map(str, words)]
    out, errors, code = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        patch.setattr(sys, "argv", arguments)
        try:
            run()
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            traceback.print_exc(file=errors)
            code = 1
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), errors.getvalue())


def started(
    *words: object, cwd: Path | None = None, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Start the command in a process of its own."""
    return subprocess.run(
        [*before, sys.executable, "-m", "vssl", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    """Check that a command was refused as a person should be told, and return what was said."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("vssl: ")
    assert len(done.stderr) < 1500
    return lines[-1]


def jpeg(path: Path, seed: int) -> Path:
    """Write picture `seed` as a JPEG file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path, "JPEG", quality=90)
    return path
