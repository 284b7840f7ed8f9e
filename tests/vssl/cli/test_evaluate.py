"""`vssl evaluate` prints a table or JSON, and writes a report that a program can read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from index.evaluation.dataset import read_dataset
from index.evaluation.evaluate import Settings, evaluate
from tests.index.samples import MODEL, card, sample
from vssl.cli.evaluate import HEADLINES, verdict
from vssl.cli.glossary import METRICS
from vssl.cli.main import app, run
from vssl.embeddings.manifest import write_manifest
from vssl.embeddings.store import Rows, part_name, to_table, write_table


def stored(rows: Rows, folder: Path) -> Path:
    folder.mkdir()
    write_table(to_table(rows, card(), MODEL), folder / part_name(0))
    write_manifest(folder, model_id=MODEL, parts=[part_name(0)], rows=len(rows), failures=0)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    gallery = stored(sample(120), tmp_path / "gallery")
    return str(gallery), str(stored(sample(40, seed=1, prefix="q"), tmp_path / "queries"))


def vssl(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["vssl", *arguments])
    try:
        run()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_table_shows_value_and_interval(
    folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    assert vssl(monkeypatch, "evaluate", *folders, "--resamples", "20") == 0
    out = capsys.readouterr().out
    assert "40 queries against 120 images" in out
    assert "verdict: the nearest image has the query's class for" in out
    assert "95 % interval" in out
    assert "better" in out
    rows = [line.split()[0] for line in out.splitlines() if " .. " in line and "verdict" not in line]
    assert rows == ["knn_top1", "recall_at_1", "map_at_r", "r_auroc"]
    assert "more metrics: --verbose" in out
    assert vssl(monkeypatch, "evaluate", *folders, "--resamples", "20", "--verbose") == 0
    full = capsys.readouterr().out
    assert full.count(" .. ") > 15
    assert "--verbose" not in full


def test_each_metric_has_a_meaning_and_a_better_side(folders: tuple[str, str]) -> None:
    gallery, queries = (read_dataset(folder) for folder in folders)
    measured = evaluate(gallery, queries, Settings(resamples=5, max_risk=0.2))["metrics"]
    shown = {name for name in measured if not name.endswith(("_low", "_high"))}
    assert {name for name in HEADLINES if name in shown} <= set(METRICS)
    assert set(METRICS["ece"]) == {"lower", "calibration error of match probability"}


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({}, "unknown how often"),
        ({"recall_at_1": 1.0}, "none is wrong"),
        (
            {"recall_at_1": 0.8, "r_auroc": 0.7, "r_auroc_low": 0.6, "r_auroc_high": 0.8},
            "wrong more often",
        ),
        (
            {"recall_at_1": 0.8, "r_auroc": 0.3, "r_auroc_low": 0.2, "r_auroc_high": 0.4},
            "do not go by uncertainty",
        ),
        ({"recall_at_1": 0.8, "r_auroc": 0.5, "r_auroc_low": 0.4, "r_auroc_high": 0.6}, "cannot be told"),
    ],
)
def test_the_verdict_says_what_the_metrics_do(metrics: dict[str, float], said: str) -> None:
    assert said in verdict({"recall_at_1_low": 0.7, "recall_at_1_high": 0.9, **metrics})


def test_names_are_printed_whole_whatever_is_in_them(
    folders: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    odd = stored(sample(40, seed=9, prefix="[/odd]"), tmp_path / "odd")
    assert vssl(monkeypatch, "anomaly", folders[0], str(odd)) == 0
    assert "[/odd]7 " in capsys.readouterr().out
    corrupted = stored(sample(40, seed=9, prefix="q"), tmp_path / "[bold]-1")
    arguments = ["--resamples", "5", "--corrupted", str(corrupted)]
    assert vssl(monkeypatch, "evaluate", *folders, *arguments, "--verbose") == 0
    names = [line.split(" ")[0] for line in capsys.readouterr().out.splitlines()]
    assert {"knn200_top1_inverse_variance", "uncertainty_increase_rate:[bold]-1"} <= set(names)


def test_the_report_is_one_flat_object_of_numbers(
    folders: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "report.json"
    arguments = ["evaluate", *folders, "--resamples", "20", "-k", "10", "--report", str(path), "--json"]
    assert vssl(monkeypatch, *arguments) == 0
    report = json.loads(path.read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert report["command"] == " ".join(["vssl", *arguments])
    assert (report["model_id"], report["k"], report["seed"]) == (MODEL, 10, 0)
    metrics = report["metrics"]
    assert all(isinstance(value, float) for value in metrics.values())
    for name in (
        "knn_top1",
        "knn_top5",
        "recall_at_1",
        "recall_at_10",
        "map_at_r",
        "r_auroc",
        "aurc",
        "ause",
    ):
        assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
    assert vssl(monkeypatch, *arguments) == 1
    assert "exists already" in capsys.readouterr().err
    assert vssl(monkeypatch, *arguments, "--overwrite") == 0
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "wrote" not in line] == [
        "vssl: encoding 120 images of the gallery",
        "vssl: neighbours and votes of 40 labelled queries",
        "vssl: hubs among the neighbours of 40 queries",
        "vssl: intervals from 20 resamples",
    ]


def test_a_folder_that_is_none_is_an_error_without_traceback(
    folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vssl(monkeypatch, "evaluate", folders[0], "nowhere") == 1
    error = capsys.readouterr().err
    assert "vssl extract" in error
    assert "Traceback" not in error
    for wrong in (["--report", "nowhere/report.json"], ["--plot", "page.bmp"]):
        assert vssl(monkeypatch, "evaluate", *folders, *wrong) == 2
        assert capsys.readouterr().out == "", "the work is not begun"


def test_everything_at_once_on_one_page(
    folders: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib")
    elsewhere = stored(sample(30, seed=7, groups=1, prefix="f"), tmp_path / "elsewhere")
    corrupted = stored(sample(40, seed=9, prefix="q"), tmp_path / "blur-1")
    np.save(tmp_path / "votes.npy", np.random.default_rng(0).integers(1, 5, (40, 3)))
    arguments = ["--resamples", "10", "--compare", "--one-class", "--max-risk", "0.2", "--json"]
    arguments += [
        "--ood",
        str(elsewhere),
        "--corrupted",
        str(corrupted),
        "--human",
        str(tmp_path / "votes.npy"),
    ]
    page = tmp_path / "page.png"
    assert vssl(monkeypatch, "evaluate", *folders, *arguments, "--plot", str(page)) == 0
    report = json.loads(capsys.readouterr().out)
    for name in (
        "ood_auroc",
        "uncertainty_increase_rate:blur-1",
        "human_spearman",
        "one_class_knn",
        "coverage_combined",
        "hub:kl_max",
    ):
        assert name in report["metrics"]
    assert page.read_bytes().startswith(b"\x89PNG")


def test_anomaly_ranks_the_most_anomalous_first(
    folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vssl(monkeypatch, "anomaly", *folders, "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == [f"q{i}" for i in range(40)]
    monkeypatch.setenv("COLUMNS", "120")
    assert vssl(monkeypatch, "anomaly", *folders, "--limit", "3") == 0
    shown = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    elsewhere = sorted(rows, key=lambda row: (-row["knn_percentile"], -row["knn"]))
    assert shown == [row["id"] for row in elsewhere[:3]]


def test_the_verbs_are_registered() -> None:
    names = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    assert {"evaluate", "anomaly"} <= names
