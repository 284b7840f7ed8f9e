"""Searches answer what brute force answers, and say how sure they are."""

from pathlib import Path

import numpy as np
import pytest

from index.gallery.folder.gallery import FolderGallery
from tests.index.brute import brute, ids, new
from tests.index.samples import MODEL, card, gaussians, part, sample
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import InputError


@pytest.mark.parametrize("distance", ["cosine", "expected", "wasserstein", "mls"])
def test_search_is_brute_force(tmp_path: Path, distance: str) -> None:
    rows, queries = sample(300), gaussians(20, seed=5)
    with new(tmp_path, rows, distance=distance) as gallery:
        assert ids(gallery.search(queries, 7)) == brute(rows, queries, 7, distance)


def test_another_distance_is_a_word_away(tmp_path: Path) -> None:
    rows, queries = sample(100), gaussians(5, seed=5)
    with new(tmp_path, rows) as gallery:
        assert ids(gallery.search(queries, 5, distance="wasserstein")) == brute(
            rows, queries, 5, "wasserstein"
        )
        with pytest.raises(InputError, match="found 'hamming', expected one of cosine, "):
            gallery.search(queries, 5, distance="hamming")
    with pytest.raises(InputError, match="'hamming'"):
        FolderGallery.create(tmp_path / "other", card=card(), model_id=MODEL, distance="hamming")
    assert not (tmp_path / "other").exists()


def test_neighbours_say_how_sure_they_are(tmp_path: Path) -> None:
    rows, queries = sample(300), gaussians(4, seed=5)
    with new(tmp_path, rows) as gallery:
        results = gallery.search(queries, 3)
        item = gallery.get(results[0].neighbours[0].id)
    q, x = queries.normalised(), GaussianEmbedding(item.mean[None], item.variance[None]).normalised()
    variance = float(q.variance[0].sum() + x.variance[0].sum())
    apart = float(((q.mean[0] - x.mean[0]).astype(np.float64) ** 2).sum())
    nearest = results[0].neighbours[0]
    assert nearest.variance_score == pytest.approx(variance / (apart + variance), rel=1e-5)
    assert nearest.uncertainty == pytest.approx(item.uncertainty)
    assert nearest.path == item.path
    assert nearest.label == item.label
    assert results[0].uncertainty == pytest.approx(queries.uncertainty[0])
    below = (rows.gaussians.uncertainty < queries.uncertainty[0]).mean() * 100
    assert results[0].uncertainty_percentile == pytest.approx(below)
    assert [n.distance for n in results[0].neighbours] == sorted(n.distance for n in results[0].neighbours)


def test_k_results_when_k_exist_and_never_a_sentinel(tmp_path: Path) -> None:
    with new(tmp_path, sample(5)) as gallery:
        assert [len(r.neighbours) for r in gallery.search(gaussians(3), 10)] == [5, 5, 5]
        assert [len(r.neighbours) for r in gallery.search(gaussians(3), 2)] == [2, 2, 2]
        assert gallery.search(gaussians(0), 2) == []
        with pytest.raises(InputError, match="k: found 0"):
            gallery.search(gaussians(1), 0)


def test_an_empty_gallery_answers_nothing(tmp_path: Path) -> None:
    with new(tmp_path) as gallery:
        (result,) = gallery.search(gaussians(1), 3)
        assert result.neighbours == []
        assert result.uncertainty_percentile is None
        gallery.add(sample(3))
        gallery.remove(["i0", "i1", "i2"])
        assert gallery.search(gaussians(1), 3)[0].neighbours == []
    with FolderGallery.open(tmp_path / "gallery") as gallery:
        assert len(gallery) == 0
        gallery.add(sample(2))
        assert len(gallery.search(gaussians(1), 3)[0].neighbours) == 2


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5])
def test_filters_return_what_brute_force_returns(tmp_path: Path, share: float) -> None:
    rows, queries = sample(2000), gaussians(10, seed=5)
    chosen = np.random.default_rng(3).uniform(size=2000) < share
    chosen[:2] = True
    with new(tmp_path) as gallery:
        gallery.add(rows, metadata=[{"chosen": bool(c)} for c in chosen])
        found = gallery.search(queries, 10, where={"chosen": True})
        assert ids(found) == brute(rows, queries, 10, keep=chosen)
        sure = rows.gaussians.uncertainty <= np.quantile(rows.gaussians.uncertainty, share)
        limit = float(rows.gaussians.uncertainty[sure].max())
        assert ids(gallery.search(queries, 10, max_uncertainty=limit)) == brute(rows, queries, 10, keep=sure)
        both = gallery.search(queries, 10, max_uncertainty=limit, where={"not": {"chosen": True}})
        assert ids(both) == brute(rows, queries, 10, keep=sure & ~chosen)


def test_exclude_leaves_a_query_out_of_its_own_answer(tmp_path: Path) -> None:
    rows = sample(50)
    with new(tmp_path, rows) as gallery:
        alone = gallery.search(rows.gaussians[:4], 5, exclude=[*rows.ids[:3], None])
        for q in range(3):
            assert rows.ids[q] not in ids(alone)[q]
            assert len(alone[q].neighbours) == 5
        assert ids(alone)[3][0] == rows.ids[3]
        with pytest.raises(InputError, match="exclude: found 1 ids for 4"):
            gallery.search(rows.gaussians[:4], 5, exclude=["i0"])


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ({"colour": "red"}, "no item has 'colour'; the columns are id, label, path, uncertainty, year, make"),
        ({"not": {"or": [{"year": 2024}, {"colour": None}]}}, "no item has 'colour'"),
        ({"year": "2024"}, "year: found the text '2024', and no item has a text there"),
        ({"make": {"in": ["m1", 5]}}, "make: found the number 5, and no item has a number there"),
        ({"label": 7}, "label: found the number 7, expected a text"),
        ({"uncertainty": {"<": "low"}}, "uncertainty: found the text 'low', expected a number"),
    ],
)
def test_a_filter_that_can_fit_no_item_is_refused(tmp_path: Path, where: dict, told: str) -> None:
    metadata = [{"year": -2000 - i, "make": f"m{i}"} if i else {} for i in range(5)]
    with new(tmp_path, part(sample(5), slice(0, 0))) as gallery:
        assert gallery.search(gaussians(1), 1, where={"colour": "red"})[0].neighbours == []  # nothing to know
        gallery.add(sample(5), metadata=metadata)
        for ask in (
            lambda: gallery.search(gaussians(1), 5, where=where),
            lambda: gallery.remove_where(where),
        ):
            with pytest.raises(InputError, match=told):
                ask()
        assert len(gallery) == 5


def test_neighbours_bring_their_metadata(tmp_path: Path) -> None:
    rows, metadata = sample(6), [{"year": 2000 + i, "sold": i % 2 == 0} if i else {} for i in range(6)]
    with new(tmp_path, part(rows, slice(0, 0))) as gallery:
        gallery.add(rows, metadata=metadata)
        (found,) = gallery.search(gaussians(1), 6)
    assert {n.id: n.metadata for n in found.neighbours} == dict(zip(rows.ids, metadata, strict=True))


def test_a_filter_is_asked_again_after_a_change(tmp_path: Path) -> None:
    rows = sample(60)
    with new(tmp_path, part(rows, slice(0, 30))) as gallery:
        (before,) = gallery.search(gaussians(1), 60, where={"label": "group1"})
        gallery.add(part(rows, slice(30, 60)))
        (after,) = gallery.search(gaussians(1), 60, where={"label": "group1"})
        assert (len(before.neighbours), len(after.neighbours)) == (5, 10)
