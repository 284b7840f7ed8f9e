"""Vectors grow in place, in memory or after a mapped file, and what was handed out does not move."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.search.vectors import MEAN, VARIANCE, Vectors
from tests.index.samples import gaussians, mapped_files
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import FormatError

PARTS = [gaussians(n, seed=n) for n in (3, 1, 7, 40)]
WHOLE = GaussianEmbedding.concatenate(PARTS)


def held(tmp_path: Path, mapped: bool) -> Vectors:
    """The first part in memory, or mapped from files; the others added."""
    vectors = Vectors(PARTS[0])
    if mapped:
        vectors.save(tmp_path)
        vectors = Vectors.mapped(tmp_path)
        assert mapped_files(tmp_path) == {MEAN, VARIANCE}
    return vectors


@pytest.mark.parametrize("mapped", [False, True])
def test_they_grow_without_moving_what_was_handed_out(tmp_path: Path, mapped: bool) -> None:
    vectors = held(tmp_path, mapped)
    first = vectors.mean
    for more in PARTS[1:]:
        vectors.add(more)
    np.testing.assert_array_equal(vectors.mean, WHOLE.mean)
    np.testing.assert_array_equal(vectors.variance, WHOLE.variance)
    np.testing.assert_array_equal(first, PARTS[0].mean)
    assert len(vectors) == 51
    assert vectors.nbytes == 51 * 2 * 4 * vectors.dim


@pytest.mark.parametrize("mapped", [False, True])
def test_any_rows_are_handed_out(tmp_path: Path, mapped: bool) -> None:
    vectors = held(tmp_path, mapped)
    for more in PARTS[1:]:
        vectors.add(more)
    table = np.array([[50, 0, 2], [3, 3, 1]])
    np.testing.assert_array_equal(vectors.means(table), WHOLE.mean[table])
    np.testing.assert_array_equal(vectors.variances(table), WHOLE.variance[table])
    even = np.arange(51) % 2 == 0
    for which in (
        slice(0, 3),
        slice(1, 3),
        slice(3, 51),
        slice(2, 9),
        slice(None),
        slice(0, 51, 5),
        even,
        table[0],
    ):
        np.testing.assert_array_equal(vectors[which].mean, WHOLE.mean[which])
        np.testing.assert_array_equal(vectors[which].variance, WHOLE.variance[which])


def test_what_was_saved_is_mapped_whatever_it_was(tmp_path: Path) -> None:
    vectors = Vectors.empty(10, 8)
    for more in PARTS:
        vectors.add(more)
    vectors.save(tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / MEAN), WHOLE.mean)  # plain NumPy files
    again = Vectors.mapped(tmp_path)
    again.add(PARTS[1])
    (tmp_path / "more").mkdir()
    again.save(tmp_path / "more")
    np.testing.assert_array_equal(Vectors.mapped(tmp_path / "more").variance[51:], PARTS[1].variance)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    Vectors(PARTS[0]).save(tmp_path)
    np.save(tmp_path / VARIANCE, np.ones((2, 8), np.float32))
    with pytest.raises(FormatError, match="found"):
        Vectors.mapped(tmp_path)
    (tmp_path / MEAN).write_bytes(b"NUMPY")
    with pytest.raises(FormatError, match="not readable"):
        Vectors.mapped(tmp_path)
