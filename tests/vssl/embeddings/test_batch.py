"""Embedded images: columns of one length, parts that join, rows for a gallery."""

from __future__ import annotations

import numpy as np
import pytest

from vssl.embeddings.batch import Embedded, Failed
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import InputError


def part(names: list[str], start: int, failures: list[Failed] | None = None) -> Embedded:
    mean = np.arange(2 * len(names), dtype=np.float32).reshape(-1, 2) + start
    gaussians = GaussianEmbedding(mean, np.ones_like(mean))
    return Embedded(names, np.arange(len(names)) + start, gaussians, failures or [], "id")


def test_parts_join_in_order_with_their_failures() -> None:
    failed = Failed(2, "c", "undecodable", "no picture")
    joined = Embedded.concatenate([part(["a", "b"], 0), part([], 2, [failed]), part(["d"], 3)])
    assert (joined.names, joined.positions.tolist(), joined.failures) == (
        ["a", "b", "d"],
        [0, 1, 3],
        [failed],
    )
    np.testing.assert_array_equal(joined.mean, [[0, 1], [2, 3], [3, 4]])
    assert len(Embedded.concatenate([part([], 0, [failed])])) == 0


def test_columns_of_another_length_are_refused() -> None:
    good = part(["a", "b"], 0)
    with pytest.raises(InputError, match="differ in length"):
        Embedded(["a"], good.positions, good.gaussians, [], "id")


def test_rows_have_names_as_ids_and_no_label_where_none_is_known() -> None:
    rows = part(["a", "b"], 0).rows()
    assert (rows.ids, rows.paths, rows.labels) == (["a", "b"], ["a", "b"], [None, None])
