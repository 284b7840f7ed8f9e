"""The map: neighbours in the gallery are neighbours on it, it is kept, and what comes later lies amid its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.curation.projection import place_items, principal, project, read_map, write_map
from index.gallery.folder.gallery import FolderGallery
from tests.index.samples import MODEL, card, gaussians, part, sample
from vssl.errors import InputError

GROUPS = 5


@pytest.fixture
def gallery(tmp_path: Path):
    rows = sample(400, 16, groups=GROUPS)
    with FolderGallery.create(tmp_path / "gallery", card=card(16), model_id=MODEL) as made:
        made.add(part(rows, slice(0, 380)))
        yield made


def agreement(places: np.ndarray, groups: np.ndarray) -> float:
    """The share of items whose nearest other on the map is of their group, by brute force."""
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return float((groups[apart.argmin(axis=1)] == groups).mean())


def test_what_is_near_in_the_gallery_is_near_on_the_map(gallery: FolderGallery) -> None:
    found = project(gallery, jobs=1)
    groups = np.array([int(id_[1:]) % GROUPS for id_ in found.ids])
    flat = agreement(principal(gaussians(380, 16, groups=GROUPS).mean), groups)
    assert agreement(found.places, groups) > 0.9
    assert agreement(found.places, groups) > flat


def test_the_risk_is_that_of_the_nearest(gallery: FolderGallery) -> None:
    found = project(gallery, jobs=1)
    rows, _ = gallery.contents()
    results = gallery.search(rows.gaussians[:20], 1, exclude=rows.ids[:20])
    expected = [1 - (one.neighbours[0].match_probability or 0) for one in results]
    np.testing.assert_allclose(found.risk[:20], expected, atol=1e-5)


def test_a_map_is_kept_and_later_items_lie_amid_their_neighbours(gallery: FolderGallery) -> None:
    found = project(gallery, jobs=1)
    write_map(gallery.path, found)
    known = read_map(gallery.path)
    assert known is not None
    np.testing.assert_array_equal(known.places, found.places)
    rows = sample(400, 16, groups=GROUPS)
    gallery.add(part(rows, slice(380, 400)))
    gallery.remove(["i0"])
    ids = gallery.listing().ids
    places, risk = place_items(gallery, known, ids)
    assert np.isfinite(places).all()
    np.testing.assert_array_equal(places[:379], found.places[1:])
    assert np.isnan(risk[379:]).all()
    groups = np.array([int(id_[1:]) % GROUPS for id_ in ids])
    apart = np.linalg.norm(places[379:, None] - places[None, :379], axis=2)
    assert (groups[:379][apart.argmin(axis=1)] == groups[379:]).mean() > 0.8


def test_few_items_lie_on_their_principal_directions(tmp_path: Path) -> None:
    with FolderGallery.create(tmp_path / "few", card=card(16), model_id=MODEL) as few:
        with pytest.raises(InputError, match="empty"):
            project(few)
        few.add(sample(3, 16))
        assert np.isfinite(project(few).places).all()


def test_a_gallery_without_a_map_has_none(gallery: FolderGallery) -> None:
    assert read_map(gallery.path) is None
