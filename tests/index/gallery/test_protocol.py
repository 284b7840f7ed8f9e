"""What every gallery promises, tried on a folder and on Milvus: one specification for both."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.gallery.adding import add_embeddings
from index.gallery.folder.gallery import FolderGallery
from index.gallery.open import is_gallery, open_gallery
from index.gallery.protocol import Gallery
from tests.index.brute import brute, ids
from tests.index.gallery.folder.test_build import embeddings
from tests.index.samples import MODEL, card, gaussians, part, sample
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import ExistsError, InputError, MismatchError
from vssl.model.card import UncertaintyFit

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
ROWS, QUERIES = sample(120), gaussians(4, seed=5)
METADATA = [{"year": 2000 + i % 20, "make": f"m{i % 3}"} if i % 4 else {} for i in range(120)]
Create = Callable[[], Gallery]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("milvus") / "lite.db")


@pytest.fixture(params=["folder", "milvus"])
def create(
    request: pytest.FixtureRequest, tmp_path: Path, numbers: Iterator[int]
) -> Iterator[Callable[[], Gallery]]:
    """Makes empty galleries of one kind, and closes them."""
    made: list[Gallery] = []
    uri: str = request.getfixturevalue("uri")

    def folder() -> Gallery:
        place = tmp_path / f"gallery{next(numbers)}"
        return FolderGallery.create(place, card=card(), model_id=MODEL)

    def milvus() -> Gallery:
        pytest.importorskip("pymilvus", reason="the extra milvus is not installed")
        pytest.importorskip("milvus_lite", reason="Milvus Lite is not installed")
        from index.gallery.milvus.gallery import MilvusGallery

        return MilvusGallery.create(uri, f"g{next(numbers)}", card=card(), model_id=MODEL)

    def new() -> Gallery:
        made.append(folder() if request.param == "folder" else milvus())
        return made[-1]

    yield new
    for gallery in made:
        gallery.close()


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return itertools.count()


@pytest.fixture
def gallery(create: Create) -> Gallery:
    made = create()
    made.add(ROWS, metadata=METADATA)
    return made


def test_it_says_what_it_is(gallery: Gallery) -> None:
    assert (gallery.card, gallery.model_id, gallery.normalise) == (card(), MODEL, True)
    assert (gallery.distance, gallery.fitting, gallery.stale, gallery.generation) == ("cosine", None, None, 1)
    assert len(gallery) == 120
    facts = gallery.info()
    assert facts["path"] == gallery.place
    assert (facts["items"], facts["dim"], facts["model"], facts["generation"]) == (120, 8, "sample", 1)
    assert facts["metadata"] == {"make": {"text": 90}, "year": {"number": 90}} == gallery.columns()


def test_it_opens_again_where_it_says_it_is(create: Create) -> None:
    made = create()
    made.add(ROWS, metadata=METADATA)
    expected = ids(made.search(QUERIES, 5))
    made.close()
    assert is_gallery(made.place)
    with open_gallery(made.place, read_only=True) as again:
        assert ids(again.search(QUERIES, 5)) == expected
        rows, metadata = again.contents()
        assert (rows.ids, rows.paths, rows.labels, metadata) == (ROWS.ids, ROWS.paths, ROWS.labels, METADATA)
        np.testing.assert_array_equal(rows.gaussians.variance, ROWS.gaussians.variance)


def test_it_finds_what_brute_force_finds(gallery: Gallery) -> None:
    found = gallery.search(QUERIES, 7, model_id=MODEL)
    assert ids(found) == brute(ROWS, QUERIES, 7)
    for answer, spread in zip(found, QUERIES.uncertainty, strict=True):
        assert answer.uncertainty == pytest.approx(spread)
        assert answer.uncertainty_percentile == pytest.approx(
            100 * (ROWS.gaussians.uncertainty < spread).mean()
        )
        assert answer.abstain is None
        for neighbour in answer.neighbours:
            row = ROWS.ids.index(neighbour.id)
            assert (neighbour.label, neighbour.path) == (ROWS.labels[row], ROWS.paths[row])
            assert neighbour.metadata == METADATA[row]
    item = gallery.get("i7")
    assert (item.label, item.path, item.metadata) == ("group1", "photos/i7.png", METADATA[7])
    np.testing.assert_array_equal(item.mean, ROWS.gaussians.mean[7])


def test_it_keeps_to_filters_and_bounds(gallery: Gallery) -> None:
    new = np.array([entry.get("year", 0) >= 2010 for entry in METADATA])
    assert ids(gallery.search(QUERIES, 7, where={"year": {">=": 2010}})) == brute(ROWS, QUERIES, 7, keep=new)
    limit = float(np.median(ROWS.gaussians.uncertainty))
    sure = ROWS.gaussians.uncertainty <= np.float32(limit)
    assert ids(gallery.search(QUERIES, 7, max_uncertainty=limit)) == brute(ROWS, QUERIES, 7, keep=sure)
    assert (
        ids(gallery.search(QUERIES, 7, where={"year": {"is": "2003"}}))[0]
        == (brute(ROWS, QUERIES, 7, keep=np.array([entry.get("year") == 2003 for entry in METADATA]))[0])
    )
    own = gallery.search(ROWS.gaussians[:3], 4, exclude=ROWS.ids[:3])
    assert all(ROWS.ids[q] not in answer and len(answer) == 4 for q, answer in enumerate(ids(own)))


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ({"yaer": 2003}, r"no item has 'yaer' \(did you mean 'year'\?\); the columns are id, label"),
        ({"make": 5}, "make: found the number 5, and no item has a number there"),
        ({"year": {"is": "new"}}, "year: found the text 'new', and no item has a text there"),
        ({"label": {"like": "c"}}, "found the operator 'like'"),
    ],
)
def test_it_refuses_a_filter_that_can_fit_nothing(gallery: Gallery, where: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        gallery.search(QUERIES, 3, where=where)
    with pytest.raises(InputError, match=told):
        gallery.remove_where(where)
    assert len(gallery) == 120


def test_it_refuses_what_is_not_its_own(gallery: Gallery) -> None:
    with pytest.raises(MismatchError, match=r"bbbbbbbbbbbb.*aaaaaaaaaaaa.*vssl extract .* vssl index"):
        gallery.search(QUERIES, 1, model_id="b" * 64)
    with pytest.raises(MismatchError):
        gallery.add(sample(1, prefix="j"), model_id="b" * 64)
    with pytest.raises(InputError, match=r"found vectors of 4 dimensions.*holds 8"):
        gallery.search(gaussians(1, 4), 1)
    with pytest.raises(InputError, match="4 dimensions"):
        gallery.add(sample(1, 4, prefix="j"))
    with pytest.raises(InputError, match="k: found 0"):
        gallery.search(QUERIES, 0)
    with pytest.raises(InputError, match="exclude: found 1 ids for 4"):
        gallery.search(QUERIES, 1, exclude=["i0"])
    with pytest.raises(InputError, match="no item 'x'"):
        gallery.get("x")
    with pytest.raises(ExistsError, match="--replace"):
        gallery.add(sample(3))
    assert len(gallery) == 120


def test_it_changes_item_by_item(gallery: Gallery) -> None:
    gallery.add(sample(5, seed=9), replace=True)
    np.testing.assert_array_equal(gallery.get("i4").mean, sample(5, seed=9).gaussians.mean[4])
    assert gallery.remove(["i0", "i0", "nobody"]) == 1
    assert gallery.remove_where({"label": "group1"}) == 20
    assert len(gallery) == 99
    assert gallery.generation == 4
    assert len(gallery.search(gaussians(1), 200)[0].neighbours) == 99


def test_an_empty_one_answers_nothing_and_refuses_no_filter(create: Create) -> None:
    gallery = create()
    (answer,) = gallery.search(gaussians(1), 3, where={"year": 2003})
    assert (answer.neighbours, answer.uncertainty_percentile) == ([], None)
    assert gallery.search(gaussians(0), 3) == []
    assert gallery.columns() == {}
    assert gallery.contents()[0].ids == []


def test_what_it_cannot_do_it_says(gallery: Gallery) -> None:
    """A folder calibrates a risk and knows every item's neighbours; Milvus says what to do instead."""
    if isinstance(gallery, FolderGallery):
        assert gallery.search(QUERIES, 3, max_risk=0.3)[0].abstain in (True, False)
        assert len(gallery.search(QUERIES, 3, max_risk=0.3)[0].neighbours) == 3
        assert len(gallery.neighbourhood(2)) == 120
        return
    for ask in (
        lambda: gallery.search(QUERIES, 3, max_risk=0.3),
        lambda: gallery.abstention(0.3),
        lambda: gallery.neighbourhood(2),
    ):
        with pytest.raises(InputError, match=r"needs a gallery folder, found milvus:.* vssl gallery move"):
            ask()


