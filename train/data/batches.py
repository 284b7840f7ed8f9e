"""An image cache, a split and an order -> the micro-batches of each step, on the device.

With several processes the images are this one's share of a batch; labels and places are those of
the whole batch, for the parts of a method that see all of it.
Shape letters: B batch, N training images, C0 side of the stored image.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.data.image_cache import ImageCache
from train.data.split import Split
from train.settings.config import TrainConfig
from train.state.distributed import ProcessGroup

RESIDENT_SHARE = 0.4
"""Share of a GPU's free memory that all images may take."""


class Batches:
    """Hands out stored images; a GPU with enough free memory holds all of them.

    Otherwise a thread reads the next step's images while this one is computed, into memory that a GPU
    copies from without waiting. The order of an epoch, the training rows and the labels lie on the device,
    so that a step of resident images copies nothing and waits for nothing.

    resident: whether the device holds all images; None: where a GPU has enough free memory.
    """

    def __init__(
        self,
        cache: ImageCache,
        split: Split,
        config: TrainConfig,
        device: torch.device,
        group: ProcessGroup,
        resident: bool | None = None,
    ) -> None:
        self.cache, self.split, self.device, self.group = cache, split, device, group
        self.batch, self.accumulate = config.batch_size, config.optimiser.accumulate
        held = self._fits_on_gpu() if resident is None else resident
        self.resident = torch.from_numpy(np.ascontiguousarray(cache.images)).to(device) if held else None
        self._rows = torch.from_numpy(split.train).to(device)
        self._labels = (
            None if split.labels is None else torch.from_numpy(split.labels[split.train]).to(device)
        )
        self._order: tuple[NDArray[np.int64], Tensor] | None = None
        self._reader = ThreadPoolExecutor(1, "batches") if self.resident is None else None
        self._ahead: tuple[NDArray[np.int64], int, Future[list[Tensor]]] | None = None

    def step(
        self, order: NDArray[np.int64], number: int
    ) -> tuple[list[Tensor], list[Tensor] | None, list[Tensor]]:
        """Return images (B, C0, C0, 3), labels (B,) and places (B,) of the epoch's step `number`.

        One entry each per micro-batch; order: the epoch's permutation of the training images,
        in which a place is counted; labels: None where there are none.
        """
        if self._order is None or self._order[0] is not order:
            self._order = order, torch.from_numpy(order).to(self.device)
        places = [self._order[1][part] for part in self._parts(number)]
        labels = None if self._labels is None else [self._labels[chosen] for chosen in places]
        if self.resident is None:
            return self._read_images(order, number), labels, places
        return [self._pick(self.resident, chosen) for chosen in places], labels, places

    def once(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield places and stored images of all training images, in their own order."""
        places = torch.arange(len(self.split.train), device=self.device)
        for chosen in places.tensor_split(-(-len(places) // self.batch)):
            if self.resident is not None:
                yield chosen, self._pick(self.resident, chosen)
            else:
                yield chosen, self._images_of(chosen.cpu().numpy()).to(self.device)

    def _parts(self, number: int) -> list[slice]:
        """Return where each micro-batch of a step lies in the order."""
        parts = range(number * self.accumulate, (number + 1) * self.accumulate)
        return [slice(part * self.batch, (part + 1) * self.batch) for part in parts]

    def _pick(self, resident: Tensor, chosen: Tensor) -> Tensor:
        """Return this process's share of the images at places (B,), from those on the device."""
        return resident[self._rows[chosen[self.group.local_slice(len(chosen))]]]

    def _images_of(self, chosen: NDArray[np.int64]) -> Tensor:
        """Return this process's share of the images at places (B,), from the image cache."""
        return torch.from_numpy(
            self.cache.images[self.split.train[chosen[self.group.local_slice(len(chosen))]]]
        )

    def _read_images(self, order: NDArray[np.int64], number: int) -> list[Tensor]:
        """Return a step's images, read ahead if the step before was asked for, and read on ahead."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] is order and ahead[1] == number:
            read = ahead[2].result()
        else:
            read = self._read(order, number)
        if self._reader is not None and (number + 2) * self.accumulate * self.batch <= len(order):
            self._ahead = (order, number + 1, self._reader.submit(self._read, order, number + 1))
        return [images.to(self.device, non_blocking=True) for images in read]

    def _read(self, order: NDArray[np.int64], number: int) -> list[Tensor]:
        read = [self._images_of(order[part]) for part in self._parts(number)]
        return [images.pin_memory() for images in read] if self.device.type == "cuda" else read

    def _fits_on_gpu(self) -> bool:
        if self.device.type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(self.device)
        return self.cache.images.nbytes <= RESIDENT_SHARE * free
