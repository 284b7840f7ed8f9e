"""A gallery keeps what was fitted to it, searches by it, and never mixes it with an index of other constants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.calibration.fit import BEST, Fitting
from index.distances import pairwise
from index.evaluation.dataset import read_dataset
from index.evaluation.evaluate import Settings, evaluate
from index.gallery.folder.gallery import FolderGallery
from index.gallery.folder.store import STORE, Store
from index.search.autotune import Budget
from tests.index.brute import raw
from tests.index.calibration.test_selection import classes
from tests.index.samples import MODEL, card, gaussians, part, sample
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import FormatError, InputError

ITEMS, LABELS = classes(400, 8)
NAMES = [f"i{row}" for row in range(400)]
ROWS = Rows(NAMES, NAMES, LABELS, ITEMS)
QUERIES = ITEMS[350:]


def new(path: Path, rows: Rows = ROWS, **options) -> FolderGallery:
    gallery = FolderGallery.create(path / "gallery", card=card(), model_id=MODEL, normalise=False, **options)
    gallery.add(rows)
    return gallery


def stored(gallery: FolderGallery, name: str) -> str | None:
    """A fact as another process reads it."""
    store = Store(gallery.path / STORE, read_only=True)
    try:
        return store.fact(name)
    finally:
        store.close()


def ids(gallery: FolderGallery, **options) -> list[list[str]]:
    return [[n.id for n in answer.neighbours] for answer in gallery.search(QUERIES, 5, **options)]


def brute(fitting: Fitting, distance: str) -> list[list[str]]:
    table = pairwise(distance, QUERIES, ITEMS, fitting.constants[distance])
    return [[f"i{row}" for row in order] for order in np.argsort(table, axis=1, kind="stable")[:, :5]]


def test_what_was_fitted_is_what_a_search_uses_now_and_after_opening(tmp_path: Path) -> None:
    with new(tmp_path) as gallery:
        before = gallery.generation
        fitting = gallery.fit()
        assert (gallery.distance, fitting.distance) == ("posterior", "posterior")
        assert (fitting.generation, fitting.rows, fitting.last_row) == (before, 400, 400)
        assert gallery.generation == before + 1
        assert ids(gallery) == brute(fitting, "posterior")
        assert ids(gallery, distance="mls") == brute(fitting, "mls")
    with FolderGallery.open(tmp_path / "gallery", read_only=True) as gallery:
        assert gallery.fitting == fitting
        assert gallery.damage is None
        assert ids(gallery) == brute(fitting, "posterior")
        facts = gallery.info()["fitting"]
        assert facts["trials"]["posterior"]["alpha"] == fitting.constants["posterior"].alpha
        assert facts["stale"] is None


def test_a_named_distance_stays_until_the_best_is_asked_for(tmp_path: Path) -> None:
    with new(tmp_path, distance="expected") as gallery:
        assert gallery.fit().given
        assert gallery.distance == "expected"  # and fitting again does not change that
        assert gallery.fit().distance == "expected"
        assert gallery.fit(BEST).distance == "posterior"
        assert gallery.fit().distance == "posterior"
        assert gallery.fit("kl").distance == "kl"
        with pytest.raises(InputError, match="expected one of"):
            gallery.fit("angle")
        assert gallery.distance == "kl"


def test_a_reader_follows_a_refit(tmp_path: Path) -> None:
    with new(tmp_path) as gallery, FolderGallery.open(tmp_path / "gallery", read_only=True) as reader:
        assert ids(reader, distance="posterior") != brute(fitting := gallery.fit(), "posterior")
        assert ids(reader) == ids(reader, distance="posterior") == brute(fitting, "posterior")
        assert reader.distance == "posterior"
        with pytest.raises(InputError, match="reading only"):
            reader.fit()


def test_an_index_of_other_constants_is_not_used(tmp_path: Path) -> None:
    with new(tmp_path) as gallery:
        text = gallery.fit("posterior").to_json()
    records = Store(tmp_path / "gallery" / STORE)
    records.set_facts({"fitting": text.replace('"alpha": ', '"alpha": 1')}, dropping="match.")
    records.close()
    with FolderGallery.open(tmp_path / "gallery", read_only=True) as gallery:
        fitting = gallery.fitting
        assert fitting is not None
        assert fitting.to_json() != text
        assert ids(gallery) == brute(fitting, "posterior") != brute(Fitting.from_json(text), "posterior")


def test_a_gallery_without_constants_opens_and_can_be_fitted(tmp_path: Path) -> None:
    with new(tmp_path, distance="posterior") as gallery:
        assert gallery.fitting is None
        assert gallery.stale is None
        assert gallery.info()["fitting"] is None
        assert ids(gallery) == [
            [f"i{row}" for row in order]
            for order in np.argsort(pairwise("posterior", QUERIES, ITEMS), axis=1, kind="stable")[:, :5]
        ]
    with FolderGallery.open(tmp_path / "gallery") as gallery:
        fitting = gallery.fit()
        assert ids(gallery) == brute(fitting, "posterior")


def test_match_probabilities_are_of_the_constants_in_use(tmp_path: Path) -> None:
    with (
        new(tmp_path, distance="posterior") as gallery,
        FolderGallery.open(tmp_path / "gallery", read_only=True) as reader,
    ):
        gallery.save()
        old = gallery.match_model("posterior")
        assert reader.match_model("posterior") == old
        gallery.fit("posterior")
        new_ = gallery.match_model("posterior")
        assert reader.match_model("posterior") == new_
        assert old is not None
        assert new_ is not None
        assert old.constants != new_.constants
        assert stored(gallery, "match.posterior") == new_.to_json()


def test_it_is_stale_after_many_changes_until_refitted(tmp_path: Path) -> None:
    with new(tmp_path, part(ROWS, slice(0, 200))) as gallery:
        gallery.fit()
        gallery.add(part(ROWS, slice(200, 240)))
        assert gallery.stale is None
        gallery.add(part(ROWS, slice(240, 400)))
        assert "vssl gallery refit" in str(gallery.stale)
        assert gallery.info()["fitting"]["stale"] == gallery.stale
        gallery.fit()
        assert gallery.stale is None


def test_constants_and_distance_are_one_write(tmp_path: Path) -> None:
    with new(tmp_path) as gallery:
        gallery.save()
        before = {
            name: stored(gallery, name) for name in ("distance", "fitting", "generation", "match.cosine")
        }
        with raw(gallery.path / STORE) as store:
            store.execute("CREATE TRIGGER no BEFORE DELETE ON facts BEGIN SELECT RAISE(ABORT, 'no'); END")
        with pytest.raises(FormatError, match="no"):
            gallery.fit("mls")
        assert {name: stored(gallery, name) for name in before} == before
        with raw(gallery.path / STORE) as store:
            store.execute("DROP TRIGGER no")


def test_a_budget_tunes_the_index_of_the_fitted_distance(tmp_path: Path) -> None:
    with new(tmp_path) as gallery:
        fitting = gallery.fit()
        choice = gallery.choose_index(Budget.parse("recall=0.9"))
        assert choice.index.parameters == fitting.constants["posterior"]
    with FolderGallery.open(tmp_path / "gallery", read_only=True) as gallery:
        assert ids(gallery) == brute(fitting, "posterior")


def test_an_evaluation_uses_the_gallery_s_constants(tmp_path: Path) -> None:
    with new(tmp_path, part(ROWS, slice(0, 300))) as gallery:
        fitting = gallery.fit("posterior")
        gallery.add(part(ROWS, slice(300, 380)))
    dataset = read_dataset(tmp_path / "gallery")
    assert dataset.constants == fitting.constants
    asked = Rows([f"q{i}" for i in range(50)], NAMES[350:], LABELS[350:], QUERIES)
    queries = FolderGallery.create(tmp_path / "queries", card=card(), model_id=MODEL, normalise=False)
    queries.add(asked)
    queries.close()
    report = evaluate(dataset, read_dataset(tmp_path / "queries"), Settings(resamples=5, compare=True))
    assert report["distance"] == "posterior"
    assert report["metrics"]["recall_at_1"] == report["metrics"]["recall_at_1:posterior"]
    nearest = np.argsort(pairwise("posterior", QUERIES, ITEMS[:380], fitting.constants["posterior"]), axis=1)[
        :, 0
    ]
    right = np.mean([LABELS[row] == LABELS[350 + q] for q, row in enumerate(nearest)])
    assert report["metrics"]["recall_at_1"] == pytest.approx(right)
    assert any("constants of the distances: fitted on 300 images" in line for line in report["notes"])


def test_without_labels_nothing_is_compared_and_cosine_stays(tmp_path: Path) -> None:
    rows = sample(200)
    with new(tmp_path, Rows(rows.ids, rows.paths, [None] * 200, rows.gaussians)) as gallery:
        fitting = gallery.fit()
        assert (gallery.distance, fitting.given) == ("cosine", False)
        assert gallery.search(GaussianEmbedding(gaussians(1).mean, gaussians(1).variance), 3)[0].neighbours


def test_an_empty_gallery_can_be_fitted(tmp_path: Path) -> None:
    with FolderGallery.create(tmp_path / "gallery", card=card(), model_id=MODEL) as gallery:
        assert gallery.fit().distance == "cosine"
        gallery.add(sample(30))
        assert gallery.stale is not None
        assert len(gallery.search(gaussians(2), 3, distance="posterior")[0].neighbours) == 3
    assert (tmp_path / "gallery" / STORE).is_file()
