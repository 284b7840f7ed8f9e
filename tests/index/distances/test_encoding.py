"""What an encoding is built about is what the items are, however they come in."""

import numpy as np
import pytest

from benchmarks.regimes import gaussians
from index.distances.encoding import Anchor, columns, linear, square_root
from index.distances.parameters import Densities, DistanceParameters

ITEMS = DistanceParameters().scaled(gaussians(90, 5, regime="wide"))


def same(one: Anchor, other: Anchor) -> None:
    for name in ("centre", "typical", "low", "high"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12, atol=1e-14)


def test_an_anchor_measures_centre_typical_variance_and_range() -> None:
    anchor = Anchor.of(ITEMS)
    np.testing.assert_allclose(anchor.centre, ITEMS.mean.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(anchor.typical, np.exp(np.log(ITEMS.variance).mean(axis=0)))
    np.testing.assert_array_equal(anchor.low, ITEMS.variance.min(axis=0))
    np.testing.assert_array_equal(anchor.high, ITEMS.variance.max(axis=0))


@pytest.mark.parametrize("size", [1, 7, 89, 90, 200])
def test_blocks_give_what_the_whole_gives(size: int) -> None:
    parts = [Densities(ITEMS.mean[i : i + size], ITEMS.variance[i : i + size]) for i in range(0, 90, size)]
    blocks = Anchor.of_blocks(parts)
    assert blocks is not None
    same(blocks, Anchor.of(ITEMS))


def test_later_items_widen_the_range_and_nothing_else() -> None:
    first, rest = ITEMS.at(np.arange(10)), ITEMS.at(np.arange(10, 90))
    before = Anchor.of(first)
    wide = before.widened(rest)
    np.testing.assert_array_equal(wide.low, Anchor.of(ITEMS).low)
    np.testing.assert_array_equal(wide.high, Anchor.of(ITEMS).high)
    np.testing.assert_array_equal(wide.centre, before.centre)
    np.testing.assert_array_equal(wide.typical, before.typical)
    assert before.widened(ITEMS.at(np.arange(0))) is before


def test_no_items_have_the_unit_gaussian_and_any_item_widens_it() -> None:
    assert Anchor.of_blocks([]) is None
    nothing = Anchor.of(ITEMS.at(np.arange(0)))
    same(nothing, Anchor.standard(5))
    np.testing.assert_array_equal(nothing.widened(ITEMS).low, ITEMS.variance.min(axis=0))


def test_columns_and_decoders() -> None:
    joined = columns(np.ones((2, 3)), np.array([5.0, 6.0]))
    np.testing.assert_array_equal(joined, [[1, 1, 1, 5], [1, 1, 1, 6]])
    anchor, values = Anchor.standard(1), np.array([-1e-9, 0.0, 4.0])
    assert square_root(values, anchor, DistanceParameters()).tolist() == [0.0, 0.0, 2.0]
    assert linear(values, anchor, DistanceParameters()) is values
