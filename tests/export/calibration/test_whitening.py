"""The served map does to the spread of embeddings what it says, and nothing for a handful of pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.calibration.ambiguity import LENGTH_POWER, SPREAD, Ambiguity, fit_ambiguity
from export.calibration.whitening import fit_mean, partial_whitening, served_map, shrink
from export.served_encoder import ServedMean
from train.models.encoder import EncoderOutput


class Corners(nn.Module):
    """An encoder whose features are three pixels, scaled to 0..1, and whose means are twice those."""

    def forward(self, images: Tensor) -> EncoderOutput:
        features = images[:, 0, :3, 0].float() / 255
        return EncoderOutput(features, 2 * features, None)


def pictures(count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    values = np.clip(random.normal([100, 120, 140], [5, 20, 40], (count, 3)), 0, 255)
    images = np.zeros((count, 6, 6, 3), np.uint8)
    images[:, 0, :3] = values[:, :, None]
    return images


@pytest.mark.parametrize("space", ["features", "projector"])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_variances_along_directions_are_taken_to_a_power_and_their_sum_stays(
    space: str, power: float
) -> None:
    images = pictures(3000)
    plain = ServedMean(space)(Corners()(torch.from_numpy(images)))
    served = fit_mean(Corners(), images, space, 6, power)
    found = served(Corners()(torch.from_numpy(images)))
    assert torch.allclose(found.mean(0), torch.zeros(3), atol=1e-5)
    before, after = plain.var(0), found.var(0)
    assert float(after.sum() / before.sum()) == pytest.approx(1.0, abs=0.01)
    expected = (before / before[0]) ** (1 - power)
    assert torch.allclose(after / after[0], expected, rtol=0.05)


def test_a_handful_of_pictures_is_served_as_it_is_and_some_hundreds_are_believed_in_part() -> None:
    served = fit_mean(Corners(), pictures(63), "features", 6)
    assert served.centre is None
    assert served.matrix is None
    spread = torch.diag(torch.tensor([1.0, 4.0, 16.0], dtype=torch.float64))
    ratios = []
    for count in (1, 6, 10_000):
        matrix = partial_whitening(spread, count, 1.0)
        ratios.append(float(matrix[0, 0] / matrix[2, 2]))
    assert ratios[0] == pytest.approx(1.0)
    assert 1.5 < ratios[1] < 3.9
    assert ratios[2] == pytest.approx(4.0, rel=1e-3)


def test_embeddings_without_spread_are_left_alone() -> None:
    zero = torch.zeros(4, 4, dtype=torch.float64)
    assert torch.equal(partial_whitening(zero, 500, 0.5), torch.eye(4, dtype=torch.float64))


def test_a_direction_that_no_picture_takes_is_not_blown_up() -> None:
    spread = torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    matrix = partial_whitening(spread, 10_000, 1.0)
    assert float(matrix[2, 2] / matrix[0, 0]) == pytest.approx(100.0, rel=1e-2)  # 1e-4 is the least believed


@pytest.mark.parametrize(("space", "root"), [("features", 2), ("projector", 1)])
def test_collision_entropy_by_a_slow_loop(space: str, root: int) -> None:
    generator = torch.Generator().manual_seed(1)
    directions = nn.functional.normalize(torch.randn(5, 4, generator=generator), dim=1)
    means = torch.randn(6, 4, generator=generator)
    found = Ambiguity(directions, 3.0, LENGTH_POWER[space])(means)
    for row in range(6):
        mean = means[row].double().numpy()
        shorter = mean / np.sqrt((mean**2).sum()) ** (1 / root)
        weights = np.exp(3.0 * (directions.double().numpy() @ shorter))
        shares = weights / weights.sum()
        same = sum(share * share for share in shares)  # the probability that two draws are the same direction
        assert found[row].item() == pytest.approx(-np.log(same), rel=1e-5)


def test_features_close_to_what_all_images_share_are_undecided() -> None:
    directions = nn.functional.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    several = directions[:1] * torch.tensor([[0.0], [0.1], [1.0], [10.0]])
    found = Ambiguity(directions, 3.0, LENGTH_POWER["features"])(several)
    assert found[0].item() == pytest.approx(np.log(5))
    assert (torch.diff(found) < 0).all()


def test_of_a_projector_the_length_says_nothing() -> None:
    directions = nn.functional.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    several = directions[:1] * torch.tensor([[0.1], [1.0], [10.0]])
    found = Ambiguity(directions, 3.0, LENGTH_POWER["projector"])(several)
    assert torch.allclose(found, found[:1].expand(3))


@pytest.mark.parametrize("power", LENGTH_POWER.values())
def test_the_unit_that_means_are_measured_in_does_not_matter(power: float) -> None:
    means = torch.randn(800, 8, generator=torch.Generator().manual_seed(3))
    own, scaled = (fit_ambiguity(unit * means, 32, 0, power)(unit * means) for unit in (1.0, 1000.0))
    assert torch.allclose(own, scaled, atol=1e-3)


def test_the_average_picture_is_spread_over_the_stated_share_of_directions() -> None:
    means = torch.randn(1600, 8, generator=torch.Generator().manual_seed(2))
    found = fit_ambiguity(means, 50)
    assert len(found.directions) == 50
    assert float(found(means).exp().mean() / 50) == pytest.approx(SPREAD, rel=0.01)


def test_the_principal_directions_keep_the_largest_variances() -> None:
    generator = torch.Generator().manual_seed(3)
    spread = torch.tensor([3.0, 0.1, 2.0, 0.2, 1.0], dtype=torch.float64)
    means = torch.randn(4000, 5, generator=generator, dtype=torch.float64) * spread + 7.0
    served = served_map(means, "features", 0.0, 3)
    mapped = served(EncoderOutput(means.float(), means.float(), None))
    assert mapped.shape == (4000, 3)
    assert mapped.std(0).tolist() == pytest.approx([3.0, 2.0, 1.0], rel=0.05)
    assert mapped.mean(0).abs().max() < 1e-3


def test_shrink_keeps_a_picture_that_has_the_size_and_averages_a_flat_one_to_itself() -> None:
    flat = torch.full((2, 24, 24, 3), 77.0)
    assert torch.equal(shrink(flat, 24), flat)
    assert torch.allclose(shrink(flat, 12), torch.full((2, 12, 12, 3), 77.0), atol=1e-3)
