"""The engine: one model file, the same numbers for an image whatever else is in the batch."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from serve.inference.backends.onnxruntime import into_buckets
from serve.inference.engine import Engine
from tests.serve.conv_model import conv_model
from tests.support.tiny_model import picture, tiny_model
from vssl.errors import FormatError, ImageError, InputError
from vssl.images.preprocess import load_image
from vssl.model.card import CARD_KEY, GOLDEN_KEY, ModelCard
from vssl.model.seal import SEAL_KEY, sealed


@pytest.fixture(scope="module")
def conv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return conv_model(tmp_path_factory.mktemp("conv") / "model.onnx")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model.onnx")


def encoded(seed: int, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(seed)).save(file, kind)
    return file.getvalue()


def rewrite(path: Path, change: object) -> Path:
    """Load the model, apply `change(model, properties)`, seal and save it again."""
    model = onnx.load(str(path))
    properties = {p.key: p.value for p in model.metadata_props if p.key != SEAL_KEY}
    change(model, properties)  # type: ignore[operator]
    helper.set_model_props(model, properties)
    path.write_bytes(sealed(model.SerializeToString()))
    return path


def test_the_model_id_is_the_sha256_of_the_file(tiny: Path) -> None:
    engine = Engine.open(tiny)
    assert engine.model_id == hashlib.sha256(tiny.read_bytes()).hexdigest()
    assert (engine.card.name, engine.source, engine.providers) == (
        "tiny-0",
        str(tiny),
        ["CPUExecutionProvider"],
    )


def test_it_answers_its_golden_pair(conv: Path) -> None:
    assert Engine.open(conv, check=False).check_golden() <= 1e-5


def test_outputs_have_the_cards_widths(conv: Path) -> None:
    out = Engine.open(conv).infer(np.zeros((5, 32, 32, 3), np.uint8))
    assert out.gaussians.mean.shape == out.gaussians.variance.shape == (5, 16)
    assert out.features.shape == (5, 32)
    assert len(Engine.open(conv).infer(np.zeros((0, 32, 32, 3), np.uint8))) == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_an_image_does_not_depend_on_its_batch(conv: Path, threads: int) -> None:
    engine = Engine.open(conv, threads=threads)
    images = np.random.default_rng(0).integers(0, 256, (45, 32, 32, 3), dtype=np.uint8)
    together = engine.run(images)
    alone = [
        np.concatenate(parts)
        for parts in zip(*(engine.run(images[i : i + 1]) for i in range(45)), strict=True)
    ]
    reversed_order = [values[::-1] for values in engine.run(np.ascontiguousarray(images[::-1]))]
    for whole, single, backwards in zip(together, alone, reversed_order, strict=True):
        np.testing.assert_allclose(single, whole, rtol=0, atol=1e-6)
        np.testing.assert_allclose(backwards, whole, rtol=0, atol=1e-6)


def test_threads_share_one_engine(conv: Path) -> None:
    engine = Engine.open(conv, threads=1)
    images = [np.random.default_rng(i).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8) for i in range(12)]
    expected = [engine.run(batch)[0] for batch in images]
    with ThreadPoolExecutor(4) as pool:
        found = [out[0] for out in pool.map(engine.run, images)]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("total", [0, 1, 2, 7, 8, 9, 31, 100])
def test_batches_cover_every_row_once_in_known_sizes(total: int, pad: bool) -> None:
    cuts = list(into_buckets(total, (1, 2, 4, 8), pad=pad))
    assert [row for start, stop, _ in cuts for row in range(start, stop)] == list(range(total))
    assert all(bucket in (1, 2, 4, 8) and stop - start <= bucket for start, stop, bucket in cuts)
    if not pad:
        assert all(stop - start == bucket for start, stop, bucket in cuts)
    else:
        assert len(cuts) == -(-total // 8)


def test_one_bad_image_never_fails_its_neighbours(tiny: Path) -> None:
    engine = Engine.open(tiny)
    good = [encoded(0), encoded(1, "jpeg")]
    answers = engine.embed([good[0], b"not an image", good[1], b"", good[1][:200]])
    assert [getattr(a, "code", "ok") for a in answers] == [
        "ok",
        "unsupported_type",
        "ok",
        "empty",
        "undecodable",
    ]
    for answer, data in zip((answers[0], answers[2]), good, strict=True):
        assert not isinstance(answer, ImageError)
        alone = engine.infer(load_image(data, engine.card.preprocess)[None])
        np.testing.assert_allclose(answer.mean, alone.gaussians.mean[0], atol=1e-6)
        np.testing.assert_allclose(answer.variance, alone.gaussians.variance[0], atol=1e-6)
        np.testing.assert_allclose(answer.features, alone.features[0], atol=1e-6)
        assert answer.uncertainty == pytest.approx(float(alone.gaussians.uncertainty[0]), abs=1e-6)
    assert [getattr(a, "code", "ok") for a in engine.embed([b"", b"x"])] == ["empty", "unsupported_type"]
    assert len(engine.embed([])) == 0


def test_an_image_the_model_cannot_place_is_an_error_of_its_own(tiny: Path) -> None:
    """A graph whose mean overflows for bright images only."""

    def overflow(model: onnx.ModelProto, _: dict[str, str]) -> None:
        # exp(200 * positive brightness) overflows float32; darkness stays finite
        for node in model.graph.node:
            node.output[:] = ["bounded" if name == "mean" else name for name in node.output]
        model.graph.initializer.append(numpy_helper.from_array(np.array(300.0, np.float32), "gain"))
        model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
        model.graph.node.extend(
            [
                helper.make_node("ReduceMean", ["features", "axis"], ["bright"], keepdims=1),
                helper.make_node("Mul", ["bright", "gain"], ["loud"]),
                helper.make_node("Exp", ["loud"], ["huge"]),
                helper.make_node("Add", ["bounded", "huge"], ["mean"]),
            ]
        )

    engine = Engine.open(rewrite(tiny, overflow), check=False)
    dark, bright = np.full((16, 16, 3), 10, np.uint8), np.full((16, 16, 3), 250, np.uint8)
    answers = engine.embed_pixels([dark, bright, dark])
    assert [getattr(a, "code", "ok") for a in answers] == ["ok", "no_embedding", "ok"]
    with pytest.raises(InputError, match="NaN or infinity"):
        engine.infer(np.stack([dark, bright]))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 16, 16, 3), np.float32),
        np.zeros((16, 16, 3), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros((2, 3, 16, 16), np.uint8),
    ],
)
def test_pixels_of_another_form_are_refused(tiny: Path, images: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"expected uint8 of shape \(N, 16, 16, 3\)"):
        Engine.open(tiny).infer(images)


class TestRefusals:
    def test_an_absent_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"No such file.*vssl export RUN model.onnx"):
            Engine.open(tmp_path / "model.onnx")

    def test_a_file_that_is_no_model(self, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").write_bytes(b"hello")
        with pytest.raises(FormatError, match=r"not an ONNX model.*vssl export RUN model.onnx"):
            Engine.open(tmp_path / "model.onnx")

    @pytest.mark.parametrize(("key", "what"), [(CARD_KEY, "model card"), (GOLDEN_KEY, "golden pair")])
    def test_a_model_that_is_not_ours(self, tiny: Path, key: str, what: str) -> None:
        rewrite(tiny, lambda _, properties: properties.pop(key))
        with pytest.raises(FormatError, match=f"carries no {what}; export it with: vssl export RUN"):
            Engine.open(tiny)

    def test_damaged_weights(self, tiny: Path) -> None:
        def damage(model: onnx.ModelProto, _: dict[str, str]) -> None:
            tensor = next(t for t in model.graph.initializer if t.name == "w_mean")
            values = numpy_helper.to_array(tensor).copy()
            values[0, 0] += 0.5
            tensor.CopyFrom(numpy_helper.from_array(values, "w_mean"))

        with pytest.raises(FormatError, match="golden pair: mean differs"):
            Engine.open(rewrite(tiny, damage))
        assert Engine.open(tiny, check=False).card.dim == 8

    @pytest.mark.parametrize("field", ["dim", "feature_dim"])
    def test_a_card_of_another_width(self, tiny: Path, field: str) -> None:
        def widen(_: onnx.ModelProto, properties: dict[str, str]) -> None:
            properties[CARD_KEY] = replace(ModelCard.from_json(properties[CARD_KEY]), **{field: 9}).to_json()

        with pytest.raises(FormatError, match="its card says"):
            Engine.open(rewrite(tiny, widen))

    def test_another_input_or_output(self, tiny: Path) -> None:
        def rename(model: onnx.ModelProto, _: dict[str, str]) -> None:
            model.graph.output.pop()

        with pytest.raises(
            FormatError, match="expected the input images and the outputs mean, variance, features"
        ):
            Engine.open(rewrite(tiny, rename))

    def test_a_float_input(self, tiny: Path) -> None:
        def floats(model: onnx.ModelProto, _: dict[str, str]) -> None:
            model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT

        with pytest.raises(FormatError, match=r"images is tensor\(float\).*its card says tensor\(uint8\)"):
            Engine.open(rewrite(tiny, floats))

    def test_a_fixed_batch(self, tiny: Path) -> None:
        def fix(model: onnx.ModelProto, _: dict[str, str]) -> None:
            for tensor in (*model.graph.input, *model.graph.output):
                tensor.type.tensor_type.shape.dim[0].dim_value = 3

        with pytest.raises(FormatError, match="batches of 3 only"):
            Engine.open(rewrite(tiny, fix))

    def test_a_card_of_another_version(self, tiny: Path) -> None:
        def age(_: onnx.ModelProto, properties: dict[str, str]) -> None:
            properties[CARD_KEY] = json.dumps(json.loads(properties[CARD_KEY]) | {"format": 99})

        with pytest.raises(FormatError, match="found format 99"):
            Engine.open(rewrite(tiny, age))

    @pytest.mark.skipif(
        "CUDAExecutionProvider" in __import__("onnxruntime").get_available_providers(), reason="CUDA is here"
    )
    def test_cuda_that_is_not_there(self, tiny: Path) -> None:
        with pytest.raises(InputError, match=r"expected CUDAExecutionProvider.*vssl\[gpu\]"):
            Engine.open(tiny, device="cuda")

    def test_an_unknown_device_is_refused(self, tiny: Path) -> None:
        with pytest.raises(InputError, match="found 'tpu', expected one of auto, cpu, cuda"):
            Engine.open(tiny, device="tpu")

    def test_no_threads(self, tiny: Path) -> None:
        with pytest.raises(InputError, match="found 0, expected at least 1"):
            Engine.open(tiny, threads=0)


def test_a_fresh_process_loads_no_torch(tiny: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from serve.inference.engine import Engine; "
        f"Engine.open(Path({str(tiny)!r})); sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_whose_bytes_changed_after_export_is_refused_even_when_it_computes_the_same(
    tiny: Path,
) -> None:
    tiny.write_bytes(tiny.read_bytes().replace(b'"licence": "unspecified"', b'"licence": "Apache-2.0!"'))
    for check in (True, False):
        with pytest.raises(FormatError, match=r"do not fit its seal.*vssl export"):
            Engine.open(tiny, check=check)


def test_a_predicted_uncertainty_reaches_every_answer(tmp_path: Path) -> None:
    """The model's own is the mean brightness, which no Gaussian could tell."""
    engine = Engine.open(tiny_model(tmp_path / "predicts.onnx", predicts=True))
    pixels = [load_image(encoded(n), engine.card.preprocess) for n in range(3)]
    expected = [float(p.mean() / 255) for p in pixels]
    broken = ImageError("undecodable", "no picture")
    answers = engine.embed_pixels([pixels[0], broken, *pixels[1:]])
    good = [a for a in answers if not isinstance(a, ImageError)]
    assert [a.uncertainty for a in good] == pytest.approx(expected, abs=1e-5)
    assert answers.gaussians.uncertainty.tolist() == pytest.approx(expected, abs=1e-5)
    assert engine.infer(np.stack(pixels)).gaussians.uncertainty.tolist() == pytest.approx(expected, abs=1e-5)
