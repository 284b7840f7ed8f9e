"""What was saved answers the same when it is loaded, or is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.distances import NAMES
from index.search.exact import ExactIndex
from tests.index.regimes import gaussians
from tests.index.search.test_exact import assert_same
from vssl.errors import FormatError


@pytest.mark.parametrize("name", NAMES)
def test_what_was_saved_answers_the_same(name: str, tmp_path: Path) -> None:
    items, queries = gaussians(300, 12), gaussians(10, 12, seed=8)
    index = ExactIndex.build(name, items[:200])
    index.add(items[200:])
    index.save(tmp_path)
    loaded = ExactIndex.load(tmp_path, items)
    assert (loaded.name, loaded.parameters.key()) == (name, index.parameters.key())
    for before, after in zip(index.search(queries, 7), loaded.search(queries, 7), strict=True):
        np.testing.assert_array_equal(before, after)
    loaded.add(queries)
    assert_same(loaded, queries, 3)


def test_an_empty_index_is_saved_too(tmp_path: Path) -> None:
    ExactIndex.build("cosine", gaussians(0, 4)).save(tmp_path)
    assert len(ExactIndex.load(tmp_path, gaussians(0, 4))) == 0


def test_a_damaged_or_foreign_snapshot_is_refused(tmp_path: Path) -> None:
    items = gaussians(50, 8)
    ExactIndex.build("cosine", items).save(tmp_path)
    with pytest.raises(FormatError, match="other items"):
        ExactIndex.load(tmp_path, gaussians(50, 8, seed=1))
    with pytest.raises(FormatError, match="other items"):
        ExactIndex.load(tmp_path, items[:49])
    path = tmp_path / "exact.faiss"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FormatError, match="damaged"):
        ExactIndex.load(tmp_path, items)
    (tmp_path / "exact.json").unlink()
    with pytest.raises(FormatError, match="build the index again"):
        ExactIndex.load(tmp_path, items)


def test_the_largest_features_are_remembered_over_additions(tmp_path: Path) -> None:
    """They bound the rounding of every score; forgetting the first block's would break the proof."""
    items = gaussians(200, 8)
    index = ExactIndex.build("cosine", items[:150])
    index.add(items[150:])
    index.save(tmp_path)
    loaded = ExactIndex.load(tmp_path, items)
    unit = items.mean.astype(np.float64) / np.linalg.norm(items.mean, axis=1, keepdims=True)
    for one in (index, loaded):
        np.testing.assert_allclose(one._widest[:8], np.abs(unit).max(axis=0), rtol=1e-6)
