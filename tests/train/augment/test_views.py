"""Views are drawn image by image as torchvision draws them, and are a function of the generator."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from train.augment.views import Views
from train.settings.config import AugmentConfig

STILL = AugmentConfig(
    crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0, jitter=0, grey=0, blur=0, solarise=0
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, side: int = 24) -> torch.Tensor:
    """Smooth colourful pictures (count, side, side, 3) uint8."""
    small = torch.rand(count, 3, 4, 4, generator=generator(9))
    large = torch.nn.functional.interpolate(small, (side, side), mode="bilinear")
    return (255 * large).round().to(torch.uint8).permute(0, 2, 3, 1)


def same(count: int, side: int = 24) -> torch.Tensor:
    return pictures(1, side).expand(count, side, side, 3)


def test_nothing_asked_for_changes_nothing() -> None:
    images = pictures(5)
    views = Views(STILL, 24)(images, generator())
    assert views.dtype == torch.float32
    torch.testing.assert_close(views, images.float())


def test_the_generator_decides() -> None:
    views, images = Views(AugmentConfig(blur=0.5, solarise=0.2, rotate=20, noise=9), 16), pictures(8)
    first = views(images, generator(1))
    assert first.shape == (8, 16, 16, 3)
    assert first.min() >= 0
    assert first.max() <= 255
    assert torch.equal(first, views(images, generator(1)))
    assert not torch.equal(first, views(images, generator(2)))


def test_each_image_has_its_own_numbers() -> None:
    views = Views(AugmentConfig(), 16)(same(64), generator())
    differences = (views[:, None] - views[None, :]).abs().mean(dim=(2, 3, 4)) + 99 * torch.eye(64)
    assert differences.min() > 0.05


def test_an_image_s_view_does_not_depend_on_its_neighbours() -> None:
    images, views = pictures(6), Views(AugmentConfig(blur=0.5), 16)
    others = images.flip(0).clone()
    others[2] = images[2]
    assert torch.equal(views(images, generator(3))[2], views(others, generator(3))[2])


def test_a_share_of_a_batch_has_the_whole_batch_s_views() -> None:
    images, views = pictures(7), Views(AugmentConfig(blur=0.5, solarise=0.2, rotate=20, noise=9), 16)
    whole = views(images, generator(4))
    for share in (slice(0, 3), slice(3, 7)):
        torch.testing.assert_close(views(images[share], generator(4), share, 7), whole[share])


def test_crop_boxes_have_torchvision_s_distribution() -> None:
    config, side, count = AugmentConfig(crop_scale=(0.08, 1.0)), 32, 2000
    views = Views(config, 32)
    drawn = views.plan(views.draw(count, generator()), side)
    top, left, height, width = (*drawn.corner.unbind(1), *drawn.extent.unbind(1))
    torch.manual_seed(0)
    crop = v2.RandomResizedCrop(32, scale=config.crop_scale, ratio=config.crop_ratio)
    picture = torch.zeros(3, side, side)
    boxes = [crop.make_params([picture]) for _ in range(count)]
    for name, ours in (("top", top), ("left", left), ("height", height), ("width", width)):
        theirs = torch.tensor([float(box[name]) for box in boxes])
        assert _kolmogorov(ours, theirs) < 1.95 * math.sqrt(2 / count), name  # p about 0.001
    assert torch.equal(height, height.round())
    assert (top + height <= side).all()
    assert (left >= 0).all()


def _kolmogorov(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest gap between two empirical distributions."""
    points = torch.cat([a, b]).sort().values
    shares = [
        torch.searchsorted(x.sort().values, points, right=True).double() / len(x) for x in (a.float(), b)
    ]
    return float((shares[0] - shares[1]).abs().max())


