"""Buffers that stay on the device: the same answers as a plain run, from any thread. Bound to CPU memory here."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from serve.inference.backends.io_binding import BoundRuns
from serve.inference.backends.onnxruntime import LocalGraph
from serve.inference.backends.session import load_session
from tests.serve.conv_model import conv_model
from vssl.model.card import CARD_KEY, ModelCard


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> ort.InferenceSession:
    path = conv_model(tmp_path_factory.mktemp("bound") / "model.onnx")
    return load_session(path.read_bytes(), path, ["CPUExecutionProvider"], 1)


@pytest.fixture(scope="module")
def card(session: ort.InferenceSession) -> ModelCard:
    return ModelCard.from_json(session.get_modelmeta().custom_metadata_map[CARD_KEY])


def images(card: ModelCard, count: int, seed: int) -> np.ndarray:
    side = card.preprocess.size
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def bound(session: ort.InferenceSession, card: ModelCard) -> BoundRuns:
    return BoundRuns(session, card.output_shapes, "cpu")


@pytest.mark.parametrize("count", [1, 2, 8])
def test_bound_runs_answer_as_plain_ones(session: ort.InferenceSession, card: ModelCard, count: int) -> None:
    runs = bound(session, card)
    for seed in range(3):  # the second and third go through the buffers of the first
        batch = images(card, count, seed)
        answers = session.run(list(card.output_shapes), {"images": batch})
        for found, expected in zip(runs.run(batch), answers, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_answers_outlive_the_next_run(session: ort.InferenceSession, card: ModelCard) -> None:
    runs = bound(session, card)
    first = runs.run(images(card, 2, 0))
    kept = [array.copy() for array in first]
    runs.run(images(card, 2, 1))
    for array, before in zip(first, kept, strict=True):
        np.testing.assert_array_equal(array, before)


def test_images_need_not_lie_together_in_memory(session: ort.InferenceSession, card: ModelCard) -> None:
    batch = images(card, 4, 5)[::2]
    assert not batch.flags.c_contiguous
    (mean, *_) = bound(session, card).run(batch)
    np.testing.assert_array_equal(mean, session.run(["mean"], {"images": np.ascontiguousarray(batch)})[0])


def test_callers_at_the_same_time_do_not_share_buffers(
    session: ort.InferenceSession, card: ModelCard
) -> None:
    runs = bound(session, card)
    batches = [images(card, 2, seed) for seed in range(64)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(runs.run, batches))
    for batch, (mean, *_) in zip(batches, answers, strict=True):
        np.testing.assert_array_equal(mean, session.run(["mean"], {"images": batch})[0])


def test_a_graph_on_the_cpu_runs_unbound(
    session: ort.InferenceSession, card: ModelCard, tmp_path: Path
) -> None:
    graph = LocalGraph(tmp_path / "model.onnx", session, card, 1)
    assert graph._bound is None
    assert (graph.engine, graph.precision, graph.on_gpu) == ("onnxruntime", None, False)
