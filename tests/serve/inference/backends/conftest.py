"""What the tests of several engines share: a small convolutional model, and whether this CPU computes bf16."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serve.conv_model import conv_model


@pytest.fixture(scope="module")
def conv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return conv_model(tmp_path_factory.mktemp("compiled") / "conv.onnx")


def computes_bf16() -> bool:
    """Whether OpenVINO, which must be installed, computes bf16 on this CPU."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
