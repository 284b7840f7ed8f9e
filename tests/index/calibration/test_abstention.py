"""What is promised is kept: the realised risk stays under the one allowed."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from scipy import stats

from index.calibration import abstention
from index.calibration.abstention import NEIGHBOURS, AbstentionInputs, fit_rule, fit_threshold, tail
from vssl.errors import InputError


def draw(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores that know something of the errors: the chance of one rises with the score."""
    score = random.random(count)
    return score, random.random(count) < 0.6 * score**2


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(abstention).failed == 0


@pytest.mark.parametrize(
    ("errors", "count", "risk"), [(0, 1, 0.3), (3, 50, 0.05), (60, 1000, 0.05), (5, 5, 0.5)]
)
def test_the_tail_is_that_of_scipy(errors: int, count: int, risk: float) -> None:
    assert tail(errors, count, risk) == pytest.approx(stats.binom.cdf(errors, count, risk), rel=1e-9)


def test_the_risk_is_kept_in_at_least_the_promised_share_of_draws() -> None:
    """The true risk of accepting below t is E[0.6 s^2 | s <= t] = 0.2 t^2."""
    random = np.random.default_rng(0)
    kept, coverage = 0, []
    for _ in range(300):
        score, wrong = draw(1000, random)
        fitted = fit_threshold("score", score, wrong, 0.05, start=0.14, delta=0.1)
        kept += fitted.threshold == -math.inf or 0.2 * min(fitted.threshold, 1.0) ** 2 <= 0.05
        coverage.append(fitted.coverage)
    assert kept >= 0.9 * 300
    assert np.mean(coverage) > 0.3  # the most that keeps the risk is 0.5


def test_a_score_that_knows_nothing_answers_nothing() -> None:
    random = np.random.default_rng(1)
    score, wrong = draw(4000, random)
    noise = random.random(4000)
    nothing = fit_threshold("noise", noise, wrong, 0.05, start=0.05)
    assert nothing.coverage == 0.0
    assert not nothing.accepts(noise).any()
    fitted = fit_threshold("score", score, wrong, 0.05, start=0.05)
    accepted = fitted.accepts(score)
    assert accepted.mean() == fitted.coverage > 0.3
    assert wrong[accepted].mean() == fitted.risk


def test_where_the_sequence_begins_decides_whether_it_gets_anywhere() -> None:
    """One error among the surest stops a sequence that begins there, and not one that begins later."""
    score = np.arange(4000) / 4000
    wrong = np.zeros(4000, bool)
    wrong[[3, 5, 7]] = True
    assert fit_threshold("score", score, wrong, 0.05, start=0.01).coverage == 0.0
    assert fit_threshold("score", score, wrong, 0.05, start=0.2).coverage == 1.0


def test_nothing_to_calibrate_on_means_no_answer() -> None:
    fitted = fit_threshold("score", np.empty(0), np.empty(0, bool), 0.05, start=0.05)
    assert (fitted.coverage, fitted.threshold) == (0.0, -math.inf)


def test_ties_at_the_threshold_are_counted_in_full() -> None:
    wrong = np.zeros(2000, bool)
    wrong[:200] = True
    fitted = fit_threshold("score", np.ones(2000), wrong, 0.05, start=0.05)
    assert fitted.coverage == 0.0


@pytest.mark.parametrize("risk", [0.0, 1.0, -1.0])
def test_a_risk_that_is_none_is_refused(risk: float) -> None:
    with pytest.raises(InputError, match="max-risk"):
        fit_threshold("score", np.empty(0), np.empty(0, bool), risk, start=0.05)


def test_the_length_scale_is_half_of_what_lies_between_the_first_and_the_last() -> None:
    inputs = AbstentionInputs(
        np.ones(3), np.array([[1.0, 3.0], [1.0, 5.0], [2.0, 12.0]]), np.ones((3, 2), bool)
    )
    assert inputs.length_scale() == 2.0  # of 2, 4 and 10


def draw_inputs(count: int, seed: int) -> tuple[AbstentionInputs, np.ndarray]:
    """Queries whose neighbours' disagreement alone says how likely the first is wrong."""
    random = np.random.default_rng(seed)
    doubt = random.random(count)
    distance = np.sort(random.random((count, NEIGHBOURS)), axis=1) + 1.0
    agree = random.random((count, NEIGHBOURS)) > doubt[:, None]
    agree[:, 0] = True
    return AbstentionInputs(random.random(count), distance, agree), random.random(count) < 0.8 * doubt**2


def test_a_rule_that_asks_the_neighbours_answers_where_others_cannot() -> None:
    inputs, wrong = draw_inputs(4000, 0)
    rule = fit_rule(inputs, wrong, 0.1)
    assert rule.thresholds["uncertainty"].coverage == rule.thresholds["distance"].coverage == 0.0
    assert rule.thresholds["disagreement"].coverage > 0.3
    assert rule.best.score in ("disagreement", "combined")
    asked, outcome = draw_inputs(4000, 1)
    taken = ~rule.abstains(asked)
    assert taken.mean() > 0.3
    assert outcome[taken].mean() <= 0.1


def test_where_nothing_is_answered_the_least_risk_that_could_be_held_is_named() -> None:
    random = np.random.default_rng(4)
    score, wrong = draw(400, random)
    inputs = AbstentionInputs(score, np.repeat(score[:, None], 2, axis=1), np.ones((400, 2), bool))
    refused = fit_rule(inputs, wrong, 0.001)
    assert refused.best.coverage == 0
    assert refused.attainable is not None
    assert f"--max-risk {refused.attainable:g}" in refused.describe()
    assert fit_rule(inputs, wrong, refused.attainable).best.coverage > 0
    hopeless = fit_rule(inputs, np.ones(400, bool), 0.1)
    assert hopeless.attainable is None
    assert "add labelled images" in hopeless.describe()
