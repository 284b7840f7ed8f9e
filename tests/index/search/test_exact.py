"""An exact index answers what brute force in float64 answers, and knows that it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.regimes import REGIMES, gaussians, shifted
from index.distances import NAMES, DistanceParameters, fit_prior, pairwise
from index.distances.table import DISTANCES
from index.search.exact import ExactIndex
from index.search.gpu import FlatSearch
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import FormatError, InputError


def brute_force(
    name: str,
    queries: GaussianEmbedding,
    items: GaussianEmbedding,
    k: int,
    parameters: DistanceParameters | None = None,
    keep: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Sort every pair; equal distances keep the order of their rows."""
    distances = pairwise(name, queries, items, parameters)
    if keep is not None:
        distances[:, ~keep] = np.inf
    rows = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, rows, axis=1), rows


def assert_same(index: ExactIndex, queries: GaussianEmbedding, k: int) -> None:
    distances, rows = index.search(queries, k)
    expected_distances, expected_rows = brute_force(index.name, queries, index.items, k, index.parameters)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(distances, expected_distances)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", NAMES)
def test_it_finds_the_neighbours_of_brute_force(name: str, regime: str) -> None:
    items = gaussians(1500, 24, regime=regime)
    assert_same(ExactIndex.build(name, items), gaussians(30, 24, regime=regime, seed=1), 10)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", NAMES)
