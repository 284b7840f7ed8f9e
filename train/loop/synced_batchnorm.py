"""A method's encoders -> encoders that see a share of the batch and answer for the whole of it.

Each process runs backbone and projector on its share, with batch norm over all shares; the
outputs are then gathered, so that heads, queues and loss work on the whole batch in every
process, exactly as they do in one. A loss may therefore compare any images of the batch, and no
method needs to know. The heads are computed `count` times over: a few percent of the backbone's
work. Shape letters: B batch of all processes, b share of one, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from train.methods.method import Method
from train.models.encoder import EncoderOutput
from train.state.distributed import ProcessGroup


class Sharing:
    """What the modules of one learner must know: the group, B, and whether an encoder is running."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self.total = 0
        """B inside `batch_of`, 0 outside."""
        self.inside = False
        self._weights: dict[tuple[int, torch.device], Tensor] = {}

    @contextmanager
    def batch_of(self, total: int) -> Iterator[None]:
        """Say that what the encoders see inside the `with` are shares of a batch of B = total images."""
        self.total = total
        try:
            yield
        finally:
            self.total = 0

    def weights(self, device: torch.device) -> Tensor:
        """Return the share of the batch that each process has, (count, 1); made once per size."""
        key = (self.total, device)
        if key not in self._weights:
            sizes = torch.tensor(self.group.sizes(self.total), device=device)
            self._weights[key] = sizes[:, None] / self.total
        return self._weights[key]


def share_batches(method: Method, group: ProcessGroup) -> Sharing:
    """Let the student and the teacher answer for the whole batch while they are trained.

    Training steps belong inside `batch_of` of the result. In eval mode nothing changes.
    """
    sharing = Sharing(group)

    def enter(encoder: nn.Module, images: tuple[Tensor, ...]) -> None:
        if not encoder.training:
            return
        share = group.local_slice(sharing.total)
        if len(images[0]) != share.stop - share.start:
            raise RuntimeError(f"found {len(images[0])} images, expected {share.stop - share.start}")
        sharing.inside = True

    def leave(encoder: nn.Module, images: tuple[Tensor, ...], output: EncoderOutput) -> EncoderOutput | None:
        if not encoder.training:
            return None
        sharing.inside = False
        raw = output.raw_variance
        return EncoderOutput(
            gather(output.features, sharing),
            gather(output.mean, sharing),
            None if raw is None else gather(raw, sharing),
        )

    for encoder in (method.student, method.teacher):
        if encoder is not None:
            _replace_norms(encoder, sharing)
            encoder.register_forward_pre_hook(enter)
            encoder.register_forward_hook(leave)
    return sharing


def gather(part: Tensor, sharing: Sharing) -> Tensor:
    """Put this process's rows among all others': (b, ...) -> (B, ...).

    The gradient of a row goes to the process it came from, once: every process computes the
    whole loss, so its own copy of the gradient is already complete.
    """
    gathered: Tensor = _Gather.apply(part, sharing)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, sharing: Sharing) -> Tensor:
        ctx.share = sharing.group.local_slice(sharing.total)
        # A sum with zeros is exact and needs no equal shares.
        whole = torch.zeros(sharing.total, *part.shape[1:], device=part.device)
        whole[ctx.share] = part.float()
        distributed.all_reduce(whole)
        return whole.to(part.dtype)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return slope[ctx.share], None


class _Exchange(torch.autograd.Function):
    """Each process's row among all others', (C,) -> (count, C); the gradients of all are added up."""

    @staticmethod
    def forward(ctx: Any, row: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        rows = torch.zeros(group.count, *row.shape, device=row.device)
        rows[group.rank] = row
        distributed.all_reduce(rows)
        return rows

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        slope = slope.clone(memory_format=torch.contiguous_format)  # autograd's own may be used elsewhere
        distributed.all_reduce(slope)
        return slope[ctx.group.rank], None


class SharedNorm(_BatchNorm):
    """Batch norm over all shares of a batch, where an encoder is running on its share.

    torch's own SyncBatchNorm runs on GPUs only. Each process's mean and variance are exchanged
    and combined by their counts (Chan et al. 1979), so that no squares of large numbers are
    subtracted. The state is that of the norm it replaces.
    """

    sharing: Sharing

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """(b, C, ...) -> the same shape and type."""
        if not (self.training and self.sharing.inside):
            normed: Tensor = super().forward(x)
            return normed
        group, total = self.sharing.group, self.sharing.total
        over = [dim for dim in range(x.ndim) if dim != 1]
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float()
            own = torch.stack([wide.mean(dim=over), wide.var(dim=over, correction=0)])
            means, variances = _Exchange.apply(own, group).unbind(dim=1)
            weights = self.sharing.weights(x.device)
            mean = (weights * means).sum(dim=0)
            variance = (weights * (variances + (means - mean).square())).sum(dim=0)
            self._follow(mean.detach(), variance.detach(), total * x[0, 0].numel())
            shape = [1, -1] + [1] * (x.ndim - 2)
            scale = torch.rsqrt(variance + self.eps)
            if self.affine:
                scale = scale * self.weight
            result = (wide - mean.view(shape)) * scale.view(shape)
            if self.affine:
                result = result + self.bias.view(shape)
            narrowed: Tensor = result.to(x.dtype)
        return narrowed

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics, of the unbiased variance as torch does."""
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1


class SharedNormAct(SharedNorm):
    """The same for timm's batch norms that end with an activation of their own, `drop` and `act`."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, C, ...) -> the same shape and type."""
        activated: Tensor = self.get_submodule("act")(self.get_submodule("drop")(super().forward(x)))
        return activated


def _replace_norms(module: nn.Module, sharing: Sharing) -> None:
    """Put a SharedNorm with the same state in the place of every batch norm inside."""
    for child in module.children():
        if isinstance(child, _BatchNorm):
            # The class alone changes: parameters stay the objects that an optimiser may know.
            inner = {name for name, _ in child.named_children()}
            child.__class__ = SharedNormAct if {"act", "drop"} <= inner else SharedNorm
            cast(SharedNorm, child).sharing = sharing
        else:
            _replace_norms(child, sharing)
