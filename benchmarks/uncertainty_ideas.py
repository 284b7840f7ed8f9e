"""Pictures -> what an encoder says of them, and what is fitted on that to be an uncertainty: the parts of ideas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from export.calibration.head import CalibrationConfig, fit_head
from export.calibration.uncertainty import fit_uncertainty
from export.calibration.view_statistics import ViewStatistics, view_statistics
from export.served_encoder import ServedMean, UncertaintyHead, VarianceHead, head_inputs
from train.augment.views import Views
from train.evaluation.monitor import embed
from train.models.encoder import Encoder, EncoderOutput
from vssl.embeddings.gaussian import GaussianEmbedding

Doubles = NDArray[np.float64]


class Shown(NamedTuple):
    """What an encoder says of pictures: features (N, F), mean (N, D), raw variance, the head's inputs (N, P)."""

    features: Tensor
    mean: Tensor
    raw_variance: Tensor | None
    inputs: Tensor


Idea = Callable[[Shown], Doubles]


def show(encoder: Encoder, images: NDArray[np.uint8]) -> Shown:
    """Embed pictures (N, S, S, 3)."""
    output = embed(encoder, images, torch.device("cpu"))
    return Shown(*output, head_inputs(output.features, torch.from_numpy(np.ascontiguousarray(images))))


@dataclass(frozen=True, eq=False)
class Fitted:
    """What the ideas are made of: what is served of an encoder as mean, variance and uncertainty."""

    served: ServedMean
    variance: VarianceHead
    uncertainty: UncertaintyHead | None = None

    def mean(self, output: Shown) -> Tensor:
        """(N, D)."""
        with torch.inference_mode():
            found: Tensor = self.served(EncoderOutput(output.features, output.mean, None))
        return found.clone()

    def gaussians(self, output: Shown) -> GaussianEmbedding:
        """What would be served."""
        mean = self.mean(output)
        with torch.inference_mode():
            return GaussianEmbedding(mean.numpy(), self.variance(output.inputs, mean).numpy())


def fit(
    encoder: Encoder,
    views: Views,
    images: NDArray[np.uint8],
    served: ServedMean,
    config: CalibrationConfig,
) -> tuple[Fitted, ViewStatistics]:
    """Calibrate as export does; returns the statistics too, which other ideas are fitted on."""
    good, bad = view_statistics(
        encoder, views, images, served, count=config.views, worse=config.worse, seed=1, size=encoder.size
    )
    uncertainty = fit_uncertainty(good, bad, space=served.space)
    return Fitted(served, fit_head(good, bad, config), uncertainty), good


def regression(features: Tensor, target: Tensor, seed: int = 0, epochs: int = 60) -> nn.Module:
    """Fit a two-layer map (N, F) -> (N,) by squared error; the best epoch on a held-out quarter stays."""
    torch.manual_seed(seed)
    mean, deviation = features.mean(0), features.std(0).clamp_min(1e-6)
    net = nn.Sequential(nn.Linear(features.shape[1], 256), nn.SiLU(), nn.Linear(256, 1))
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.3)
    inputs, order = (features - mean) / deviation, torch.randperm(len(features))
    held, rest = order[: len(order) // 4], order[len(order) // 4 :]
    best, kept = float("inf"), net.state_dict()
    for _ in range(epochs):
        for rows in torch.split(rest[torch.randperm(len(rest))], 128):
            optimiser.zero_grad()
            functional.mse_loss(net(inputs[rows])[:, 0], target[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.inference_mode():
            loss = float(functional.mse_loss(net(inputs[held])[:, 0], target[held]))
        if loss < best:
            best, kept = loss, {k: v.clone() for k, v in net.state_dict().items()}
    net.load_state_dict(kept)

    class Standardised(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = net((x - mean) / deviation)[:, 0]
            return out

    return Standardised()


def applied(net: nn.Module) -> Idea:
    """Read a map of features as an uncertainty."""

    def idea(output: Shown) -> Doubles:
        with torch.inference_mode():
            found: Doubles = net(output.features).double().numpy()
        return found

    return idea


def view_codes(
    encoder: Encoder, views: Views, images: NDArray[np.uint8], served: ServedMean, seed: int
) -> Tensor:
    """One view of each image, embedded: (N, D)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        parts = [
            served(encoder(views(part.float(), generator)))
            for part in torch.split(torch.from_numpy(np.ascontiguousarray(images)), 256)
        ]
    return torch.cat(parts)


def retrieval_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """How badly one view finds the other among all: cross-entropy of each image, (N,)."""
    a, b = functional.normalize(first, dim=1), functional.normalize(second, dim=1)
    scores = a @ b.T / temperature
    return functional.cross_entropy(scores, torch.arange(len(a)), reduction="none")


def neighbour_distance(mean: Tensor, others: Tensor, count: int = 50, skip: int = 0) -> Tensor:
    """1 - mean cosine to the nearest `count` of the others, without the `skip` nearest: (N,)."""
    unit, rest = functional.normalize(mean, dim=1), functional.normalize(others, dim=1)
    best = [(part @ rest.T).topk(count + skip).values[:, skip:].mean(1) for part in torch.split(unit, 1024)]
    return 1 - torch.cat(best)


def own_variance(output: Shown, read: Callable[[Tensor], Tensor], mean: Tensor) -> Doubles:
    """Expected cosine spread of the method's own variance head, read as a positive number."""
    assert output.raw_variance is not None
    variance = read(output.raw_variance.clamp(-20, 20)).clamp_min(1e-12)
    return GaussianEmbedding(mean.numpy(), variance.numpy()).uncertainty.astype(np.float64)
