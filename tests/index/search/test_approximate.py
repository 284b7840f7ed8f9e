"""Approximate indexes: candidates where Euclid means something, exact ranks, k results when k exist."""

from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from index.distances import pairwise
from index.search import approximate as module
from index.search.approximate import ApproximateIndex, Recipe, coordinates
from index.search.exact import ExactIndex
from tests.index.samples import gaussians, mapped_files
from vssl.errors import FormatError, InputError

ITEMS = gaussians(3000, 16, groups=40).normalised()
QUERIES = gaussians(30, 16, groups=40, seed=1).normalised()
RECIPES = [Recipe("hnsw", 64, 100), Recipe("ivf", 8, 100), Recipe("ivfpq", 16, 300)]


@cache
def built(name: str, recipe: Recipe) -> ApproximateIndex:
    return ApproximateIndex.build(name, ITEMS, recipe)


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, truth, strict=True)]))


@pytest.mark.parametrize("name", ["wasserstein", "expected", "cosine"])
def test_coordinates_rank_as_the_distance_does(name: str) -> None:
    stored, asked = coordinates(name, ITEMS[:200], query=False), coordinates(name, QUERIES, query=True)
    assert stored.shape[1] % 16 == 0
    table = ((asked[:, None].astype(float) - stored[None]) ** 2).sum(axis=2)
    order = np.argsort(pairwise(name, QUERIES, ITEMS[:200]), axis=1)[:, :5]
    np.testing.assert_array_equal(np.argsort(table, axis=1)[:, :5], order)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.kind)
@pytest.mark.parametrize("name", ["cosine", "expected", "wasserstein", "posterior"])
def test_most_neighbours_are_found_at_their_exact_distances(name: str, recipe: Recipe) -> None:
    exact = ExactIndex.build(name, ITEMS)
    truth = exact.search(QUERIES, 10)
    distances, rows = built(name, recipe).search(QUERIES, 10)
    assert recall(rows, truth[1]) > (0.85 if name == "posterior" else 0.95)
    table = pairwise(name, QUERIES, ITEMS, exact.parameters)
    np.testing.assert_allclose(distances, np.take_along_axis(table, rows, axis=1), rtol=1e-9)
    assert (np.diff(distances, axis=1) >= 0).all()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.kind)
@pytest.mark.parametrize("share", [0.002, 0.02, 0.5])
@pytest.mark.parametrize("scanned", [0, 20_000])
def test_a_filter_leaves_k_results(
    recipe: Recipe, share: float, scanned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SCANNED", scanned)
    keep = np.random.default_rng(0).uniform(size=3000) < share
    keep[:3] = True
    distances, rows = built("cosine", recipe).search(QUERIES, 10, keep=keep)
    wanted = min(10, int(keep.sum()))
    assert (rows[:, :wanted] >= 0).all()
    assert (rows[:, wanted:] == -1).all()
    assert keep[rows[:, :wanted]].all()
    truth = ExactIndex.build("cosine", ITEMS).search(QUERIES, 10, keep=keep)[1]
    assert recall(rows[:, :wanted], truth[:, :wanted]) > 0.95
    assert np.isfinite(distances[:, :wanted]).all()


def test_a_short_shortlist_is_made_good_by_a_scan() -> None:
    index = ApproximateIndex.build("cosine", ITEMS, Recipe("ivf", effort=1, shortlist=1, lists=70))
    assert (index.search(QUERIES, 200)[1] >= 0).all()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.kind)
def test_added_items_are_found_and_saved_ones_come_back(recipe: Recipe, tmp_path: Path) -> None:
    index = ApproximateIndex.build("expected", ITEMS[:2000], recipe)
    index.add(ITEMS[2000:2001])
    index.add(ITEMS[2001:])
    distances, rows = index.search(ITEMS[2500:2600], 1)
    assert (rows[:, 0] == np.arange(2500, 2600)).mean() > 0.9
    index.save(tmp_path)
    again = ApproximateIndex.load(tmp_path, ITEMS)
    assert again.recipe == recipe
    np.testing.assert_array_equal(again.search(ITEMS[2500:2600], 1)[1], rows)
    np.testing.assert_array_equal(again.search(ITEMS[2500:2600], 1)[0], distances)
    with pytest.raises(FormatError, match="found 3000 items, expected 2999"):
        ApproximateIndex.load(tmp_path, ITEMS[:2999])


def test_a_mapped_index_is_read_before_it_is_added_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ApproximateIndex.build("cosine", ITEMS[:2000], RECIPES[0]).save(tmp_path)
    monkeypatch.setattr(module, "MAPPED", 0)
    mapped = ApproximateIndex.load(tmp_path, ITEMS[:2000])
    assert mapped_files(tmp_path) == {"candidates.faiss"}
    before = mapped.search(QUERIES, 5)[1]
    mapped.add(ITEMS[2000:])
    assert mapped_files(tmp_path) == set()
    assert len(mapped) == 3000
    assert recall(before, ExactIndex.build("cosine", ITEMS[:2000]).search(QUERIES, 5)[1]) > 0.95
    assert mapped.search(ITEMS[2500:2501], 1)[1][0, 0] == 2500


def test_damaged_or_absent_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not readable"):
        ApproximateIndex.load(tmp_path, ITEMS)
    ApproximateIndex.build("cosine", ITEMS[:100], RECIPES[0]).save(tmp_path)
    (tmp_path / "candidates.faiss").write_bytes(b"IxFI")
    with pytest.raises(FormatError, match="not readable"):
        ApproximateIndex.load(tmp_path, ITEMS[:100])


def test_a_recipe_is_checked_and_travels_as_json() -> None:
    for recipe in RECIPES:
        assert Recipe.from_json(recipe.to_json()) == recipe
        assert set(asdict(recipe)) == {
            "kind",
            "effort",
            "shortlist",
            "links",
            "lists",
            "code",
            "construction",
        }
    earlier = '{"kind": "hnsw", "effort": 16, "shortlist": 20, "links": 32, "lists": 0, "code": 0}'
    assert Recipe.from_json(earlier) == Recipe("hnsw", 16, 20)
    with pytest.raises(InputError, match="index kind"):
        Recipe("lsh")
    with pytest.raises(InputError, match="positive"):
        Recipe("hnsw", effort=0)
    with pytest.raises(FormatError, match="index recipe"):
        Recipe.from_json('{"knd": 1}')
