"""What verbs say: a missing extra names its install, an existing output is refused, tables cut nothing."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import typer

from vssl.cli.output import (
    check_choice,
    extras,
    progress,
    refuse_existing,
    say_json,
    show_fitting,
    show_table,
)
from vssl.errors import ExistsError, MissingExtraError


def test_a_missing_package_of_an_extra_says_what_to_install() -> None:
    def fail(package: str) -> None:
        with extras():
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    with pytest.raises(MissingExtraError, match=r"needs faiss.*pip install 'vssl\[cpu\]'"):
        fail("faiss.swigfaiss")
    with pytest.raises(ModuleNotFoundError, match="nobody"):
        fail("nobody")


def test_an_output_that_exists_is_refused_unless_overwriting(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "new", overwrite=False)
    refuse_existing(tmp_path, overwrite=True)
    with pytest.raises(ExistsError, match="add --overwrite"):
        refuse_existing(tmp_path, overwrite=False)


def test_a_value_that_is_no_choice_is_wrong_usage() -> None:
    check_choice("--space", "features", ("features", "projector"))
    with pytest.raises(typer.BadParameter, match="found 'x', expected features or projector"):
        check_choice("--space", "x", ("features", "projector"))


def test_json_is_one_line_in_the_order_given(capsys: pytest.CaptureFixture[str]) -> None:
    say_json({"b": 1, "a": "é\n"})
    (line,) = capsys.readouterr().out.splitlines()
    assert list(json.loads(line).items()) == [("b", 1), ("a", "é\n")]


def test_a_table_folds_long_cells_and_takes_markup_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    name = "folder/" * 60 + "end"
    show_table("[title]", [("id", "left"), ("n", "right")], [[name, "1"], ["[red]plain[/red]", "2"]])
    shown = capsys.readouterr().out
    assert "[title]" in shown
    assert "[red]plain[/red]" in shown
    cells = [line.split("│")[1].strip() for line in shown.splitlines() if line.startswith("│")]
    assert name in "".join(cells)


def test_names_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(
        "names", [("id", "left")], [["a\x1b[2Jb"], ["two\nlines"], ["\u202egpj.exe"], ["👩\u200d🚀 é"]]
    )
    shown = capsys.readouterr().out
    assert r"a\x1b[2Jb" in shown
    assert r"two\x0alines" in shown
    assert r"\u202egpj.exe" in shown
    assert "👩\u200d🚀 é" in shown


def test_a_fitting_marks_the_galleries_own_distance(capsys: pytest.CaptureFixture[str]) -> None:
    quality = {"map_at_r": 0.5, "low": 0.4, "high": 0.6, "gain": 0.1, "gain_error": 0.01, "recall_at_1": 0.7}
    figures = {"alpha": 1.0, "hub_max": 3, "hub_skew": 0.5}
    trials = {"cosine": figures | quality, "posterior": figures | quality, "kl": figures}
    facts = {"trials": trials, "chosen": "given", "basis": "the basis", "stale": "12 new"}
    show_fitting("gallery", "posterior", facts, verbose=True)
    shown = capsys.readouterr().out
    assert "posterior *" in shown
    assert (
        shown.count("+0.100 (se 0.010)") == 1
    )  # of the control, and of what was not judged, there is no gain
    assert shown.splitlines()[-2:] == ["the basis", "stale: 12 new"]


def test_there_is_no_progress_bar_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress() as bar:
        bar.update(bar.add_task("work", total=2, status=""), advance=1)
    assert screen.getvalue().strip() == ""
