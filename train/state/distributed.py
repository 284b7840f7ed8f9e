"""torchrun's environment -> the process group of one run, and what is exchanged in it.

    torchrun --nproc-per-node 2 -m vssl train IMAGES --out RUN

The batch is split over the processes; the first of them alone writes. Without torchrun a run is
a SINGLE process and nothing is exchanged.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, distributed

from vssl.errors import InputError

TIMEOUT = timedelta(hours=12)
"""How long a process waits for the others: the first one may be decoding a large folder."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those of a run: `rank` of `count`; `local_rank` counts on this machine."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def local_slice(self, total: int) -> slice:
        """Return which of `total` rows are this process's: consecutive, sizes differing by one at most."""
        return slice(self.rank * total // self.count, (self.rank + 1) * total // self.count)

    def sizes(self, total: int) -> list[int]:
        """Return how many of `total` rows each process has."""
        edges = [rank * total // self.count for rank in range(self.count + 1)]
        return [stop - start for start, stop in pairwise(edges)]

    def barrier(self) -> None:
        """Return when every process has come here."""
        if self.count > 1:
            self.broadcast(None)

    def broadcast(self, value: Any) -> Any:
        """Return the first process's plain value, in every process."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def largest(self, number: int) -> int:
        """Return the largest number among the processes, so that all stop when one has a signal.

        An all-reduce between the processes only: no device is waited for.
        """
        if self.count == 1:
            return number
        flag = torch.tensor(number)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return int(flag)

    def sum_gradients(self, weights: Iterable[Tensor], scale: float = 1.0) -> None:
        """Replace every weight's gradient by scale times the sum of it over the processes."""
        if self.count == 1:
            return
        slopes = [weight.grad for weight in weights if weight.grad is not None]
        if not slopes:
            return
        flat = torch.cat([slope.float().flatten() for slope in slopes])
        distributed.all_reduce(flat)
        parts = torch.split(flat * scale, [slope.numel() for slope in slopes])
        for slope, part in zip(slopes, parts, strict=True):
            slope.copy_(part.view_as(slope))


SINGLE = ProcessGroup()


def join_group() -> ProcessGroup:
    """Return this process's place in the run that torchrun started, or SINGLE.

    Tensors of a GPU travel by NCCL, those of the CPU by gloo.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return SINGLE
    if not distributed.is_initialized():
        if "MASTER_ADDR" not in os.environ:
            raise InputError(
                f"found WORLD_SIZE={count} without torchrun's other variables; start several processes with "
                "torchrun --nproc-per-node N -m vssl train ..., or unset WORLD_SIZE"
            )
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=TIMEOUT)
        atexit.register(distributed.destroy_process_group)
    return ProcessGroup(distributed.get_rank(), count, int(os.environ.get("LOCAL_RANK", "0")))
