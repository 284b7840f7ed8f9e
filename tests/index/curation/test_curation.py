"""Curation finds planted copies, uncertain images, outliers and wrong labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.curation.duplicates import duplicates, same_probability
from index.curation.outliers import outliers
from index.curation.suspects import suspects
from index.curation.uncertain import uncertain
from index.gallery.folder.gallery import FolderGallery
from tests.index.samples import MODEL, card, gaussians
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows
from vssl.errors import InputError

COUNT, GROUPS = 600, 6


def planted() -> tuple[Rows, set[frozenset[str]], set[str]]:
    """Rows with 20 pairs of views of one image, 15 wrong labels, 3 far outliers."""
    random = np.random.default_rng(0)
    items = gaussians(COUNT, 32, groups=GROUPS)
    mean, variance = items.mean.copy(), np.full_like(items.variance, 0.01)
    for i in range(20):  # item i + 100 is another view of item i
        mean[i + 100] = mean[i] + random.normal(0, 0.1, 32)
    mean[i + 101 : i + 104] = random.normal(0, 6, (3, 32))
    labels: list[str | None] = [f"group{i % GROUPS}" for i in range(COUNT)]
    labels[100:120] = labels[0:20]
    wrong = [f"i{i}" for i in range(300, 315)]
    for i in range(300, 315):
        labels[i] = f"group{(i + 1) % GROUPS}"
    ids = [f"i{i}" for i in range(COUNT)]
    pairs = {frozenset((f"i{i}", f"i{i + 100}")) for i in range(20)}
    rows = Rows(ids, [f"{i}.png" for i in ids], labels, GaussianEmbedding(mean.astype(np.float32), variance))
    return rows, pairs, set(wrong)


@pytest.fixture
def gallery(tmp_path: Path):
    with FolderGallery.create(tmp_path / "gallery", card=card(32), model_id=MODEL, normalise=False) as made:
        made.add(planted()[0])
        yield made


def test_planted_pairs_are_found_first(gallery: FolderGallery) -> None:
    _, pairs, _ = planted()
    found = duplicates(gallery, limit=1000)
    assert {frozenset((d.id, d.other)) for d in found[:20]} == pairs
    assert all(d.probability > 0.9 for d in found[:20])
    assert len(found) < 40
    assert [d.closeness for d in found] == sorted(d.closeness for d in found)
    assert found[0].label == found[0].other_label
    assert np.mean([d.separation for d in found[:20]]) == pytest.approx(
        0.5, abs=0.2
    )  # one view varied, not two
    assert len(duplicates(gallery, limit=7)) == 7


def test_an_exact_copy_is_found_whatever_stands_before_it(tmp_path: Path) -> None:
    items = gaussians(30)
    mean = items.mean.copy()
    mean[29] = mean[28] = mean[3]
    rows = Rows(
        [f"i{i}" for i in range(30)],
        [""] * 30,
        [None] * 30,
        GaussianEmbedding(mean, items.variance),
    )
    with FolderGallery.create(tmp_path / "copies", card=card(), model_id=MODEL) as gallery:
        gallery.add(rows)
        gallery.remove(["i28"])
        (found,) = duplicates(gallery)
        assert {found.id, found.other} == {"i3", "i29"}
        assert (found.closeness, found.separation, found.probability) == (0.0, 0.0, 1.0)


def test_ordinary_neighbours_are_no_copies() -> None:
    random = np.random.default_rng(1)
    ordinary = random.exponential(size=5000) ** (1 / 4)  # the law of nearest neighbours in four dimensions
    copies = np.exp(random.normal(-4, 0.3, 100))
    nearest = np.concatenate([ordinary, copies])
    asked = np.array([0.0, np.exp(-4), 0.3, 1.0, 5.0])
    probability = same_probability(nearest, asked)
    assert probability[:2].min() > 0.95
    assert probability[3:].max() < 0.1
    assert (np.diff(probability) <= 0).all()
    for spread in (ordinary, np.exp(random.normal(0, 0.4, 5000))):
        assert same_probability(spread, np.quantile(spread, [0.0, 0.001, 0.01, 0.5])).max() < 0.5
    assert same_probability(nearest[:100], np.array([0.0, 1.0])).tolist() == [1.0, 0.0]


def test_the_least_certain_come_first(gallery: FolderGallery) -> None:
    rows = planted()[0]
    found = uncertain(gallery, limit=5)
    order = np.argsort(-rows.gaussians.uncertainty, kind="stable")
    assert {d.id for d in found} == {rows.ids[i] for i in order[:5]}
    assert found[0].percentile > 99
    assert uncertain(gallery, limit=1, surest=True)[0].percentile == 0


def test_outliers_are_far_from_everything(tmp_path: Path) -> None:
    rows = planted()[0]
    with FolderGallery.create(
        tmp_path / "g", card=card(32), model_id=MODEL, normalise=False, distance="euclidean"
    ) as gallery:
        gallery.add(rows)
        found = outliers(gallery, limit=4)
    assert {o.id for o in found[:3]} == {"i120", "i121", "i122"}
    assert found[0].distance >= found[1].distance >= found[2].distance > 2 * found[3].distance


def test_wrong_labels_are_suspected(gallery: FolderGallery) -> None:
    _, _, wrong = planted()
    found = suspects(gallery, limit=15)
    assert len({s.id for s in found} & wrong) >= 12
    for suspect in found:
        assert suspect.suggested != suspect.label
        assert 0 <= suspect.own_share <= suspect.share <= 1
    assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)


def test_galleries_with_little_in_them_answer_too(tmp_path: Path) -> None:
    with FolderGallery.create(tmp_path / "g", card=card(), model_id=MODEL) as gallery:
        assert duplicates(gallery) == uncertain(gallery) == outliers(gallery) == []
        with pytest.raises(InputError, match="no labels"):
            suspects(gallery)
        gallery.add(Rows(["a"], ["a.png"], ["x"], gaussians(1)))
        assert duplicates(gallery) == suspects(gallery) == []
        assert len(outliers(gallery)) == len(uncertain(gallery)) == 1