def test_near_duplicates_far_from_the_origin_keep_their_order(name: str, regime: str) -> None:
    items = shifted(gaussians(1200, 24, regime=regime, groups=60), 10.0)
    queries = shifted(gaussians(20, 24, regime=regime, groups=60, seed=2), 10.0)
    index = ExactIndex.build(name, items)
    assert_same(index, queries, 10)
    assert_same(index, items[:10], 10)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 60),
    dim=st.integers(1, 20),
    k=st.integers(1, 100),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
)
def test_any_size_any_k_any_variance_and_ties(
    name: str, seed: int, count: int, dim: int, k: int, scale: float
) -> None:
    random = np.random.default_rng(seed)
    distinct = max(1, count // 2)  # every item about twice, so that ties are common
    mean = (scale * random.normal(size=(distinct, dim))).astype(np.float32)
    variance = np.exp(random.uniform(-25, 5, (distinct, dim))).astype(np.float32)
    pick = random.integers(0, distinct, count)
    items = GaussianEmbedding(mean[pick], variance[pick])
    queries = GaussianEmbedding(mean[:3], variance[:3])
    index = ExactIndex.build(name, items)
    distances, rows = index.search(queries, k)
    assert distances.shape == rows.shape == (len(queries), k)
    there = min(k, count)
    expected_distances, expected_rows = brute_force(name, queries, items, k, index.parameters)
    np.testing.assert_array_equal(rows[:, :there], expected_rows)
    np.testing.assert_array_equal(distances[:, :there], expected_distances)
    assert (rows[:, there:] == -1).all()
    assert np.isinf(distances[:, there:]).all()


@pytest.mark.parametrize("name", ["cosine", "expected", "wasserstein", "kl", "posterior"])
@pytest.mark.parametrize("share", [0.5, 0.01, 0.0])
def test_only_kept_rows_are_found(name: str, share: float) -> None:
    items, queries = gaussians(900, 12), gaussians(15, 12, seed=3)
    keep = np.random.default_rng(0).random(900) < share
    index = ExactIndex.build(name, items)
    for asked in (queries, queries[:1]):
        distances, rows = index.search(asked, 20, keep=keep)
        there = min(20, int(keep.sum()))
        wanted = brute_force(name, asked, items, there, index.parameters, keep)
        np.testing.assert_array_equal(rows[:, :there], wanted[1])
        np.testing.assert_array_equal(distances[:, :there], wanted[0])
        assert (rows[:, there:] == -1).all()


def test_posterior_needs_few_exact_evaluations() -> None:
    random = np.random.default_rng(0)
    centres = gaussians(100, 32, seed=2).mean
    labels = random.integers(0, 100, 5100)
    noise = random.normal(0, 0.6 / 32**0.5, (5100, 32)).astype(np.float32)
    all_ = GaussianEmbedding(centres[labels] + noise, gaussians(5100, 32).variance)
    prior = fit_prior(all_[:5000], [str(label) for label in labels[:5000]])
    index = ExactIndex.build("posterior", all_[:5000], parameters=prior)
    found = index.search_counted(all_[5000:], 10)
    assert np.median(found.evaluated) <= 50
    assert_same(index, all_[5000:5010], 10)


def test_the_answer_does_not_depend_on_the_batch() -> None:
    items, queries = gaussians(2000, 24), gaussians(300, 24, seed=4)
    index = ExactIndex.build("expected", items)
    distances, rows = index.search(queries, 5)
    for row in (0, 150, 299):
        alone = index.search(queries[row : row + 1], 5)
        np.testing.assert_array_equal(alone[1][0], rows[row])
        np.testing.assert_array_equal(alone[0][0], distances[row])


@pytest.mark.parametrize("name", NAMES)
def test_added_items_are_found_as_if_they_had_been_there(name: str) -> None:
    first, more = gaussians(400, 16), gaussians(300, 16, regime="wide", seed=5)
    index = ExactIndex.build(name, first, parameters=fit_prior(first))
    for part in (more[:1], more[1:200], more[200:200], more[200:]):
        index.add(part)
    assert len(index) == 700
    np.testing.assert_array_equal(index.items.mean, np.concatenate([first.mean, more.mean]))
    assert_same(index, gaussians(20, 16, regime="wide", seed=6), 10)


def test_a_tight_shortlist_that_keeps_failing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty copies of each item: what is left out ties with the tenth, so that ten and a few certify nothing."""
    few, plain = gaussians(60, 16), gaussians(2400, 16)
    copies = few[np.repeat(np.arange(60), 40)]
    asked: list[int] = []
    real = FlatSearch.largest

    def recorded(self: FlatSearch, *arguments: Any, **options: Any) -> object:
        asked.append(arguments[3])
        return real(self, *arguments, **options)

    monkeypatch.setattr(FlatSearch, "largest", recorded)
    for items, lengths in ((copies, {58}), (plain, {16})):
        index = ExactIndex.build("cosine", items)
        for _ in range(3):
            assert_same(index, gaussians(40, 16, seed=8), 10)
        asked.clear()
        assert_same(index, gaussians(5, 16, seed=9), 10)
        assert set(asked) == lengths


def test_an_empty_index_answers_nothing_until_items_come() -> None:
    index = ExactIndex.build("posterior", gaussians(0, 8))
    distances, rows = index.search(gaussians(2, 8), 3)
    assert (rows == -1).all()
    assert np.isinf(distances).all()
    index.add(gaussians(50, 8))
    assert_same(index, gaussians(4, 8, seed=7), 5)


def test_what_cannot_be_meant_is_refused() -> None:
    index = ExactIndex.build("cosine", gaussians(5, 8))
    with pytest.raises(InputError, match="expected one of"):
        ExactIndex.build("hamming", gaussians(5, 8))
    with pytest.raises(InputError, match="7 dimensions"):
        index.search(gaussians(1, 7), 1)
    with pytest.raises(InputError, match="at least 1"):
        index.search(gaussians(1, 8), 0)
    with pytest.raises(InputError, match="keep"):
        index.search(gaussians(1, 8), 1, keep=np.ones(4, bool))
    huge = GaussianEmbedding(np.full((1, 8), 1e25, np.float32), np.ones((1, 8), np.float32))
    with pytest.raises(InputError, match="float32"):
        ExactIndex.build("expected", GaussianEmbedding.concatenate([huge, gaussians(1, 8)]))


@pytest.mark.parametrize("name", NAMES)
def test_what_was_saved_answers_the_same(name: str, tmp_path: Path) -> None:
    items, queries = gaussians(300, 12), gaussians(10, 12, seed=8)
    index = ExactIndex.build(name, items[:200])
    index.add(items[200:])
    index.save(tmp_path)
    loaded = ExactIndex.load(tmp_path, items)
    assert (loaded.name, loaded.parameters.key()) == (name, index.parameters.key())
    for before, after in zip(index.search(queries, 7), loaded.search(queries, 7), strict=True):
        np.testing.assert_array_equal(before, after)
    loaded.add(queries)
    assert_same(loaded, queries, 3)


def test_an_empty_index_is_saved_too(tmp_path: Path) -> None:
    ExactIndex.build("cosine", gaussians(0, 4)).save(tmp_path)
    assert len(ExactIndex.load(tmp_path, gaussians(0, 4))) == 0


def test_files_that_cannot_be_read_or_hold_more_items_are_refused(tmp_path: Path) -> None:
    items = gaussians(50, 8)
    ExactIndex.build("cosine", items).save(tmp_path)
    with pytest.raises(FormatError, match="50 items, expected 49"):
        ExactIndex.load(tmp_path, items[:49])
    data = (tmp_path / "exact.faiss").read_bytes()
    for harm in (b"", data[: len(data) // 2]):
        (tmp_path / "exact.faiss").write_bytes(harm)
        with pytest.raises(FormatError, match="not readable"):
            ExactIndex.load(tmp_path, items)
    (tmp_path / "exact.json").unlink()
    with pytest.raises(FormatError, match="it is built again"):
        ExactIndex.load(tmp_path, items)


def test_the_largest_features_are_remembered_over_additions(tmp_path: Path) -> None:
    """They bound the rounding of every score; forgetting the first block's would break the proof."""
    items = gaussians(200, 8)
    index = ExactIndex.build("cosine", items[:150])
    index.add(items[150:])
    index.save(tmp_path)
    loaded = ExactIndex.load(tmp_path, items)
    unit = items.mean.astype(np.float64) / np.linalg.norm(items.mean, axis=1, keepdims=True)
    for number, one in enumerate((index, loaded)):
        folder = tmp_path / str(number)
        folder.mkdir()
        one.save(folder)
        widest = json.loads((folder / "exact.json").read_text())["widest"]
        np.testing.assert_allclose(widest[:8], np.abs(unit).max(axis=0), rtol=1e-6)


@pytest.mark.parametrize("name", ["cosine", "kl", "mls", "bhattacharyya", "posterior"])
def test_a_broken_bound_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with brute force has teeth: a bound that lies above the distance fails it."""
    items = gaussians(1500, 24, regime="wide")
    queries = gaussians(40, 24, regime="wide", seed=1)
    index = ExactIndex.build(name, items)
    assert_same(index, queries, 10)
    real = DISTANCES[name].encode_queries
    random = np.random.default_rng(0)

    def broken(queries: object, anchor: object, parameters: object) -> tuple[np.ndarray, np.ndarray]:
        phi, offset = real(queries, anchor, parameters)  # type: ignore[arg-type]
        return phi * random.uniform(0.2, 1.0, phi.shape), offset + 1e3

    object.__setattr__(DISTANCES[name], "encode_queries", broken)
    try:
        with pytest.raises(AssertionError):
            assert_same(index, queries, 10)
    finally:
        object.__setattr__(DISTANCES[name], "encode_queries", real)
