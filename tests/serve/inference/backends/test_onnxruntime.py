"""Runs at the same time: the first has all the cores, who comes meanwhile has one, and all answer alike."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from serve.inference.backends.onnxruntime import LocalGraph
from serve.inference.backends.session import load_session
from serve.inference.engine import Engine
from tests.serve.conv_model import conv_model
from vssl.model.card import CARD_KEY, ModelCard


class Watched:
    """A real session that notes its runs, and waits in each until it may go on."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self.session, self.runs = session, 0
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def run(self, *arguments: Any) -> Any:
        self.runs += 1
        self.begun.set()
        assert self.go_on.wait(60)
        return self.session.run(*arguments)

    def get_providers(self) -> list[str]:
        providers: list[str] = self.session.get_providers()
        return providers


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return conv_model(tmp_path_factory.mktemp("graph") / "model.onnx")


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def watched(model: Path) -> tuple[LocalGraph, Watched, Watched]:
    wide, narrow = (
        Watched(load_session(model.read_bytes(), model, ["CPUExecutionProvider"], threads))
        for threads in (2, 1)
    )
    card = ModelCard.from_json(wide.session.get_modelmeta().custom_metadata_map[CARD_KEY])
    return LocalGraph(model, wide, card, 2, narrow=narrow), wide, narrow  # type: ignore[arg-type]


def test_runs_one_after_the_other_have_all_the_cores(model: Path) -> None:
    graph, wide, narrow = watched(model)
    for _ in range(3):
        graph.run(pictures(1))
    assert (wide.runs, narrow.runs, graph.lanes) == (3, 0, 2)


def test_a_run_during_another_has_one_core(model: Path) -> None:
    graph, wide, narrow = watched(model)
    wide.go_on.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(graph.run, pictures(2))
        assert wide.begun.wait(60)
        second = graph.run(pictures(2))
        assert (wide.runs, narrow.runs) == (1, 1)
        wide.go_on.set()
        for one, other in zip(first.result(), second, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    graph.run(pictures(1))  # alone again
    assert (wide.runs, narrow.runs) == (2, 1)


def test_a_run_with_others_behind_it_has_one_core(model: Path) -> None:
    graph, wide, narrow = watched(model)
    graph.run(pictures(1), more_waiting=True)
    assert (wide.runs, narrow.runs) == (0, 1)
    graph.run(pictures(1))
    assert (wide.runs, narrow.runs) == (1, 1)


def test_a_run_that_fails_is_no_longer_counted(model: Path) -> None:
    graph, wide, narrow = watched(model)
    with pytest.raises(Exception, match="Unexpected input data type"):
        graph.run(pictures(1).astype(np.float32))  # type: ignore[arg-type]
    graph.run(pictures(1))
    assert (wide.runs, narrow.runs) == (2, 0)


def test_without_a_second_session_runs_have_one_lane(model: Path) -> None:
    assert Engine.open(model, threads=2).graph.lanes == 1
    assert Engine.open(model, threads=2, concurrent=True).graph.lanes == 2
    assert Engine.open(model, threads=1, concurrent=True).graph.lanes == 1


def test_many_callers_get_the_answers_of_one(model: Path) -> None:
    engine = Engine.open(model, threads=2, concurrent=True)
    batches = [pictures(3, seed) for seed in range(40)]
    expected = [Engine.open(model, threads=1).run(batch) for batch in batches[:5]]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(engine.run, batches))
    for one, other in zip(expected, answers, strict=False):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
