"""DeepCluster V2: clusters of the whole data set, found again each epoch, are the labels of the next.

Caron et al. (2018), in the form of Caron et al. (2020), appendix: one code is kept per image
and view, k-means runs on them at the start of an epoch, and its centroids are the fixed
classifier that both views are told apart by.

Shape letters: B batch, S side of a view, N training images, D embedding dimension, P
prototypes, H clusterings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.methods.method import Method, StepOutput
from train.models.clusters import spherical_kmeans
from train.state.randomness import seed_of


@dataclass(frozen=True)
class DeepClusterOptions:
    """How labels are made.

    prototypes: clusters of each of the `heads` clusterings, which take the codes of the first
    and the second view in turn; temperature: of the predictions; rounds: of k-means.
    """

    prototypes: int = 3000
    heads: int = 3
    temperature: float = 0.1
    rounds: int = 10


class MemoryBank(nn.Module):
    """One unit code per image and view, and the clusters found in them.

    codes (2, N, D), labels (H, N), centroids (H, P, D). N is 0 until the first epoch begins; a
    checkpoint brings its own.
    """

    codes: Tensor
    labels: Tensor
    centroids: Tensor
    epochs: Tensor

    def __init__(self, dim: int, options: DeepClusterOptions) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(2, 0, dim))
        self.register_buffer("labels", torch.zeros(options.heads, 0, dtype=torch.int64))
        self.register_buffer("centroids", torch.zeros(options.heads, options.prototypes, dim))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))

    def fill(self, rows: Tensor, codes: Tensor) -> None:
        """Keep the codes (B, D) of the images at `rows` (B,) for both views; grows as needed."""
        missing = int(rows.max()) + 1 - self.codes.shape[1]
        if missing > 0:
            self.codes = functional.pad(self.codes, (0, 0, 0, missing))
        self.codes[:, rows] = codes

    def cluster(self, options: DeepClusterOptions, seed: int) -> None:
        """Replace labels and centroids by those of the codes kept."""
        self.labels = self.labels.new_empty(options.heads, self.codes.shape[1])
        for head in range(options.heads):
            drawn = torch.Generator().manual_seed(seed_of(seed, f"clusters {head}", int(self.epochs)))
            found = spherical_kmeans(self.codes[head % 2], options.prototypes, options.rounds, drawn)
            self.centroids[head], self.labels[head] = found
        self.epochs += 1

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take on the stored number of images before the weights are copied."""
        for name in ("codes", "labels"):
            stored = state_dict.get(prefix + name)
            if stored is not None:
                setattr(self, name, getattr(self, name).new_zeros(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class DeepClusterV2(Method):
    """Clusters as labels."""

    options_type = DeepClusterOptions
    options: DeepClusterOptions
    memory: MemoryBank

    def build_heads(self) -> nn.ModuleDict:
        """The memory; its centroids take the place of a classifier."""
        o = self.options
        return nn.ModuleDict({"memory": MemoryBank(self.config.network.dim, o)})

    @torch.no_grad()
    def begin_epoch(self, batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> None:
        """Cluster the codes; before the first epoch they come from a pass over all images."""
        o = self.options
        memory = self._memory()
        if not int(memory.epochs):
            for rows, view in batches():
                memory.fill(rows, functional.normalize(self.student(view).mean.float(), dim=1))
        memory.cluster(o, self.config.seed)

    def loss(self, first: Tensor, second: Tensor, noise: Tensor, rows: Tensor | None) -> StepOutput:
        """Views (B, S, S, 3) -> mean cross-entropy of the clusters, over views and clusterings."""
        o = self.options
        memory = self._memory()
        if rows is None:
            raise RuntimeError("DeepCluster V2 needs the rows of its batch")
        own, _ = self.encode(first, second)
        loss = own[0].mean.new_zeros((), dtype=torch.float32)
        with torch.autocast(first.device.type, enabled=False):
            for view, code in enumerate(own):
                unit = functional.normalize(code.mean.float(), dim=1)
                for head in range(o.heads):
                    scores = unit @ memory.centroids[head].T / o.temperature
                    loss = loss + functional.cross_entropy(scores, memory.labels[head, rows])
                memory.codes[view, rows] = unit.detach()
        return self.output(loss / (2 * o.heads), own)

    def _memory(self) -> MemoryBank:
        memory = self.heads["memory"]
        if not isinstance(memory, MemoryBank):
            raise TypeError(f"found {type(memory).__name__}, expected the memory of codes")
        return memory


METHOD = DeepClusterV2
