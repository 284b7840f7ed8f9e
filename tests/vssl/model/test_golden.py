"""The golden pair notices what changed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from vssl.errors import FormatError
from vssl.model.golden import TOLERANCE, Golden, golden_images


def golden() -> Golden:
    random = np.random.default_rng(0)
    mean = random.normal(size=(3, 4)).astype(np.float32)
    variance = np.exp(random.normal(-3, 1, (3, 4))).astype(np.float32)
    return Golden(golden_images(8), mean, variance, random.normal(size=(3, 6)).astype(np.float32))


def test_it_survives_its_json_bit_for_bit() -> None:
    found, expected = Golden.from_json(golden().to_json()), golden()
    for name in ("images", "mean", "variance", "features"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype
        assert getattr(found, name).flags.writeable


def test_its_own_outputs_differ_by_nothing() -> None:
    g = golden()
    assert g.check(g.mean, g.variance, g.features, "fp32") == 0.0


@pytest.mark.parametrize("precision", sorted(TOLERANCE))
def test_a_difference_is_reported_up_to_the_tolerance_and_refused_beyond(precision: str) -> None:
    g, tolerance = golden(), TOLERANCE[precision]
    scale = np.abs(g.mean).max()
    for factor in (0.5, 2.0):
        mean = g.mean.copy()
        mean[1, 2] += factor * tolerance * scale
        if factor < 1:
            assert g.check(mean, g.variance, g.features, precision) == pytest.approx(
                0.5 * tolerance, rel=0.05
            )
        else:
            with pytest.raises(FormatError, match="golden pair: mean differs by"):
                g.check(mean, g.variance, g.features, precision)


def test_small_variances_count_as_much_as_large_ones() -> None:
    g = golden()
    variance = g.variance.copy()
    variance[np.unravel_index(variance.argmin(), variance.shape)] *= 1.5
    with pytest.raises(FormatError, match="log variance differs"):
        g.check(g.mean, variance, g.features, "fp32")


@pytest.mark.parametrize("name", ["mean", "variance", "features"])
def test_numbers_that_are_none_are_refused(name: str) -> None:
    g = golden()
    outputs = {n: getattr(g, n).copy() for n in ("mean", "variance", "features")}
    outputs[name][0, 0] = np.nan
    with pytest.raises(FormatError, match="differs by nan"):
        g.check(*outputs.values(), "fp32")


def test_another_shape_is_refused() -> None:
    g = golden()
    with pytest.raises(FormatError, match=r"mean has shape \(3, 3\), expected \(3, 4\)"):
        g.check(g.mean[:, :3], g.variance, g.features, "fp32")


def test_the_images_are_the_same_every_time_and_not_flat() -> None:
    assert np.array_equal(golden_images(16), golden_images(16))
    images = golden_images(16, 5)
    assert (images.shape, images.dtype) == ((5, 16, 16, 3), np.uint8)
    assert all(image.std() > 20 for image in images)


def test_what_is_no_pair_is_refused() -> None:
    values = json.loads(golden().to_json())
    broken = [
        "",
        "[]",
        json.dumps({k: v for k, v in values.items() if k != "mean"}),
        json.dumps(values | {"mean": values["mean"] | {"data": "!"}}),
        json.dumps(values | {"mean": values["mean"] | {"dtype": "object"}}),
        json.dumps(values | {"mean": values["mean"] | {"shape": [7, 7]}}),
    ]
    for text in broken:
        with pytest.raises(FormatError, match="golden pair is not readable"):
            Golden.from_json(text)


def test_a_predicted_uncertainty_is_compared_too() -> None:
    random = np.random.default_rng(1)
    g = Golden.from_json(replace(golden(), uncertainty=random.random(3, np.float32)).to_json())
    assert g.uncertainty is not None
    assert g.check(g.mean, g.variance, g.features, "fp32", g.uncertainty) == 0.0
    with pytest.raises(FormatError, match="uncertainty differs by"):
        g.check(g.mean, g.variance, g.features, "fp32", g.uncertainty + np.float32(0.01))
    assert Golden.from_json(golden().to_json()).uncertainty is None
