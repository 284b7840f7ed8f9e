"""Every training image is handed out once an epoch, held-out ones never, and shares make up the batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from train.data.batches import Batches
from train.data.image_cache import ImageCache
from train.data.split import Split
from train.loop.step import epoch_order
from train.settings.config import OptimiserConfig, TrainConfig
from train.state.distributed import SINGLE, ProcessGroup

CPU = torch.device("cpu")
CONFIG = TrainConfig(batch_size=4, optimiser=OptimiserConfig(accumulate=2), size=8, cache_size=8)
TRAIN = np.array([row for row in range(30) if row % 5], np.int64)  # 24 of 30
OUT = np.arange(0, 30, 5)


def batches(
    group: ProcessGroup = SINGLE,
    config: TrainConfig = CONFIG,
    labelled: bool = True,
    resident: bool | None = None,
) -> Batches:
    """Thirty pictures; every pixel of one is its row in the cache, and so is its label."""
    images = np.broadcast_to(np.arange(30, dtype=np.uint8)[:, None, None, None], (30, 8, 8, 3)).copy()
    ids = [str(row) for row in range(30)]
    labels = np.arange(30, dtype=np.int64) if labelled else None
    cache = ImageCache(images, list(range(30)), ids, [None] * 30, [])
    return Batches(cache, Split(TRAIN, OUT, labels, 30 if labelled else 0), config, CPU, group, resident)


def rows(images: torch.Tensor) -> list[int]:
    return [int(image[0, 0, 0]) for image in images]


def test_an_epoch_shows_each_training_image_once() -> None:
    order, seen = epoch_order(24, 5, 0), []
    for number in range(3):
        images, labels, places = batches().step(order, number)
        assert [len(part) for part in images] == [4, 4]
        assert labels is not None
        for part, known, where in zip(images, labels, places, strict=True):
            assert rows(part) == known.tolist() == TRAIN[where.numpy()].tolist()
            seen += rows(part)
    assert sorted(seen) == TRAIN.tolist()


def test_what_was_read_ahead_is_that_of_the_step_and_order_that_are_asked_for() -> None:
    one, other, asked = epoch_order(24, 5, 0), epoch_order(24, 5, 1), batches()
    for order, number in (
        (one, 0),
        (one, 1),
        (one, 2),
        (other, 0),
        (one, 2),
        (one, 1),
        (other, 1),
        (other, 2),
    ):
        images, _, places = asked.step(order, number)
        assert [rows(part) for part in images] == [TRAIN[where.numpy()].tolist() for where in places]
        assert torch.cat(places).tolist() == order[8 * number : 8 * number + 8].tolist()


def test_images_that_the_device_holds_are_those_that_are_read() -> None:
    """What a GPU with enough memory does, on the CPU."""
    order = epoch_order(24, 5, 2)
    for group in (SINGLE, ProcessGroup(1, 3)):
        held, read = batches(group, resident=True), batches(group)
        for number in range(3):
            for one, other in zip(held.step(order, number), read.step(order, number), strict=True):
                assert one is not None
                assert other is not None
                assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        for (places, images), (where, shown) in zip(held.once(), read.once(), strict=True):
            assert torch.equal(places, where)
            assert torch.equal(images, shown)


def test_without_labels_there_are_none() -> None:
    assert batches(labelled=False).step(epoch_order(24, 5, 0), 0)[1] is None


def test_one_pass_shows_all_in_order_the_remainder_too() -> None:
    config = replace(CONFIG, batch_size=7)
    seen = [(where.tolist(), rows(images)) for where, images in batches(config=config).once()]
    assert [place for places, _ in seen for place in places] == list(range(24))
    assert [row for _, shown in seen for row in shown] == TRAIN.tolist()
    assert max(len(places) for places, _ in seen) <= 7


def test_the_shares_of_three_processes_make_up_the_batch() -> None:
    order = epoch_order(24, 5, 1)
    whole = batches().step(order, 1)
    shares = [batches(ProcessGroup(rank, 3)).step(order, 1) for rank in range(3)]
    for part in range(2):
        assert rows(torch.cat([images[part] for images, _, _ in shares])) == rows(whole[0][part])
        for _, labels, places in shares:
            assert labels is not None
            assert whole[1] is not None
            assert torch.equal(labels[part], whole[1][part])
            assert torch.equal(places[part], whole[2][part])
    passes = [list(batches(ProcessGroup(rank, 3)).once()) for rank in range(3)]
    for (places, images), *others in zip(list(batches().once()), *passes, strict=True):
        assert rows(torch.cat([shown for _, shown in others])) == rows(images)
        assert all(torch.equal(where, places) for where, _ in others)
