"""Which images are held out is a matter of their ids alone, and labels are used only if they can be measured on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data.image_cache import ImageCache
from train.data.split import FEWEST_HELD_OUT, split_images


def image_cache(labels: list[str | None], ids: list[str] | None = None) -> ImageCache:
    count = len(labels)
    names = ids or [f"image-{number}" for number in range(count)]
    return ImageCache(np.zeros((count, 2, 2, 3), np.uint8), list(range(count)), names, labels, [])


@settings(max_examples=30)
@given(st.integers(40, 400), st.floats(0.0, 0.5))
def test_every_image_is_on_one_side(count: int, share: float) -> None:
    split = split_images(image_cache([None] * count), share)
    assert sorted([*split.train, *split.validation]) == list(range(count))
    assert len(split.validation) == 0 or len(split.validation) >= FEWEST_HELD_OUT


def test_about_the_share_is_held_out() -> None:
    split = split_images(image_cache([None] * 5000), 0.1)
    assert 0.085 < len(split.validation) / 5000 < 0.115
    assert len(split_images(image_cache([None] * 5000), 0.0).validation) == 0


def test_more_images_do_not_move_the_others() -> None:
    few, many = (split_images(image_cache([None] * count), 0.3) for count in (200, 400))
    assert set(few.validation) == {row for row in many.validation if row < 200}
    order = np.random.default_rng(0).permutation(200)
    shuffled = split_images(image_cache([None] * 200, [f"image-{number}" for number in order]), 0.3)
    assert {order[row] for row in shuffled.validation} == set(few.validation)


def test_too_few_to_measure_on_are_trained_on_instead() -> None:
    split = split_images(image_cache([None] * 40), 0.1)
    assert len(split.train) == 40


def test_classes_are_numbered_by_name_and_unknown_is_below_zero() -> None:
    split = split_images(
        image_cache(["dog", "cat", None, "dog", "eel", "cat", "dog", "eel", "cat", "cat", "dog", "eel"]), 0
    )
    assert split.classes == 3
    assert split.labels is not None
    assert split.labels.tolist() == [1, 0, -1, 1, 2, 0, 1, 2, 0, 0, 1, 2]


@pytest.mark.parametrize(
    "labels",
    [[None] * 40, ["one"] * 40, ["one"] * 30 + [None] * 10, [f"own-{n}" for n in range(40)]],
    ids=["none", "one class", "one class, some unknown", "nearly all different"],
)
def test_labels_that_tell_nothing_are_not_used(labels: list[str | None]) -> None:
    split = split_images(image_cache(labels), 0.3)
    assert split.classes == 0
    assert split.labels is None
