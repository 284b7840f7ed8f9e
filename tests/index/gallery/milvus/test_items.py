"""Items of a Milvus collection: counted, read page by page, replaced, removed, ranked by inner product."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.index.samples import sample
from vssl.errors import InputError

pytest.importorskip("pymilvus", reason="the extra milvus is not installed")
pytest.importorskip("milvus_lite", reason="Milvus Lite is not installed")

from index.gallery.milvus.items import FIELDS, RemoteItems
from index.gallery.milvus.schema import TEXT, connect, unpack

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
ROWS = sample(1300)  # more than a request writes or a page holds
ENCODED = np.random.default_rng(0).normal(size=(1300, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteItems]:
    uri = str(tmp_path_factory.mktemp("milvus") / "lite.db")
    client = connect(uri)
    made = RemoteItems(client, uri, "items")
    assert (made.count(""), made.entries("", ["id"])) == (0, [])  # before there is a collection
    made.make(16)
    made.make(16)
    made.upsert(ROWS, [{"year": i % 9, "note": None} for i in range(1300)], ENCODED, 1)
    yield made
    client.close()


def test_all_come_back_as_they_went_in(items: RemoteItems) -> None:
    found = sorted(items.entries("", FIELDS), key=lambda entry: int(entry["row"]))
    assert [entry["id"] for entry in found] == ROWS.ids
    assert [entry["label"] for entry in found] == ROWS.labels
    np.testing.assert_array_equal(unpack(found, 8).mean, ROWS.gaussians.mean)
    assert found[5]["metadata"] == {"year": 5}  # an absent value is left out
    assert items.names() == ["year"]
    assert items.count("") == 1300


def test_conditions_count_and_taken_ids_are_named(items: RemoteItems) -> None:
    assert items.count('metadata["year"] == 3') == len(range(3, 1300, 9))
    asked = ["i1", "nobody", 'a"b', *ROWS.ids[600:1200]]
    assert set(items.taken(asked)) == {"i1", *ROWS.ids[600:1200]}
    spread = np.array([0.0, float(np.median(ROWS.gaussians.uncertainty)), 2.0])
    assert items.percentiles(spread.tolist()) == pytest.approx([0.0, 50.0, 100.0], abs=0.1)


def test_the_largest_inner_products_come_first(items: RemoteItems) -> None:
    queries = np.random.default_rng(1).normal(size=(3, 16)).astype(np.float32)
    entries, places, scores = items.ranked(queries, 7, 'metadata["year"] < 5')
    allowed = np.flatnonzero(np.arange(1300) % 9 < 5)
    products = queries.astype(np.float64) @ ENCODED[allowed].T.astype(np.float64)
    order = np.argsort(-products, axis=1)[:, :7]
    for q in range(3):
        assert [entries[at]["id"] for at in places[q]] == [ROWS.ids[allowed[i]] for i in order[q]]
        assert scores[q] == pytest.approx(products[q, order[q, -1]], rel=1e-5)
    assert [int(entry["row"]) for entry in entries] == sorted(int(entry["row"]) for entry in entries)
    none, places, scores = items.ranked(queries, 7, 'metadata["year"] > 99')
    assert (none, places.tolist(), scores.tolist()) == ([], [[-1] * 7] * 3, [-np.inf] * 3)


def test_texts_longer_than_a_field_are_refused(items: RemoteItems) -> None:
    rows = sample(2)
    rows.paths[1] = "ä" * (TEXT // 2 + 1)
    with pytest.raises(InputError, match=f"a text of {TEXT + 2} bytes, Milvus takes at most {TEXT}"):
        items.check_texts(rows)


def test_removed_items_are_gone(items: RemoteItems) -> None:
    items.delete(ROWS.ids[:700])
    assert items.count("") == 600
    items.upsert(sample(700), [{} for _ in range(700)], ENCODED[:700], 2000)
    assert items.count("") == 1300
