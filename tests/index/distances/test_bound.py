"""The lines under 1/(s + v) and ln((s + v) w) lie below them wherever an item may be, and touch them.

Five queries' variances s, two below the typical variance t, one equal to it, two above; each meets items whose
variances v lie in [low, high] and enter by w = 1/(v + t).
"""

from __future__ import annotations

import numpy as np
import pytest

from index.arrays import Float64s
from index.distances.bound import inverse_line, log_line

S, LOW = np.array([0.01, 0.3, 1.0, 4.0, 200.0]), np.array([0.05, 0.1, 0.5, 1.0, 2.0])
NAMES = ("inverse", "log")


def line(name: str, scale: float, width: float) -> tuple[Float64s, Float64s, Float64s, Float64s]:
    """Return a and b (5,) for high = (1 + width) low, and w and the truth at 101 of them (101, 5), least w first."""
    s, low, typical = scale * S, scale * LOW, np.full(5, scale)
    high = low * (1 + width)
    near, far = 1 / (high + typical), 1 / (low + typical)
    w = np.geomspace(near, far, 101)
    v = 1 / w - typical
    v[0], v[-1] = high, low
    if name == "inverse":
        return *inverse_line(s, typical, low, high, near, far), w, 1 / (s + v)
    return *log_line(s, low, high, near, far), w, np.log((s + v) * w)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("width", [0.001, 1.0, 100.0])
@pytest.mark.parametrize("name", NAMES)
def test_it_lies_below_and_touches(name: str, width: float, scale: float) -> None:
    """A chord touches at both ends, a tangent at the geometric middle."""
    a, b, w, truth = line(name, scale, width)
    size = np.abs(truth).max(axis=0) + 1e-3
    above = (truth - a - b * w) / size
    assert above.min() > -1e-12
    convex = (name == "inverse") & (S < 1)
    assert above[[0, -1]][:, ~convex].max() < 1e-12
    assert above[50][convex].max(initial=0) < 1e-12


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("width", [0.0, 4e-13])
def test_over_a_range_too_narrow_to_divide_by_a_chord_is_level_at_the_lower_end(
    width: float, scale: float
) -> None:
    for name in NAMES:
        a, b, _, truth = line(name, scale, width)
        chord = (name == "log") | (S >= 1)
        assert not b[chord].any()
        lower = np.minimum(truth[0], truth[-1])
        np.testing.assert_allclose(
            a[chord], lower[chord], rtol=0, atol=2e-15 * np.abs(truth).max(axis=0)[chord].max()
        )
