"""MoCo V3's heads are those of the published settings: no bias anywhere, the projector's output normalised."""

from __future__ import annotations

import torch
from torch import nn

from train.methods import new_method
from train.settings.config import NetworkConfig, TrainConfig


def test_no_linear_layer_has_a_bias_and_the_last_norm_nothing_to_learn() -> None:
    network = NetworkConfig("resnet8", 8, "medium", 6, 16, 12, 12)
    with torch.device("meta"):
        method = new_method(TrainConfig(method="moco-v3", network=network))
    heads = [method.student.projector, method.heads["predictor"]]
    linear = [layer for head in heads for layer in head if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [
        (32, 16),
        (16, 6),
        (6, 12),
        (12, 6),
    ]
    assert all(layer.bias is None for layer in linear)
    assert [type(layer) for layer in heads[0]][-1] is nn.BatchNorm1d
    assert heads[0][-1].weight is None
    assert [type(layer) for layer in heads[1]][-1] is nn.Linear
