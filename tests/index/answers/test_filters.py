"""Filters mean the same in SQL as in plain Python, for any filter and any stored value."""

import json
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.answers.filters import (
    And,
    Compare,
    Filter,
    In,
    Not,
    Or,
    parse_filter,
    parse_where,
    to_milvus,
    to_sql,
)
from vssl.errors import InputError


def holds(tree: Filter, item: dict) -> bool:
    """The definition: two-valued, numbers and texts never compare."""
    if isinstance(tree, And):
        return all(holds(p, item) for p in tree.parts)
    if isinstance(tree, Or):
        return any(holds(p, item) for p in tree.parts)
    if isinstance(tree, Not):
        return not holds(tree.part, item)
    found = item.get(tree.field)
    if isinstance(tree, In):
        return any(holds(Compare(tree.field, "=", value), item) for value in tree.values)
    if tree.value is None or found is None:
        return tree.value is None and found is None
    if isinstance(found, str) != isinstance(tree.value, str):
        return False
    order = (found > tree.value) - (found < tree.value)
    return {"=": order == 0, "<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}[
        tree.operator
    ]


texts = st.sampled_from(["", "a", "b", "5", "5.0", "Ä", "a'b", 'a"b', "\U0001f408"])
numbers = st.sampled_from([0, 1, 5, -3, 2.5, 5.0, 2**53, 1e300])
values = st.one_of(st.none(), texts, numbers, st.booleans())
fields = st.sampled_from(["id", "label", "path", "uncertainty", "year", "camera.make"])
conditions = st.one_of(
    values,
    st.lists(values, max_size=3),
    st.dictionaries(st.sampled_from(["=", "!="]), values, max_size=2),
    st.dictionaries(st.sampled_from(["<", "<=", ">", ">="]), st.one_of(texts, numbers), max_size=2),
    st.dictionaries(st.sampled_from(["in", "not in"]), st.lists(values, max_size=3), max_size=2),
)
filters = st.recursive(
    st.dictionaries(fields, conditions, max_size=2),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"and": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"or": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=5,
)
items = st.fixed_dictionaries(
    {"label": st.one_of(st.none(), texts), "uncertainty": st.sampled_from([0.0, 0.5, 1.0]), "path": texts},
    optional={"year": values, "camera.make": values},
)


@given(filters, st.lists(items, min_size=1, max_size=4))
def test_sql_keeps_what_the_definition_keeps(where: dict, stored: list[dict]) -> None:
    db = sqlite3.connect(":memory:")
    db.execute(
        "CREATE TABLE items (row INTEGER PRIMARY KEY, id TEXT, label TEXT, path TEXT, uncertainty REAL, metadata TEXT)"
    )
    for row, item in enumerate(stored):
        item["id"] = str(row)
        extra = {name: item[name] for name in ("year", "camera.make") if name in item}
        db.execute(
            "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)",
            (row, item["id"], item["label"], item["path"], item["uncertainty"], json.dumps(extra)),
        )
    tree = parse_filter(where)
    sql, parameters = to_sql(tree)
    found = [row for (row,) in db.execute(f"SELECT row FROM items WHERE {sql} ORDER BY row", parameters)]
    assert found == [row for row, item in enumerate(stored) if holds(tree, item)]
    db.close()


@pytest.mark.parametrize(
    "where", [{"label": [5]}, {"label": 5}, {"uncertainty": ["0.5"]}, {"uncertainty": "0.5"}, {"year": ["7"]}]
)
def test_a_number_is_never_the_text_that_writes_it(where: dict) -> None:
    """SQLite compares a column of texts with numbers as texts unless it is kept from doing so."""
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE items (label TEXT, uncertainty REAL, metadata TEXT)")
    db.execute("""INSERT INTO items VALUES ('5', 0.5, '{"year": 7}')""")
    sql, parameters = to_sql(parse_filter(where))
    assert db.execute(f"SELECT count(*) FROM items WHERE {sql}", parameters).fetchone() == (0,)
    db.close()


def test_not_is_the_complement_even_of_an_absent_value() -> None:
    assert holds(parse_filter({"not": {"label": "cat"}}), {"label": None})
    assert holds(parse_filter({"label": {"!=": "cat"}}), {"label": None})
    assert not holds(parse_filter({"label": {">": ""}}), {"label": None})


@pytest.mark.parametrize(
    "where",
    [
        [],
        {"label": {"like": "c%"}},
        {"label": {"in": "cat"}},
        {"and": {"label": "cat"}},
        {"not": []},
        {"label; DROP TABLE items": 1},
        {'a"b': 1},
        {"year": {"<": None}},
        {"year": {"is": 2020}},
        {"year": float("nan")},
        {"year": {"<": float("inf")}},
        {"year": 2**70},
        {"year": {"=": {"a": 1}}},
        {"year": list(range(10_001))},
    ],
)
def test_what_cannot_be_read_is_refused(where: object) -> None:
    with pytest.raises(InputError, match="where"):
        parse_filter(where)  # type: ignore[arg-type]


def test_a_bomb_of_nested_filters_is_refused() -> None:
    where: dict = {"label": "cat"}
    for _ in range(1000):
        where = {"not": where}
    with pytest.raises(InputError, match="nested deeper"):
        parse_filter(where)


def test_a_person_may_write_field_equals_value() -> None:
    assert parse_where("label=a=b") == {"label": {"is": "a=b"}}
    assert parse_filter(parse_where("year=2020")) == In("year", ("2020", 2020), either=True)
    assert parse_filter(parse_where("iso= 1.5")) == In("iso", ("1.5", 1.5), either=True)
    assert parse_filter(parse_where("year=1e999")) == In("year", ("1e999",), either=True)
    assert parse_filter(parse_where("sold=true")) == In("sold", ("true", 1), either=True)
    assert parse_where(' {"year": {">": 2019}}') == {"year": {">": 2019}}
    for text in ("label", "{label: cat}", '{"label": {"~": 1}}'):
        with pytest.raises(InputError, match="where"):
            parse_where(text)


def test_milvus_reads_the_same_words() -> None:
    where = {"label": ["cat", None], "year": {">=": 2019}, "not": {"label": 'a"b'}}
    assert to_milvus(parse_filter(where)) == (
        '(((label == "cat") or (label is null)) and (metadata["year"] >= 2019)'
        ' and ((label is null) or (not (label == "a\\"b"))))'
    )
