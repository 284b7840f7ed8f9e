"""A bank, a split and an order -> the micro-batches of each step, on the device.

With several processes the images are this one's share of a batch; labels and places are those of
the whole batch, for the parts of a method that see all of it.
Shape letters: B batch, C0 side of the stored image.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.bank import ImageBank
from train.config import TrainConfig
from train.peers import Peers
from train.split import Split

ROOM = 0.4
"""Share of a GPU's free memory that the whole bank may take."""


class Feed:
    """Hands out stored images; a GPU with room for it holds the whole bank."""

    def __init__(
        self, bank: ImageBank, split: Split, config: TrainConfig, device: torch.device, peers: Peers
    ) -> None:
        self.bank, self.split, self.device, self.peers = bank, split, device, peers
        self.batch, self.accumulate = config.batch_size, config.optimiser.accumulate
        self.resident = self._make_resident()

    def step(
        self, order: NDArray[np.int64], number: int
    ) -> tuple[list[Tensor], list[Tensor] | None, list[Tensor]]:
        """Return images (B, C0, C0, 3), labels (B,) and places (B,) of the epoch's step `number`.

        One entry each per micro-batch; order: the epoch's permutation of the training images,
        in which a place is counted; labels: None where there are none.
        """
        images: list[Tensor] = []
        labels: list[Tensor] = []
        places: list[Tensor] = []
        for part in range(number * self.accumulate, (number + 1) * self.accumulate):
            chosen = order[part * self.batch : (part + 1) * self.batch]
            rows = self.split.train[chosen]
            places.append(torch.from_numpy(chosen).to(self.device))
            images.append(self._images(rows[self.peers.share(len(rows))]))
            if self.split.labels is not None:
                labels.append(torch.from_numpy(self.split.labels[rows]).to(self.device))
        return images, labels or None, places

    def once(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield places and stored images of all training images, in their own order."""
        places = np.arange(len(self.split.train))
        for chosen in np.array_split(places, -(-len(places) // self.batch)):
            rows = self.split.train[chosen[self.peers.share(len(chosen))]]
            yield torch.from_numpy(chosen).to(self.device), self._images(rows)

    def _images(self, rows: NDArray[np.int64]) -> Tensor:
        if self.resident is not None:
            return self.resident[torch.from_numpy(rows).to(self.device)]
        return torch.from_numpy(self.bank.images[rows]).to(self.device)

    def _make_resident(self) -> Tensor | None:
        if self.device.type != "cuda":
            return None
        free, _ = torch.cuda.mem_get_info(self.device)
        if self.bank.images.nbytes > ROOM * free:
            return None
        return torch.from_numpy(np.ascontiguousarray(self.bank.images)).to(self.device)
