"""Embeddings of earlier batches, kept first in, first out, inside the checkpoint.

Shape letters: M rows kept, B batch, D dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Queue(nn.Module):
    """M unit vectors, the oldest replaced by each batch; random at first."""

    rows: Tensor
    place: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", functional.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, batch: Tensor) -> None:
        """Replace the oldest rows by the batch (B, D), normalised; wraps around."""
        size = len(self.rows)
        batch = functional.normalize(batch.float(), dim=1)[-size:]
        where = (self.place + torch.arange(len(batch), device=batch.device)) % size
        self.rows[where] = batch
        self.place.copy_((self.place + len(batch)) % size)

    @torch.no_grad()
    def nearest(self, codes: Tensor) -> Tensor:
        """Return the row nearest to each code by cosine: (B, D) -> (B, D)."""
        with torch.autocast(codes.device.type, enabled=False):
            unit = functional.normalize(codes.float(), dim=1)
            return self.rows[(unit @ self.rows.T).argmax(dim=1)]
