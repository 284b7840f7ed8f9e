"""A folder of small pictures, some of them damaged, with class folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.tiny_model import picture
from vssl.embeddings.store import Embeddings

BAD = {"cats/broken.jpg": "undecodable", "notes.txt": "unsupported_type", "dogs/empty.png": "empty"}


def photo_folder(folder: Path, count: int = 30, *, bad: bool = True) -> Path:
    """Write `count` good pictures in two class folders and, with `bad`, the three of `BAD`."""
    for number in range(count):
        path = folder / ("cats", "dogs")[number % 2] / f"img_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number, (24, 20))).save(path)
    if bad:
        Image.fromarray(picture(0, (200, 200))).save(folder / "whole.jpg")
        (folder / "cats/broken.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:700])
        (folder / "whole.jpg").unlink()
        (folder / "notes.txt").write_text("no picture")
        (folder / "dogs/empty.png").write_bytes(b"")
    return folder


def assert_same(found: Embeddings, expected: Embeddings) -> None:
    """Row for row: the same ids, labels, numbers and failures, in the same order."""
    assert found.rows.ids == expected.rows.ids
    assert found.rows.paths == expected.rows.paths
    assert found.rows.labels == expected.rows.labels
    assert found.failures == expected.failures
    assert found.model_id == expected.model_id
    assert np.array_equal(found.rows.gaussians.mean, expected.rows.gaussians.mean)
    assert np.array_equal(found.rows.gaussians.variance, expected.rows.gaussians.variance)
