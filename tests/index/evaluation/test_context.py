"""Both sides side by side: the classes of both, own images left out, only labelled ones where labels count."""

from dataclasses import replace

import numpy as np
import pytest

from index.evaluation.context import FITTED_ON, Settings, make_context, own_rows
from tests.index.evaluation.test_evaluate import dataset
from tests.index.samples import sample
from vssl.errors import InputError, MismatchError

GALLERY = dataset(sample(80))
QUERIES = dataset(sample(30, seed=1, prefix="q"))


def test_classes_are_numbered_over_both_sides() -> None:
    queries = replace(QUERIES, labels=["zebra", None, *QUERIES.labels[2:]])
    context = make_context(GALLERY, queries, Settings())
    assert context.classes == 7
    assert (context.query_codes[0], context.query_codes[1]) == (6, -1)
    assert context.gallery_codes[:7].tolist() == [0, 1, 2, 3, 4, 5, 0]
    assert context.labelled.tolist() == [0, *range(2, 30)]
    unlabelled = make_context(replace(GALLERY, labels=[None] * 80), queries, Settings())
    assert unlabelled.labelled.tolist() == []


def test_a_query_never_finds_its_own_row_nor_unlabelled_ones_where_labels_count() -> None:
    some = [label if i % 2 else None for i, label in enumerate(GALLERY.labels)]
    gallery = replace(GALLERY, labels=some)
    context = make_context(
        gallery, replace(GALLERY, ids=[*GALLERY.ids[:40], *QUERIES.ids, *"abcdefghij"]), Settings()
    )
    np.testing.assert_array_equal(context.own, [*range(40), *[-1] * 40])
    which = np.arange(80)
    rows, distances = context.search(context.control, which, 5, labelled=True)
    assert (rows % 2 == 1).all()
    assert not (rows[:40] == which[:40, None]).any()
    assert [row for row in range(41, 80, 2) if rows[row, 0] != row] == []
    assert (np.diff(distances, axis=1) >= 0).all()


def test_gallery_images_ask_one_another() -> None:
    context = make_context(GALLERY, QUERIES, Settings())
    asking, rows, _ = context.among_itself(3, 0, control=True)
    assert asking.tolist() == list(range(80))
    assert not (rows == asking[:, None]).any()
    few, _, _ = context.among_itself(3, 0, control=True, most=10)
    assert len(few) == 10 < FITTED_ON


def test_another_distance_has_its_own_index_and_cosine_has_the_control() -> None:
    assert (context := make_context(GALLERY, QUERIES, Settings())).index is context.control
    other = make_context(GALLERY, QUERIES, Settings(distance="mls"))
    assert (other.index.name, other.control.name) == ("mls", "cosine")


def test_own_rows_are_found_by_id() -> None:
    assert own_rows(GALLERY, replace(QUERIES, ids=["i3", "x", *QUERIES.ids[2:]])).tolist()[:2] == [3, -1]


def test_what_cannot_stand_side_by_side_is_refused() -> None:
    with pytest.raises(MismatchError, match="extract both with one model"):
        make_context(GALLERY, replace(QUERIES, model_id="b" * 64), Settings())
    with pytest.raises(InputError, match="no images"):
        make_context(dataset(sample(0)), QUERIES, Settings())
    with pytest.raises(InputError, match="positive"):
        Settings(temperature=0)
