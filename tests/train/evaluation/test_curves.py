"""A picture of any run: labelled or not, finished, untrained, or cut off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from train.evaluation.curves import CURVES_NAME, plot_curves
from train.state.metrics_log import METRICS_NAME
from vssl.errors import InputError

LABELLED = {"knn_top1": 0.4, "linear_top1": 0.3, "r_auroc": 0.5, "r_auroc_views": 0.6}
ALWAYS = {
    "view_recall": 0.2, "spread_features": 0.4, "spread_mean": 0.9, "rank_features": 9.0, "rank_mean": 5.0
}  # fmt: skip


def run(folder: Path, epochs: int, extra: dict[str, float]) -> Path:
    rows: list[dict[str, Any]] = [{"epoch": 0, "step": 0, **ALWAYS, **extra}]
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "step": 3 * epoch, "loss": 1 / epoch, "learning_rate": 0.1, "seconds": epoch}
        rows.append(row | ({**ALWAYS, **extra} if epoch % 2 == 0 else {}))
    folder.mkdir()
    (folder / METRICS_NAME).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize(
    ("epochs", "extra"), [(8, LABELLED), (8, {}), (0, LABELLED), (300, LABELLED)], ids=str
)
def test_every_panel_has_something_to_say(
    tmp_path: Path, epochs: int, extra: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", _kept(Figure.savefig, figures))
    path = plot_curves(run(tmp_path / "run", epochs, extra))
    assert path == tmp_path / "run" / CURVES_NAME
    with Image.open(path) as picture:
        assert picture.width > 1000
        assert np.asarray(picture.convert("L")).std() > 5
    titles = {axis.get_title() for axis in figures[0].axes}
    assert {"loss", "learning rate", "effective rank"} <= titles
    assert ("accuracy on held-out images" in titles) == bool(extra)
    assert ("view recall on held-out images" in titles) == (not extra)
    for axis in figures[0].axes:
        assert axis.lines or axis.texts, axis.get_title()


def _kept(savefig: Any, figures: list[Any]) -> Any:
    def keep(figure: Any, *rest: Any, **named: Any) -> Any:
        figures.append(figure)
        return savefig(figure, *rest, **named)

    return keep


def test_without_metrics_there_is_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no metrics in"):
        plot_curves(tmp_path)
