"""A set of constants is read back as it was written, is told from another, and is refused where it makes no sense."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from benchmarks.regimes import gaussians
from index.distances import DistanceParameters, fit_prior
from index.distances.table import DISTANCES
from vssl.errors import FormatError, InputError

PLAIN = DistanceParameters()


def test_parameters_survive_json() -> None:
    parameters = fit_prior(gaussians(6, 5), parameters=DistanceParameters(alpha=1 / 3))
    back = DistanceParameters.from_dict(json.loads(json.dumps(parameters.to_dict())))
    assert back == parameters
    assert (back.key(), back.digest) == (parameters.key(), parameters.digest)
    assert DistanceParameters.from_dict({}) == PLAIN


def test_a_key_names_every_constant_in_the_order_of_the_alphabet() -> None:
    """Galleries keep its digest: the same constants must have the same one in every version."""
    expected = '{"alpha": 1.0, "between": [], "centre": [], "dof": 4.0, "floor": 1e-06, "within": []}'
    assert PLAIN.key() == expected
    assert DistanceParameters(dof=5.0).digest != PLAIN.digest


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beta": 1}, r"^distance parameters: unknown entries \['beta'\]$"),
        ({"alpha": "much"}, r"^distance parameters: not readable \(.+\); build the index again$"),
        (None, r"^distance parameters: not readable \(.+\); build the index again$"),
    ],
)
def test_what_is_no_set_of_constants_is_not_read(values: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        DistanceParameters.from_dict(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha": 0}, "found alpha 0, expected a positive number"),
        ({"floor": -1.0}, "found floor -1.0, expected a positive number"),
        ({"dof": np.inf}, "found dof inf, expected a positive number"),
        ({"between": (1.0,)}, "between, within and centre must be of one length"),
        (
            {"between": (1.0,), "within": (0.0,), "centre": (0.0,)},
            "between and within must be positive numbers",
        ),
        (
            {"between": (np.inf,), "within": (1.0,), "centre": (0.0,)},
            "between and within must be positive numbers",
        ),
    ],
)
def test_nonsense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^distance parameters: {message}$"):
        DistanceParameters(**values)


def test_posterior_needs_a_prior_of_the_same_dimension() -> None:
    items = PLAIN.scaled(gaussians(6, 5))
    message = (
        r"^the distance posterior needs a prior of 5 dimensions, found 0; "
        r"fit one with index\.distances\.prior\.fit_prior\(items, labels\)$"
    )
    with pytest.raises(InputError, match=message):
        DISTANCES["posterior"].exact(items, items, PLAIN)
