"""The line that tells how undecided a mean's neighbours are, against slow loops and planted regions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from export.calibration.neighbourhood import NEIGHBOURS, around, fit_neighbourhood

DIM = 12


def means_of(count: int, seed: int) -> Tensor:
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed))


def undecided_where_first_is_high(means: Tensor, seed: int) -> Tensor:
    """Indecision that rises with the first dimension, under noise twice as large."""
    return means[:, 0] + 2 * torch.randn(len(means), generator=torch.Generator().manual_seed(seed))


def test_around_is_the_mean_of_an_image_and_its_nearest_by_a_slow_loop() -> None:
    means = means_of(60, 1).double()
    undecided = means_of(60, 2)[:, 0].double()
    found = around(means, undecided)
    for row in range(60):
        cosine = [float(torch.cosine_similarity(means[row], other, dim=0)) for other in means]
        nearest = sorted(range(60), key=lambda other, cosine=cosine: -cosine[other])[: NEIGHBOURS + 1]
        assert nearest[0] == row
        assert float(found[row]) == pytest.approx(float(undecided[nearest].mean()))


def test_fewer_images_than_neighbours_are_all_around_each_other() -> None:
    found = around(means_of(5, 3).double(), torch.arange(5.0).double())
    assert found.tolist() == pytest.approx([2.0] * 5)


def test_it_tells_of_new_means_what_lies_around_them_better_than_their_own_noise() -> None:
    means = means_of(2000, 4)
    weight, bias = fit_neighbourhood(means, undecided_where_first_is_high(means, 5))
    new = means_of(500, 6)
    told, own = new @ weight + bias, undecided_where_first_is_high(new, 7)
    assert np.corrcoef(told, new[:, 0])[0, 1] > 0.95
    assert np.corrcoef(own, new[:, 0])[0, 1] < 0.6


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_its_values_have_mean_0_and_deviation_1_whatever_the_scale_of_the_means(scale: float) -> None:
    means = means_of(800, 8) + 3.0
    weight, bias = fit_neighbourhood(scale * means, undecided_where_first_is_high(means, 9))
    told = scale * means @ weight + bias
    assert float(told.mean()) == pytest.approx(0.0, abs=1e-3)
    assert float(told.std()) == pytest.approx(1.0, abs=1e-3)


def test_of_more_images_than_it_compares_it_takes_some_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.calibration.neighbourhood.MOST", 500)
    means = means_of(2100, 10)
    weight, _ = fit_neighbourhood(means, undecided_where_first_is_high(means, 11))
    assert int(weight.abs().argmax()) == 0


def test_means_that_are_all_alike_tell_nothing() -> None:
    weight, bias = fit_neighbourhood(torch.ones(300, DIM), torch.rand(300))
    assert torch.isfinite(weight).all()
    assert float(torch.ones(DIM) @ weight + bias) == pytest.approx(0.0, abs=1e-3)