@pytest.mark.parametrize(
    ("config", "transform"),
    [
        (
            AugmentConfig(),
            [
                v2.RandomResizedCrop(16, (0.08, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
                v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8),
                v2.RandomGrayscale(0.2),
                v2.RandomHorizontalFlip(),
            ],
        ),
        (
            AugmentConfig(crop_scale=(0.2, 1.0), jitter=0, grey=0, blur=0.5, solarise=0.3),
            [
                v2.RandomResizedCrop(16, (0.2, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
                v2.RandomApply([v2.GaussianBlur(13, (0.1, 2.0))], 0.5),
                v2.RandomSolarize(128 / 255, 0.3),
                v2.RandomHorizontalFlip(),
            ],
        ),
    ],
)
def test_views_have_torchvision_s_moments(config: AugmentConfig, transform: list[v2.Transform]) -> None:
    """Mean and deviation of every pixel over many views of one picture agree within chance."""
    count = 800
    ours = Views(config, 16)(same(count), generator()) / 255
    torch.manual_seed(1)
    pipeline = v2.Compose(transform)
    picture = pictures(1)[0].permute(2, 0, 1).float() / 255
    theirs = torch.stack([pipeline(picture).clamp(0, 1).permute(1, 2, 0) for _ in range(count)])
    error = ((ours.var(dim=0) + theirs.var(dim=0)) / count).sqrt()
    gap = (ours.mean(dim=0) - theirs.mean(dim=0)) / error
    assert gap.abs().max() < 5.5  # the largest of 768 correlated deviates
    assert gap.abs().mean() < 2.0
    ratio = ours.std(dim=0) / theirs.std(dim=0)
    assert ratio.sub(1).abs().max() < 0.2


def test_the_warp_turns_shifts_and_magnifies() -> None:
    config = AugmentConfig(**{**STILL.__dict__, "rotate": 30.0, "shift": 0.1, "zoom": (0.8, 1.25)})
    views, images = Views(config, 24), pictures(1)
    drawn = views.plan(views.draw(1, generator()), 24)
    quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    turned = views.render(images, drawn._replace(warp=quarter))[0].permute(2, 0, 1)
    torch.testing.assert_close(
        turned, torch.rot90(images[0].permute(2, 0, 1).float(), 1, (1, 2)), atol=0.1, rtol=0
    )
    moved = torch.tensor([[[1.0, 0.0, 2 * 3 / 24], [0.0, 1.0, 0.0]]])
    shifted = views.render(images, drawn._replace(warp=moved))[0]
    torch.testing.assert_close(shifted[:, :-3], images[0, :, 3:].float(), atol=0.1, rtol=0)
    doubled = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]])
    larger = views.render(images, drawn._replace(warp=doubled))[0].permute(2, 0, 1)
    expected = tv.resize(images[0].permute(2, 0, 1)[:, 6:18, 6:18].float(), [24, 24], antialias=False)
    assert (larger - expected).abs()[:, 2:-2, 2:-2].max() < 1.0


def test_the_warp_s_ranges() -> None:
    config = AugmentConfig(**{**STILL.__dict__, "rotate": 30.0, "shift": 0.1, "zoom": (0.8, 1.25)})
    views = Views(config, 24)
    warp = views.plan(views.draw(5000, generator()), 24).warp
    zoom = 1 / torch.linalg.det(warp[:, :, :2]).sqrt()
    angle = torch.atan2(warp[:, 1, 0], warp[:, 0, 0]) * 180 / math.pi
    for values, low, high in ((zoom, 0.8, 1.25), (angle, -30, 30), (warp[:, 0, 2], -0.2, 0.2)):
        assert values.min().item() == pytest.approx(low, abs=0.02 * (high - low))
        assert values.max().item() == pytest.approx(high, abs=0.02 * (high - low))
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.05 * (high - low))


def test_noise_stays_below_its_level() -> None:
    grey = torch.full((300, 8, 8, 3), 128, dtype=torch.uint8)
    views = Views(AugmentConfig(**{**STILL.__dict__, "noise": 20.0}), 8)(grey, generator())
    deviations = views.flatten(1).std(dim=1)
    assert deviations.max() < 23
    assert deviations.mean().item() == pytest.approx(10, abs=1)
    assert deviations.min() < 1


FULL = AugmentConfig(blur=0.5, solarise=0.2, rotate=20, noise=9)


