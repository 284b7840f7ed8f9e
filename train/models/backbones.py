"""Normalised pictures (B, 3, S, S) -> features (B, F): the backbone that a run's settings name.

This project's own are small: the basic-block ResNet of He et al. (2015) without its classifier, in
the stems that self-supervised work uses. All others come from `train.models.library_backbones`.
Shape letters: B batch, S side, F feature dimension.
"""

from __future__ import annotations

from torch import Tensor, nn

from train.models.library_backbones import USUAL_SIDE, build_outside, feature_dim
from train.settings.config import NetworkConfig

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet10": (1, 1, 1, 1), "resnet8": (1, 1, 1)}
"""Residual blocks per stage."""


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/stride, W/stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))
        return out


class Backbone(nn.Module):
    """A network up to its pooled features (B, F).

    The tensors of this project's own networks are named stem.* and blocks.*, those of an outside
    one model.*, followed by the name its library gives them.
    """

    model: nn.Module | None
    """An outside network; None for one of this project's own."""
    classifiers: tuple[str, ...]
    """Names under which its library keeps the classifier that was taken off."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self._keeps_statistics = False
        if config.backbone in BLOCKS:
            self.model, self.classifiers = None, ()
            self._build_residual(config)
        else:
            self._build_outside(USUAL_SIDE)

    def keep_statistics(self) -> None:
        """Let the norms keep the statistics they have, in training too."""
        self._keeps_statistics = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """Switch to training or evaluation; norms that keep their statistics stay in evaluation."""
        super().train(mode)
        if self._keeps_statistics:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def fit(self, side: int) -> None:
        """Make an untrained network one for pictures of this side, S.

        Raises InputError when it cannot take them.
        """
        if self.model is None:
            return
        if self._fixed_side and side != USUAL_SIDE:
            self._build_outside(side)
        else:
            feature_dim(self.config.backbone, self.config.stem, side)  # refuses what it cannot take

    def _build_outside(self, side: int) -> None:
        name, stem = self.config.backbone, self.config.stem
        self.feature_dim = feature_dim(name, stem, side)
        self.model, self.classifiers, self._fixed_side = build_outside(name, stem, side)

    def _build_residual(self, config: NetworkConfig) -> None:
        width = config.width
        # The small stem's padding of 2 is what the published small-image results use.
        kernel, stride, padding = {"small": (3, 1, 2), "medium": (3, 2, 1), "large": (7, 2, 3)}[config.stem]
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1) if config.stem == "large" else nn.Identity(),
        )
        blocks: list[nn.Module] = []
        inside = width
        for stage, count in enumerate(BLOCKS[config.backbone]):
            outside = width * 2**stage
            for block in range(count):
                stride = 2 if stage and not block else 1
                blocks.append(Block(inside, outside, stride))
                inside = outside
        self.blocks = nn.Sequential(*blocks)
        self.feature_dim = inside
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, F)."""
        if self.model is not None:
            found: Tensor = self.model(x)
            return found
        features: Tensor = self.blocks(self.stem(x)).mean(dim=(2, 3))
        return features