def test_an_embeddings_folder_goes_in_with_its_metadata(create: Create, tmp_path: Path) -> None:
    source, table = embeddings(tmp_path / "embeddings"), tmp_path / "metadata.csv"
    table.write_text("id,year\ni20,2020\nx,1999\n")
    gallery = create()
    assert add_embeddings(gallery, source, metadata=table).images == 30
    assert (gallery.get("i20").metadata, gallery.get("i1").metadata) == ({"year": 2020}, {})
    table.write_text("id,year\nphotos/i20.png,2020\n")
    with pytest.raises(
        InputError, match=r"none of its 1 ids, such as 'photos/i20.png', is among .* such as 'i0'"
    ):
        add_embeddings(gallery, source, replace=True, metadata=table)


def test_additions_after_additions_are_found(create: Create) -> None:
    gallery = create()
    for start in range(0, 120, 40):
        gallery.add(part(ROWS, slice(start, start + 40)))
    assert ids(gallery.search(QUERIES, 7)) == brute(ROWS, QUERIES, 7)


def test_an_uncertainty_that_was_predicted_stays(create: Create) -> None:
    made = create()
    predicted = np.linspace(0, 1, 5, dtype=np.float32)
    given = sample(5)
    spread = GaussianEmbedding(given.gaussians.mean, given.gaussians.variance, predicted)
    made.card = replace(card(), uncertainty_fit=UncertaintyFit(images=300))
    made.add(replace(given, gaussians=spread))
    kept, _ = made.contents()
    np.testing.assert_array_equal(kept.gaussians.uncertainty, predicted)
