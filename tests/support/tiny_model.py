"""A real, tiny ONNX model with card and golden pair, built without torch.

Average-pools the image to 4 x 4 x 3, then a fixed random linear map; the variance is the
exponential of another, clipped. It is no stub: it computes a Gaussian from the pixels.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from vssl.images.preprocess import Preprocess
from vssl.model.card import (
    CARD_KEY,
    GOLDEN_KEY,
    PREDICTED_UNCERTAINTY,
    UNCERTAINTY,
    Calibration,
    ModelCard,
    UncertaintyFit,
)
from vssl.model.golden import Golden, golden_images
from vssl.model.seal import sealed


def tiny_model(
    path: Path,
    *,
    size: int = 16,
    dim: int = 8,
    seed: int = 0,
    calibration: str = "fitted-head",
    predicts: bool = False,
) -> Path:
    """Write the model to `path` and return it; another seed is another model.

    predicts: whether it has the output `uncertainty`, the mean brightness of the image here.
    """
    random = np.random.default_rng(seed)
    weights = {
        "w_mean": random.normal(0, 0.3, (48, dim)).astype(np.float32),
        "w_var": random.normal(0, 0.02, (48, dim)).astype(np.float32),
        "b_var": np.full(dim, -4.0, np.float32),
        "scale": np.array(1 / 255, np.float32),
        "half": np.array(0.5, np.float32),
        "low": np.array(-12.0, np.float32),
        "high": np.array(4.0, np.float32),
    }
    pool = size // 4
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["unit"]),
        helper.make_node("Sub", ["unit", "half"], ["centred"]),
        helper.make_node("Transpose", ["centred"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool", ["nchw"], ["pooled"], kernel_shape=[pool, pool], strides=[pool, pool]
        ),
        helper.make_node("Flatten", ["pooled"], ["features"], axis=1),
        helper.make_node("MatMul", ["features", "w_mean"], ["mean"]),
        helper.make_node("Gemm", ["features", "w_var", "b_var"], ["log_raw"]),
        helper.make_node("Clip", ["log_raw", "low", "high"], ["log_variance"]),
        helper.make_node("Exp", ["log_variance"], ["variance"]),
    ]
    outputs = [("mean", dim), ("variance", dim), ("features", 48)]
    shapes = {name: [width] for name, width in outputs}
    if predicts:
        weights["pixels"] = np.array([1, 2, 3], np.int64)
        nodes.append(helper.make_node("ReduceMean", ["unit", "pixels"], ["uncertainty"], keepdims=0))
        shapes["uncertainty"] = []
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", size, size, 3])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", *shape]) for n, shape in shapes.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    images = golden_images(size)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    golden = Golden(images, *session.run(list(shapes), {"images": images}))
    card = ModelCard(
        name=f"tiny-{seed}",
        method="none",
        backbone="average-pool",
        space="projector",
        dim=dim,
        feature_dim=48,
        preprocess=Preprocess(size=size, resize=size),
        calibration=Calibration(calibration),
        uncertainty=PREDICTED_UNCERTAINTY if predicts else UNCERTAINTY,
        uncertainty_fit=UncertaintyFit(images=0) if predicts else None,
    )
    helper.set_model_props(model, {CARD_KEY: card.to_json(), GOLDEN_KEY: golden.to_json()})
    path.write_bytes(sealed(model.SerializeToString()))
    return path


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> np.ndarray:
    """Return a smooth random RGB picture (height, width, 3) uint8; near seeds are unrelated."""
    random = np.random.default_rng(int(hashlib.sha256(str(seed).encode()).hexdigest()[:8], 16))
    width, height = size
    y, x = np.mgrid[0:height, 0:width] / max(size)
    waves = 127 + 90 * np.sin(random.uniform(0, 6, 3) + random.uniform(2, 9, 3) * np.stack([x, y, x - y], -1))
    return np.clip(waves + random.normal(0, 8, waves.shape), 0, 255).astype(np.uint8)
