"""A copy on a device only proposes: answers stay those of brute force, and what it cannot do the CPU does.

There is no GPU here: a second index in memory stands where the copy on one would, so that everything
around it is tried; the transfer itself and a GPU's arithmetic are not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from benchmarks.regimes import gaussians
from index.gallery.folder.gallery import FolderGallery
from index.search import gpu
from index.search.exact import ExactIndex
from index.search.gpu import FORCED, Copy, checked_device, gpus
from tests.index.samples import MODEL, card, sample
from tests.index.search.test_exact import assert_same, brute_force
from vssl.errors import InputError

ITEMS, QUERIES = gaussians(900, 24), gaussians(40, 24, seed=1)


class Recorded:
    """A copy that counts what it is asked."""

    def __init__(self, index: Any) -> None:
        self.index = faiss.clone_index(index)
        self.asked: list[tuple[int, int]] = []

    def search(self, queries: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append((len(queries), length))
        found: tuple[np.ndarray, np.ndarray] = self.index.search(queries, length)
        return found


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    """Copies that were made, in order; each forgets what it was probed with."""
    made: list[Recorded] = []

    def copied(index: Any) -> tuple[Any, Any]:
        made.append(Recorded(index))
        return made[-1], None

    monkeypatch.setattr(gpu, "copy_to_gpu", copied)
    monkeypatch.setattr(gpu, "gpus", lambda: 1)
    return made


def test_this_faiss_has_no_gpu_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    if gpus():
        pytest.skip("a GPU is visible")
    assert [checked_device(device) for device in ("auto", "cpu")] == ["auto", "cpu"]
    with pytest.raises(InputError, match=r"device cuda: this faiss .* or use --device cpu"):
        checked_device("cuda")
    with pytest.raises(InputError, match="expected one of auto, cpu, cuda"):
        checked_device("tpu")
    monkeypatch.setenv(FORCED, "1")
    with pytest.raises(InputError, match="ten bits"):
        checked_device("cuda")


def test_a_gallery_refuses_a_device_that_is_not_there(tmp_path: Path) -> None:
    if gpus():
        pytest.skip("a GPU is visible")
    FolderGallery.create(tmp_path / "g", card=card(), model_id=MODEL).close()
    with pytest.raises(InputError, match="device cuda"):
        FolderGallery.open(tmp_path / "g", device="cuda")
    with FolderGallery.open(tmp_path / "g", device="cpu") as gallery:  # and holds no lock after a refusal
        gallery.add(sample(5))


@pytest.mark.parametrize("name", ["cosine", "wasserstein", "mls", "posterior"])
def test_answers_with_a_copy_are_those_of_brute_force(name: str, copies: list[Recorded]) -> None:
    index = ExactIndex.build(name, ITEMS)
    assert_same(index, QUERIES, 10)
    (copy,) = copies
    assert copy.asked[1:], "the copy was probed and never searched"
    index.add(gaussians(30, 24, seed=5))
    assert_same(index, QUERIES, 10)
    assert len(copies) == 2, "items came, and the copy is not the old one"


def test_the_cpu_does_what_a_gpu_cannot(copies: list[Recorded]) -> None:
    index = ExactIndex.build("cosine", gaussians(4200, 16))
    queries = gaussians(20, 16, seed=2)
    index.search(queries, 5)
    (copy,) = copies
    copy.asked.clear()
    keep = np.arange(4200) % 3 == 0
    found = index.search(queries, 5, keep=keep)  # a GPU index would ignore the filter
    np.testing.assert_array_equal(found[1], brute_force("cosine", queries, index.items, 5, None, keep)[1])
    index.search(queries, 2100)  # more neighbours than a GPU returns
    assert copy.asked == []


def test_a_few_queries_are_no_reason_to_start_a_gpu(copies: list[Recorded]) -> None:
    index = ExactIndex.build("cosine", ITEMS)
    index.search(QUERIES[:3], 5)
    assert copies == []
    index.device = "cpu"
    index.search(QUERIES, 5)
    assert copies == []
    index.device = "cuda"
    assert_same(index, QUERIES[:3], 5)
    assert len(copies) == 1


def test_a_device_that_rounds_more_than_float32_is_not_used(
    monkeypatch: pytest.MonkeyPatch, copies: list[Recorded]
) -> None:
    """Products of numbers with ten bits, as tensor cores take them, break the bound."""

    class Coarse(Recorded):
        def search(self, queries: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
            bits = (queries.view(np.uint32) + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)
            return super().search(bits.view(np.float32), length)

    index = ExactIndex.build("cosine", ITEMS)
    unit = ITEMS.mean / np.linalg.norm(ITEMS.mean, axis=1, keepdims=True)
    flat = faiss.IndexFlatIP(unit.shape[1])
    flat.add(unit)
    assert Copy(flat, np.abs(unit).max(axis=0).astype(np.float64)).usable
    made: list[Coarse] = []

    def coarse(index: Any) -> tuple[Any, Any]:
        made.append(Coarse(index))
        return made[-1], None

    monkeypatch.setattr(gpu, "copy_to_gpu", coarse)
    assert_same(index, QUERIES, 10)
    assert len(made) == 1
    assert len(made[0].asked) == 1, "probed once, found wanting, never searched"
