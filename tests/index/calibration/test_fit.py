"""What a gallery was fitted to is chosen honestly, travels whole, and says when it is out of date."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from index.calibration.fit import BEST, Fitting, fit
from index.distances import NAMES, fit_prior
from tests.index.calibration.test_selection import classes
from vssl.errors import FormatError, InputError

ITEMS, LABELS = classes(600)
FITTED = fit(ITEMS, LABELS)


def test_the_best_distance_is_taken_unless_a_person_names_one() -> None:
    assert (FITTED.distance, FITTED.given) == ("posterior", False)
    assert fit(ITEMS, LABELS, distance=BEST) == FITTED
    named = fit(ITEMS, LABELS, distance="kl")
    assert (named.distance, named.given, named.trials) == ("kl", True, FITTED.trials)
    assert FITTED.renamed("kl") == named
    for wrong in (lambda: fit(ITEMS, LABELS, distance="angle"), lambda: FITTED.renamed("angle")):
        with pytest.raises(InputError, match="expected one of"):
            wrong()


def test_every_distance_has_constants_and_figures_and_cosine_is_the_control() -> None:
    assert [trial.name for trial in FITTED.trials] == list(NAMES)
    assert set(FITTED.constants) == set(NAMES)
    facts = FITTED.facts()
    assert facts["trials"]["cosine"]["gain"] == 0.0
    assert facts["trials"]["posterior"]["gain"] > 2 * facts["trials"]["posterior"]["gain_error"]
    assert len(facts["parameters"]["between"]) == ITEMS.dim
    assert "150 held-out images searched 300 others, of 600" in facts["basis"]


def test_without_labels_cosine_stays_and_hubs_are_still_counted() -> None:
    for labels in ([None] * 600, [str(i) for i in range(600)], ["a", "b"] * 20 + [None] * 560):
        found = fit(ITEMS, labels)
        assert (found.distance, found.given) == ("cosine", False)
        assert all(trial.quality is None for trial in found.trials)
        assert found.trials[NAMES.index("kl")].hub_max > found.trials[0].hub_max
        assert "too few labels" in found.basis
        assert found.facts()["chosen"] == "the default, nothing could be compared"
        np.testing.assert_allclose(
            found.constants["posterior"].within, np.array(fit_prior(ITEMS).within), rtol=1e-5
        )


@pytest.mark.parametrize("count", [0, 1, 3])
def test_hardly_any_items_are_enough_to_open_with(count: int) -> None:
    found = fit(ITEMS[:count], LABELS[:count])
    assert found.distance == "cosine"
    assert Fitting.from_json(found.to_json()) == found


def test_it_travels_as_text() -> None:
    assert Fitting.from_json(FITTED.to_json()) == FITTED
    for text in ("{}", "[1]", FITTED.to_json()[:-1], '{"trials": [{}]}'):
        with pytest.raises(FormatError, match="vssl gallery refit"):
            Fitting.from_json(text)


def test_it_is_stale_when_a_fifth_has_changed() -> None:
    fitting = replace(FITTED, rows=100, last_row=130)
    assert fitting.stale(100, 130) is None
    assert fitting.stale(80, 130) is None
    assert fitting.stale(120, 150) is None
    for rows, last_row in ((79, 130), (121, 151), (100, 151)):
        assert "vssl gallery refit" in str(fitting.stale(rows, last_row))
    copy = fitting.moved(1, 100)
    assert copy.stale(100, 100) is None
    assert copy.stale(130, 130) is not None
