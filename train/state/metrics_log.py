"""A run's numbers -> metrics.jsonl (one object an epoch) and TensorBoard curves.

The JSON lines are the record; TensorBoard's files are written when it is installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from vssl.files import write_bytes

METRICS_NAME = "metrics.jsonl"


class MetricsLog:
    """Appends rows; on a resume the rows after the checkpoint are dropped, to be made again."""

    def __init__(self, folder: Path, resume_epoch: int) -> None:
        self._path = folder / METRICS_NAME
        kept = [row for row in read_metrics(folder) if row["epoch"] <= resume_epoch]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        write_bytes(self._path, text.encode())
        self._file = self._path.open("a", encoding="utf-8")
        self._board: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard.writer import SummaryWriter

            steps = kept[-1]["step"] + 1 if kept else 0
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=steps)

    def write(self, row: dict[str, Any]) -> None:
        """Append one epoch's numbers and hand them to the operating system at once."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._board is not None:
            for name, value in row.items():
                if name not in ("epoch", "step"):
                    self._board.add_scalar(name, value, row["step"])

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's metrics.jsonl; a line cut off by a kill is left out."""
    path = folder / METRICS_NAME
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
