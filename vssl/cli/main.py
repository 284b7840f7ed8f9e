"""`vssl VERB ...`: assembles the verbs; `vssl --help` imports nothing heavy."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from vssl.cli import (
    anomaly,
    bench,
    calibrate,
    demo,
    doctor,
    evaluate,
    export,
    extract,
    gallery,
    index,
    inspect,
    probe,
    search,
    serve,
    train,
    verify,
)
from vssl.cli.output import extras, note
from vssl.errors import VsslError, is_lack, shown_path
from vssl.model.identity import VERSION

ADVICE = {
    errno.EACCES: "give this user the right to it, or choose another place",
    errno.EPERM: "give this user the right to it, or choose another place",
    errno.EROFS: "choose a place that can be written to",
    errno.ENOSPC: "free some space on that disk and repeat the command",
    errno.EDQUOT: "free some space within this user's quota and repeat the command",
    errno.ENOENT: "expected a file or folder there",
    errno.EISDIR: "expected a file, found a folder",
    errno.ENOTDIR: "expected a folder, found a file",
    errno.ENAMETOOLONG: "expected a shorter path",
    errno.EMFILE: "raise the number of open files with: ulimit -n 65536",
}
"""What helps against what a system refuses, by its number."""

app = typer.Typer(
    name="vssl",
    help="From a folder of unlabelled images to a search service that knows how sure it is.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"vssl {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


VERBS = (
    (train.train, probe.probe, export.export, calibrate.calibrate, inspect.inspect, verify.verify),
    (extract.extract, index.index, search.search, evaluate.evaluate, anomaly.anomaly),
    (serve.serve, bench.bench, demo.demo, doctor.doctor),
)
for line in VERBS:
    for verb in line:
        app.command()(verb)
app.add_typer(gallery.app, name="gallery")


def run() -> None:
    """Entry point: exit 0 done, 1 an error of ours with its message, 2 wrong usage."""
    # Threads that spin while they wait slow everything down by an order of magnitude on cores
    # that are shared; read by OpenMP when torch or faiss is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A short spin first: small batches meet at barriers too often to sleep at each (1,760 images/s
    # of the digits' recipe on two idle cores, 762 without it).
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    # What is wrong with a picture is said once, by our own error; Pillow says it as well.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    _speak_utf8()
    _refuse_empty(sys.argv[1:])
    try:
        with extras():
            app()
    except VsslError as error:
        note(f"vssl: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        note("vssl: interrupted")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        if error.filename is None and error.errno not in ADVICE:
            raise  # no file of this person's: a fault of ours
        note(f"vssl: {_reason(error)}")
        sys.exit(1)
    except RecursionError:
        note("vssl: a file or an argument nests its values too deeply; write it flatter")
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not is_lack(error):
            raise
        note("vssl: not enough memory; use smaller batches or fewer workers, or give this command more")
        sys.exit(1)


def _speak_utf8() -> None:
    """Start again where a locale is another encoding: ids would be other texts there than elsewhere.

    What a stream cannot write is escaped, and a closed stream swallows what is written.
    """
    if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8"):
        environment = {**os.environ, "PYTHONUTF8": "1"}
        os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started us
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _refuse_empty(words: list[str]) -> None:
    """End with exit 2 where a value is empty: an unset variable would name this folder, or a default."""
    for place, word in enumerate(words, 1):
        if not word or (word.startswith("--") and word.find("=") == len(word) - 1):
            note(f"vssl: argument {place} ({word!r}) is empty, maybe an unset variable; expected a value")
            sys.exit(2)


def _reason(error: OSError) -> str:
    """Say what the system refused, and what helps."""
    where = "" if error.filename is None else f"{shown_path(error.filename)}: "
    advice = ADVICE.get(error.errno or 0)
    return f"{where}{error.strerror}" + (f"; {advice}" if advice else "")
