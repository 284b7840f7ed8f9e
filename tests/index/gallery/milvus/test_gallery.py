"""A gallery in Milvus (Milvus Lite here) gives the answers of the gallery on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.distances import NAMES
from index.evaluation.dataset import read_dataset
from index.evaluation.evaluate import Settings, evaluate
from index.gallery.folder.gallery import FolderGallery
from index.gallery.open import move_gallery, open_gallery
from tests.index.calibration.test_selection import classes
from tests.index.samples import MODEL, card, gaussians, sample
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import ExistsError, InputError, MismatchError

pytest.importorskip("pymilvus", reason="the extra milvus is not installed")
pytest.importorskip("milvus_lite", reason="Milvus Lite is not installed")

from index.gallery.milvus.gallery import MilvusGallery

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
QUERIES = gaussians(5, seed=5)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("milvus") / "lite.db")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FolderGallery]:
    rows = sample(400)
    labels = [None if i % 7 == 0 else label for i, label in enumerate(rows.labels)]
    rows = Rows(rows.ids, rows.paths, labels, rows.gaussians)
    metadata = [{"year": 2000 + i % 30, "make": f"m{i % 3}"} if i % 5 else {} for i in range(400)]
    with FolderGallery.create(
        tmp_path_factory.mktemp("local") / "gallery", card=card(), model_id=MODEL, distance="expected"
    ) as gallery:
        gallery.add(rows, metadata=metadata)
        gallery.save()
        yield gallery


@pytest.fixture(scope="module")
def remote(local: FolderGallery, uri: str) -> Iterator[MilvusGallery]:
    assert move_gallery(str(local.path), f"milvus:{uri}#shared") == 400
    with MilvusGallery.open(uri, "shared") as gallery:
        yield gallery


def same(found, expected) -> None:
    assert [[n.id for n in r.neighbours] for r in found] == [[n.id for n in r.neighbours] for r in expected]
    for a, b in zip(found, expected, strict=True):
        assert a.uncertainty == b.uncertainty
        assert a.uncertainty_percentile == pytest.approx(b.uncertainty_percentile)
        for one, other in zip(a.neighbours, b.neighbours, strict=True):
            assert (one.label, one.path, one.uncertainty) == (other.label, other.path, other.uncertainty)
            assert one.distance == pytest.approx(other.distance, rel=1e-9, abs=1e-12)
            assert one.variance_score == pytest.approx(other.variance_score)
            assert one.metadata == other.metadata
            assert (one.match_probability is None) == (other.match_probability is None)


@pytest.mark.parametrize("distance", NAMES)
def test_every_distance_gives_the_same_neighbours(local: FolderGallery, uri: str, distance: str) -> None:
    name = "g_" + distance.replace("-", "_")
    move_gallery(str(local.path), f"milvus:{uri}#{name}", distance=distance)
    with MilvusGallery.open(uri, name) as gallery:
        same(gallery.search(QUERIES, 7), local.search(QUERIES, 7, distance=distance))


WHERE = [
    {"label": "group1"},
    {"label": None},
    {"label": {"!=": "group1"}},
    {"not": {"label": ["group1", "group2"]}},
    {"label": {">": "group2"}, "uncertainty": {"<=": 0.02}},
    {"year": {">=": 2010, "<": 2020}},
    {"not": {"year": {">": 2010}}},
    {"year": [2001, 2002, None]},
    {"year": {"not in": [2001, 2002]}},
    {"or": [{"make": "m1"}, {"and": [{"year": 2004}, {"not": {"make": "m2"}}]}]},
    {"not": {"or": [{"make": "m1"}, {"label": None}]}},
    {"id": ["i1", "i2", "nobody"]},
    {"path": {"<": "photos/i2"}},
    {"and": []},
    {"or": []},
]


@pytest.mark.parametrize("where", WHERE, ids=str)
def test_filters_keep_the_same_items(local: FolderGallery, remote: MilvusGallery, where: dict) -> None:
    same(remote.search(QUERIES, 400, where=where), local.search(QUERIES, 400, where=where))


@pytest.mark.parametrize(
    "where",
    [{"label": 5}, {"not": {"uncertainty": "high"}}, {"colour": None}, {"year": "2004"}, {"make": {"<": 1}}],
    ids=str,
)
def test_filters_that_can_fit_no_item_are_refused_alike(
    local: FolderGallery, remote: MilvusGallery, where: dict
) -> None:
    told = []
    for gallery in (local, remote):
        with pytest.raises(InputError, match="where: ") as caught:
            gallery.search(QUERIES, 3, where=where)
        told.append(str(caught.value).partition(";")[0])
        with pytest.raises(InputError, match="where: "):
            gallery.remove_where(where)
    assert told[0] == told[1]


def test_the_other_questions_get_the_same_answers(local: FolderGallery, remote: MilvusGallery) -> None:
    same(remote.search(QUERIES, 9, max_uncertainty=0.01), local.search(QUERIES, 9, max_uncertainty=0.01))
    own = local.get("i3")
    asked = GaussianEmbedding(own.mean[None], own.variance[None])
    same(remote.search(asked, 5, exclude=["i3"]), local.search(asked, 5, exclude=["i3"]))
    there = remote.get("i3")
    np.testing.assert_array_equal(there.mean, own.mean)
    np.testing.assert_array_equal(there.variance, own.variance)
    assert (there.label, there.path, there.metadata) == (own.label, own.path, own.metadata)
    assert len(remote) == 400
    assert remote.info()["items"] == 400
    assert remote.search(gaussians(0), 3) == []


def test_what_the_gallery_refuses_milvus_refuses(remote: MilvusGallery, uri: str) -> None:
    with pytest.raises(InputError, match="no item 'x'"):
        remote.get("x")
    with pytest.raises(MismatchError):
        remote.search(QUERIES, 1, model_id="b" * 64)
    with pytest.raises(InputError, match="ranks by expected, found 'mls'"):
        remote.search(QUERIES, 1, distance="mls")
    with pytest.raises(InputError, match="4 dimensions"):
        remote.search(gaussians(1, 4), 1)
    with pytest.raises(ExistsError, match="3 ids are in the gallery already"):
        remote.add(sample(3))
    with pytest.raises(InputError, match="holds no gallery 'nowhere'"):
        MilvusGallery.open(uri, "nowhere")
    for place in ("milvus:x", "milvus:#a", "milvus:x#a b", "milvus:x#1a"):
        with pytest.raises(InputError, match="expected milvus:URI#NAME"):
            open_gallery(place)


def test_adding_replacing_and_removing(uri: str) -> None:
    rows = sample(60)
    with MilvusGallery.create(uri, "changing", card=card(), model_id=MODEL) as gallery:
        assert len(gallery) == 0
        assert gallery.search(QUERIES, 3)[0].neighbours == []
        gallery.add(rows)
        gallery.add(sample(5, seed=9), replace=True)
        assert len(gallery) == 60
        np.testing.assert_array_equal(gallery.get("i4").mean, sample(5, seed=9).gaussians.mean[4])
        assert gallery.remove(["i0", "i0", "nobody"]) == 1
        assert gallery.remove_where({"label": "group1"}) == 10
        assert len(gallery) == 49
        assert gallery.generation == 4
        found = gallery.search(gaussians(1), 60)[0].neighbours
        assert len(found) == 49
    with MilvusGallery.open(uri, "changing") as gallery:
        assert gallery.generation == 4
    with pytest.raises(ExistsError, match="--overwrite"):
        MilvusGallery.create(uri, "changing", card=card(), model_id=MODEL)
    with MilvusGallery.create(uri, "changing", card=card(), model_id=MODEL, overwrite=True) as gallery:
        assert len(gallery) == 0


def test_an_evaluation_reads_it_as_it_reads_a_folder(local: FolderGallery, remote: MilvusGallery) -> None:
    here, there = read_dataset(local.place), read_dataset(remote.place)
    assert (there.ids, there.labels, there.distance) == (here.ids, here.labels, "expected")
    assert here.match is not None
    assert there.match == here.match
    np.testing.assert_array_equal(there.gaussians.variance, here.gaussians.variance)
    queries = replace(there, ids=[f"q{id_}" for id_ in there.ids], place="queries")
    one, two = (evaluate(side, queries, Settings(resamples=5))["metrics"] for side in (here, there))
    assert one == two


def test_what_was_fitted_moves_along(uri: str, tmp_path: Path) -> None:
    items, labels = classes(300, 8)
    names = [f"i{row}" for row in range(300)]
    with FolderGallery.create(tmp_path / "fitted", card=card(), model_id=MODEL) as gallery:
        gallery.add(Rows(names, names, labels, items))
        fitting = gallery.fit()
        assert fitting.distance == "posterior"
        move_gallery(str(gallery.path), f"milvus:{uri}#fitted")
        with MilvusGallery.open(uri, "fitted") as remote:
            assert remote.fitting == fitting
            assert remote.info()["fitting"]["stale"] is None
            same(remote.search(items[:5], 7), gallery.search(items[:5], 7))
            remote.remove(names[:100])
            assert "vssl gallery refit" in str(remote.stale)
        move_gallery(f"milvus:{uri}#fitted", str(tmp_path / "back"), distance="mls")
    with FolderGallery.open(tmp_path / "back", read_only=True) as back:
        assert back.fitting is not None
        assert (back.distance, back.fitting.given, back.fitting.trials) == ("mls", True, fitting.trials)
        assert "vssl gallery refit" in str(back.stale)


def test_there_and_back_loses_nothing(local: FolderGallery, uri: str, tmp_path: Path) -> None:
    move_gallery(str(local.path), f"milvus:{uri}#there", overwrite=True)
    move_gallery(f"milvus:{uri}#there", str(tmp_path / "back"))
    with FolderGallery.open(tmp_path / "back", read_only=True) as back:
        rows, metadata = back.contents()
        expected, notes = local.contents()
        assert (rows.ids, rows.paths, rows.labels) == (expected.ids, expected.paths, expected.labels)
        assert metadata == notes
        np.testing.assert_array_equal(rows.gaussians.mean, expected.gaussians.mean)
        np.testing.assert_array_equal(rows.gaussians.variance, expected.gaussians.variance)
        assert (back.model_id, back.card, back.distance) == (local.model_id, local.card, local.distance)
        same(back.search(QUERIES, 5), local.search(QUERIES, 5))
    with pytest.raises(ExistsError):
        move_gallery(f"milvus:{uri}#there", str(tmp_path / "back"))
