"""The command `vssl` for tests: in this process, which starts no new process."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import traceback

import pytest

from vssl.cli.main import run


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
