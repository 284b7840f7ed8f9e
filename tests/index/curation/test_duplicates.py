"""Planted copies are found first, and ordinary neighbours are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.curation.duplicates import duplicates, same_probability
from index.gallery.folder.gallery import FolderGallery
from tests.index.curation.conftest import planted
from tests.index.samples import MODEL, card, gaussians
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.embeddings.store import Rows


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


def test_a_signed_distance_makes_no_copies_of_neighbours(tmp_path: Path) -> None:
    items = gaussians(60)  # too few to whiten
    rows = Rows([f"i{i}" for i in range(60)], [""] * 60, [None] * 60, items)
    found = {}
    for distance in ("cosine", "posterior"):
        place = tmp_path / distance
        with FolderGallery.create(place, card=card(), model_id=MODEL, distance=distance) as gallery:
            gallery.add(rows)
            found[distance] = duplicates(gallery, least=0.0)
    assert found["posterior"] == found["cosine"]
    assert found["posterior"][0].closeness > 0.01


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


def test_few_images_have_few_duplicates(tmp_path: Path) -> None:
    with FolderGallery.create(tmp_path / "g", card=card(), model_id=MODEL) as gallery:
        assert duplicates(gallery) == []
        gallery.add(Rows(["a"], ["a.png"], ["x"], gaussians(1)))
        assert duplicates(gallery) == []
