"""Parameters and a config -> an optimiser, and the learning rate of each step.

LARS follows You et al. (2017) in the form that small-image self-supervision uses: layer-wise
rates clipped at 1, tensors of one dimension left out of both the scaling and the decay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from train.settings.config import OptimiserConfig


class Lars(torch.optim.Optimizer):
    """SGD with momentum whose step for each weight matrix is scaled by |w| / |gradient|.

    For tensors of two or more dimensions: local = trust * |w| / (|g| + decay * |w| + 1e-8),
    capped so that lr * local never exceeds lr; the update is (g + decay * w) * local, then
    heavy-ball momentum. Biases and norm parameters get plain momentum SGD without decay.

    All tensors of a group are changed by one operation at a time (`torch._foreach_*`, which torch's own
    optimisers are made of): in a loop over tensors, launching the operations takes a GPU longer than
    computing them.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, momentum: float, weight_decay: float, trust: float = 0.02
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient. A closure is not used."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            matrices = [weight for weight in weights if weight.ndim > 1]
            vectors = [weight for weight in weights if weight.ndim <= 1]
            updates = self._scaled(matrices, group) + [weight.grad for weight in vectors]
            buffers = [self._buffer(weight) for weight in matrices + vectors]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, updates)
            torch._foreach_add_(matrices + vectors, buffers, alpha=-group["lr"])

    @staticmethod
    def _scaled(weights: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Return (g + decay * w) * local for each weight matrix."""
        if not weights:
            return []
        lr, decay = group["lr"], group["weight_decay"]
        slopes = [weight.grad for weight in weights if weight.grad is not None]
        size, slope = (torch.stack(torch._foreach_norm(tensors)) for tensors in (weights, slopes))
        local = group["trust"] * size / (slope + decay * size + 1e-8)
        if lr > 0:
            local = (local / lr).clamp(max=1.0)
        # A weight of zeros has no ratio and takes the plain step; a gradient of zeros takes none.
        local = torch.where(size > 0, local, 1.0) * (slope > 0)
        updates = torch._foreach_add(slopes, weights, alpha=decay)
        torch._foreach_mul_(updates, list(local.unbind()))
        return list(updates)

    def _buffer(self, weight: Tensor) -> Tensor:
        """Return the momentum buffer of a weight, zeros before its first step."""
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def build_optimiser(
    modules: Iterable[nn.Module],
    config: OptimiserConfig,
    constant: nn.Module | None = None,
    backbone: nn.Module | None = None,
) -> torch.optim.Optimizer:
    """Build the optimiser over the trainable parameters of the modules.

    Tensors of one dimension (biases, batch norm) are not decayed by LARS and AdamW; SGD decays
    every tensor, as in the published SGD settings of MoCo V2+, ReSSL and SimSiam. The groups of the
    module `constant`, one of them or a part of one, are marked `constant`; those of `backbone` learn at their own share
    of the rate.
    """
    steady = set() if constant is None else set(constant.parameters())
    slow = set() if backbone is None or config.backbone_lr == 1.0 else set(backbone.parameters())
    weights = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = []
    for chosen, mark in (
        ([p for p in weights if p not in steady and p not in slow], {}),
        ([p for p in weights if p in steady], {"constant": True}),
        ([p for p in weights if p in slow], {"share": config.backbone_lr}),
    ):
        if config.name == "lars" and chosen:
            groups.append({"params": chosen, **mark})
        elif chosen:
            decayed, plain = ([p for p in chosen if (p.ndim > 1) == wide] for wide in (True, False))
            groups.append({"params": decayed, "weight_decay": config.weight_decay, **mark})
            plain_decay = config.weight_decay if config.name == "sgd" else 0.0
            groups.append({"params": plain, "weight_decay": plain_decay, **mark})
    if config.name == "lars":
        return Lars(groups, config.lr, config.momentum, config.weight_decay)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.lr)


def build_classifier_optimiser(classifier: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Build the online classifier's optimiser: the encoder's kind, without weight decay.

    In the published protocol the classifier is one more group of the encoder's LARS or SGD, so its
    weight matrix is scaled by LARS too. With AdamW the classifier learns by SGD, whose rates suit it. The
    rate is set at every step.
    """
    if config.name == "lars":
        return Lars(classifier.parameters(), 0.0, config.momentum, 0.0)
    return torch.optim.SGD(classifier.parameters(), lr=0.0, momentum=config.momentum)


def set_rate(optimiser: torch.optim.Optimizer, rate: float, peak: float) -> None:
    """Give every group the rate of the step, and those marked `constant` the peak."""
    for group in optimiser.param_groups:
        group["lr"] = peak if group.get("constant") else rate * group.get("share", 1.0)


def learning_rate(config: OptimiserConfig, batch: int, step: int, steps_per_epoch: int, total: int) -> float:
    """Return the rate of a step (0 <= step < total): linear warm-up, then half a cosine.

    The configured rates are those of a batch of 256 and grow linearly with `batch`. The
    warm-up takes at most a fifth of a short run.
    """
    scale = batch / 256.0
    peak, final = config.lr * scale, config.final_lr * scale
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total // 5)
    if step < warmup:
        start = min(config.warmup_lr, peak)
        return start + (peak - start) * step / max(warmup - 1, 1)
    progress = (step - warmup) / max(total - warmup, 1)
    return final + (peak - final) * 0.5 * (1.0 + math.cos(math.pi * progress))