def test_choosing_rows_and_changing_all_images_make_the_same_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU computes, on the CPU."""
    views, images = Views(FULL, 16), pictures(12)
    by_rows = views(images, generator(5))
    monkeypatch.setattr("train.augment.colour.chooses_rows", lambda images: False)
    torch.testing.assert_close(views(images, generator(5)), by_rows, rtol=1e-5, atol=1e-2)


def test_compiled_views_are_the_same_and_one_graph() -> None:
    views, images, graphs = Views(FULL, 16), pictures(12), []
    expected = views(images, generator(5))

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    views.compile(backend)
    torch.testing.assert_close(views(images, generator(5)), expected, rtol=1e-5, atol=1e-2)
    assert len(graphs) == 1


def stretched(picture: torch.Tensor, side: int) -> torch.Tensor:
    """A picture (3, H, W) uint8 as it is stored: (1, side, side, 3)."""
    return tv.resize(picture, [side, side], antialias=True).permute(1, 2, 0)[None]


@pytest.mark.parametrize(("width", "height"), [(4000, 1000), (1200, 3000), (2000, 1600)])
def test_crops_of_a_stretched_picture_have_torchvision_s_distribution(width: int, height: int) -> None:
    config, side, count = (
        AugmentConfig(crop_scale=(0.2, 1.0)),
        4000,
        2000,
    )  # so large that whole pixels do not matter
    views = Views(config, 32)
    aspects = torch.full((count,), width / height)
    drawn = views.plan(views.draw(count, generator()), side, aspects)
    ours = torch.cat([drawn.corner, drawn.extent], dim=1) / side
    assert (ours[:, :2] + ours[:, 2:]).max() <= 1.0
    torch.manual_seed(0)
    crop = v2.RandomResizedCrop(32, scale=config.crop_scale, ratio=config.crop_ratio)
    picture = torch.zeros(()).expand(3, height, width)
    boxes = [crop.make_params([picture]) for _ in range(count)]
    theirs = torch.tensor([[b["top"], b["left"], b["height"], b["width"]] for b in boxes]).double()
    theirs /= torch.tensor([height, width, height, width])
    for mine, other in zip(ours.double().T, theirs.T, strict=True):
        # Kolmogorov and Smirnov's distance: 0.036 is passed by chance in one of a hundred pairs.
        mine, other = mine.round(decimals=3), other.round(decimals=3)  # whole pixels of two grids
        points = torch.cat([mine, other]).unique()
        apart = [
            torch.searchsorted(values.sort().values, points, right=True) / count for values in (mine, other)
        ]
        assert (apart[0] - apart[1]).abs().max() < 0.045


def test_a_crop_of_a_stretched_picture_is_torchvision_s_crop_of_the_picture() -> None:
    width, height, side = 240, 80, 240
    picture = pictures(1, 240)[0].permute(2, 0, 1)
    picture = tv.resize(picture, [height, width], antialias=True)
    config = AugmentConfig(crop_scale=(0.3, 0.6), flip=0, jitter=0, grey=0, blur=0, solarise=0)
    views = Views(config, 32)
    numbers, aspects = views.draw(8, generator(5)), torch.full((8,), width / height)
    stored = stretched(picture, side).expand(8, -1, -1, -1)
    drawn = views.plan(numbers, side, aspects)
    found = views.apply(stored, numbers, None, aspects)
    across = []
    for view, corner, extent in zip(found, drawn.corner, drawn.extent, strict=True):
        scale = torch.tensor([height / side, width / side])
        (top, left), (tall, wide) = (corner * scale).tolist(), (extent * scale).tolist()
        assert 0.7 < wide / tall < 1.4  # a square of the picture, not of what is stored
        box = [round(top), round(left), round(tall), round(wide)]
        expected = tv.resized_crop(picture, *box, [32, 32], antialias=True)
        assert (view.permute(2, 0, 1) - expected.float()).abs().mean() < 4
        across.append(left)
    assert max(across) > 160 or min(across) < 60  # also where no centre square lies
