"""A bank, a split and an order -> the micro-batches of each step, on the device.

With several processes the images are this one's share of a batch; labels and places are those of
the whole batch, for the parts of a method that see all of it.
Shape letters: B batch, C0 side of the stored image.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.data.image_cache import ImageBank
from train.data.split import Split
from train.settings.config import TrainConfig
from train.state.distributed import Peers

ROOM = 0.4
"""Share of a GPU's free memory that the whole bank may take."""


class Feed:
    """Hands out stored images; a GPU with room for it holds the whole bank.

    Otherwise a thread reads the next step's images while this one is computed, into memory that a GPU
    copies from without waiting.
    """

    def __init__(
        self, bank: ImageBank, split: Split, config: TrainConfig, device: torch.device, peers: Peers
    ) -> None:
        self.bank, self.split, self.device, self.peers = bank, split, device, peers
        self.batch, self.accumulate = config.batch_size, config.optimiser.accumulate
        self.resident = self._make_resident()
        self._reader = ThreadPoolExecutor(1, "feed") if self.resident is None else None
        self._ahead: tuple[NDArray[np.int64], int, Future[list[Tensor]]] | None = None

    def step(
        self, order: NDArray[np.int64], number: int
    ) -> tuple[list[Tensor], list[Tensor] | None, list[Tensor]]:
        """Return images (B, C0, C0, 3), labels (B,) and places (B,) of the epoch's step `number`.

        One entry each per micro-batch; order: the epoch's permutation of the training images,
        in which a place is counted; labels: None where there are none.
        """
        labels: list[Tensor] = []
        places: list[Tensor] = []
        for chosen in self._parts(order, number):
            places.append(torch.from_numpy(chosen).to(self.device))
            if self.split.labels is not None:
                rows = self.split.train[chosen]
                labels.append(torch.from_numpy(self.split.labels[rows]).to(self.device))
        return self._images_of(order, number), labels or None, places

    def _parts(self, order: NDArray[np.int64], number: int) -> list[NDArray[np.int64]]:
        """Places of each micro-batch of a step."""
        parts = range(number * self.accumulate, (number + 1) * self.accumulate)
        return [order[part * self.batch : (part + 1) * self.batch] for part in parts]

    def _images_of(self, order: NDArray[np.int64], number: int) -> list[Tensor]:
        if self._reader is None:
            return [self._images(rows) for rows in self._rows(order, number)]
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] is order and ahead[1] == number:
            read = ahead[2].result()
        else:
            read = self._read(order, number)
        if (number + 2) * self.accumulate * self.batch <= len(order):
            self._ahead = (order, number + 1, self._reader.submit(self._read, order, number + 1))
        return [images.to(self.device, non_blocking=True) for images in read]

    def _rows(self, order: NDArray[np.int64], number: int) -> list[NDArray[np.int64]]:
        """This process's share of each micro-batch, as rows of the bank."""
        rows = [self.split.train[chosen] for chosen in self._parts(order, number)]
        return [part[self.peers.share(len(part))] for part in rows]

    def _read(self, order: NDArray[np.int64], number: int) -> list[Tensor]:
        read = [torch.from_numpy(self.bank.images[rows]) for rows in self._rows(order, number)]
        return [images.pin_memory() for images in read] if self.device.type == "cuda" else read

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
