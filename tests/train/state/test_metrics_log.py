"""The metrics log survives kills, and a resumed run writes each epoch once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train.state.metrics_log import METRICS_NAME, MetricsLog, read_metrics


def write(folder: Path, epochs: range, resume_epoch: int = -1, loss: float = 1.0) -> None:
    with MetricsLog(folder, resume_epoch) as log:
        for epoch in epochs:
            log.write({"epoch": epoch, "step": 10 * epoch, "loss": loss / (epoch + 1)})


def test_a_row_is_on_the_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, -1) as log:
        log.write({"epoch": 0, "step": 0, "loss": 2.5})
        assert read_metrics(tmp_path) == [{"epoch": 0, "step": 0, "loss": 2.5}]


def test_a_run_started_over_forgets_the_old_rows(tmp_path: Path) -> None:
    write(tmp_path, range(4))
    write(tmp_path, range(2), loss=9.0)
    assert [row["loss"] for row in read_metrics(tmp_path)] == [9.0, 4.5]


def test_a_resume_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, range(5))
    write(tmp_path, range(3, 6), resume_epoch=2, loss=7.0)
    rows = read_metrics(tmp_path)
    assert [row["epoch"] for row in rows] == list(range(6))
    assert rows[2]["loss"] == pytest.approx(1 / 3)
    assert rows[3]["loss"] == pytest.approx(7 / 4)


@pytest.mark.parametrize("cut", [2, 8, 25])
def test_a_line_cut_off_by_a_kill_is_left_out_and_written_again(tmp_path: Path, cut: int) -> None:
    write(tmp_path, range(3))
    path = tmp_path / METRICS_NAME
    text = path.read_bytes()
    path.write_bytes(text[:-cut])
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [0, 1]
    write(tmp_path, range(2, 4), resume_epoch=1)
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [0, 1, 2, 3]
    for line in path.read_text().splitlines():
        json.loads(line)


def test_no_run_has_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


def test_tensorboard_shows_the_same_numbers(tmp_path: Path) -> None:
    write(tmp_path, range(5))
    write(tmp_path, range(3, 6), resume_epoch=2, loss=7.0)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    shown = {event.step: event.value for event in board.Scalars("loss")}
    expected = {row["step"]: row["loss"] for row in read_metrics(tmp_path)}
    assert shown == pytest.approx(expected)
