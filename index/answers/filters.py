"""A filter in JSON's words (`where`) -> a checked tree -> SQL, or a Milvus expression.

    {"label": "cat"}                                 equality (null: the value is absent)
    {"label": ["cat", "dog"]}                        one of
    {"uncertainty": {"<=": 0.2}, "year": {">": 2019, "<": 2024}}    ranges; several keys mean and
    {"year": {"is": "2020"}}                         as a person writes it: the text, number or truth value
    {"or": [{"label": "cat"}, {"not": {"path": "a.png"}}]}

Fields are `id`, `label`, `path`, `uncertainty` and the names of the gallery's own metadata.
The logic has two values: a comparison with an absent value, or of a number with a text, is
false, and `not` is its exact complement. True and false compare as 1 and 0.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from vssl.errors import InputError, shown
from vssl.files import parse_json

COLUMNS = ("id", "label", "path", "uncertainty")
OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "in", "not in", "is")
FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,63}")
DEPTH = 32
VALUES = 10_000
PARTS = 200
LISTS = (list, tuple, np.ndarray)  # a person's notebook has all of them

Scalar = str | int | float | bool | None
Parameters = list[str | int | float]


@dataclass(frozen=True)
class Compare:
    """One field against one value; `operator` is one of = < <= > >=."""

    field: str
    operator: str
    value: Scalar


@dataclass(frozen=True)
class In:
    """One field equal to any of the values; `either`: they are two readings of one."""

    field: str
    values: tuple[Scalar, ...]
    either: bool = False


@dataclass(frozen=True)
class And:
    """All parts hold; no parts: always true."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Or:
    """At least one part holds; no parts: never true."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Not:
    """The part does not hold."""

    part: Filter


Filter = Compare | In | And | Or | Not
Where = Mapping[str, object]


def parse_filter(where: Where) -> Filter:
    """Return the tree of a filter; raises InputError that names the part it cannot read."""
    tree = _parse(where, DEPTH)
    if (found := _size(tree)) > PARTS:
        raise InputError(
            f"where: found {found} conditions, expected at most {PARTS}; name many values of one field in a list"
        )
    return tree


def _size(tree: Filter) -> int:
    """Count the conditions of a filter: the cost of asking for it, and the depth of SQL's expression."""
    if isinstance(tree, (And, Or)):
        return 1 + sum(map(_size, tree.parts))
    return 1 + _size(tree.part) if isinstance(tree, Not) else 1


def parse_where(text: str) -> dict[str, object]:
    """Read a filter written as JSON, or as `field=value`, which stands for `{field: {"is": value}}`."""
    if not text.lstrip().startswith("{"):
        field, found, value = text.partition("=")
        if not found:
            raise InputError(f"where: found {shown(text)}, expected JSON as in {EXAMPLE}, or field=value")
        return {_field(field.strip()): {"is": value.strip()}}
    try:
        where: dict[str, object] = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"where: not JSON ({error}); expected as in {EXAMPLE}") from None
    parse_filter(where)
    return where


def _as_written(text: str) -> tuple[Scalar, ...]:
    """Return what a person may mean who writes a text: it, and the number or the truth value that it is."""
    if text in ("true", "false"):
        return text, int(text == "true")
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return (text, number) if math.isfinite(number) and abs(number) < 2**63 else (text,)
    return (text,)


EXAMPLE = '{"label": ["cat", "dog"], "uncertainty": {"<=": 0.2}}'


def _parse(where: object, depth: int) -> Filter:
    if not isinstance(where, Mapping):
        raise InputError(f"where: found {shown(where)}, expected an object as in {EXAMPLE}")
    if depth == 0:
        raise InputError(f"where: nested deeper than {DEPTH}")
    parts: list[Filter] = []
    for key, value in where.items():
        if key in ("and", "or"):
            if not isinstance(value, list):
                raise InputError(f"where: {key!r} takes a list of filters, found {shown(value)}")
            inner = tuple(_parse(part, depth - 1) for part in value)
            parts.append(And(inner) if key == "and" else Or(inner))
        elif key == "not":
            parts.append(Not(_parse(value, depth - 1)))
        else:
            parts.extend(_conditions(_field(key), value))
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _field(name: object) -> str:
    if not isinstance(name, str) or not FIELD.fullmatch(name) or name in ("and", "or", "not"):
        raise InputError(
            f"where: found the field {shown(name)}, expected a name of letters, digits, '_', '.', '-'"
        )
    return name


def _conditions(field: str, value: object) -> list[Filter]:
    if isinstance(value, LISTS):
        return [In(field, _scalars(field, value))]
    if not isinstance(value, Mapping):
        return [Compare(field, "=", _scalar(field, value))]
    parts: list[Filter] = []
    for operator, operand in value.items():
        if operator not in OPERATORS:
            raise InputError(
                f"where: {field}: found the operator {shown(operator)}, expected one of {OPERATORS}"
            )
        if operator in ("in", "not in"):
            if not isinstance(operand, LISTS):
                raise InputError(f"where: {field}: {shown(operator)} takes a list, found {shown(operand)}")
            member = In(field, _scalars(field, operand))
            parts.append(member if operator == "in" else Not(member))
        elif operator == "is":
            if not isinstance(operand, str):
                raise InputError(f"where: {field}: 'is' takes a text, found {shown(operand)}")
            parts.append(In(field, _scalars(field, _as_written(operand)), either=True))
        elif operator == "!=":
            parts.append(Not(Compare(field, "=", _scalar(field, operand))))
        else:
            scalar = _scalar(field, operand)
            if operator != "=" and scalar is None:
                raise InputError(
                    f"where: {field}: null has no order; {shown(operator)} takes a number or a text"
                )
            parts.append(Compare(field, operator, scalar))
    return parts


def _scalars(field: str, values: Collection[object]) -> tuple[Scalar, ...]:
    if len(values) > VALUES:
        raise InputError(f"where: {field}: found {len(values)} values, expected at most {VALUES}")
    return tuple(_scalar(field, value) for value in values)


def _scalar(field: str, value: object) -> Scalar:
    if isinstance(value, np.generic):  # as a column of a table hands it out
        value = value.item()
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InputError(f"where: {field}: {shown(value)} does not fit 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"where: {field}: found {value}, expected a finite number")
    if isinstance(value, str) and not value.isascii() and re.search("[\ud800-\udfff]", value):
        raise InputError(
            f"where: {field}: found {shown(value)}, expected whole characters, found half of one"
        )
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise InputError(f"where: {field}: found {shown(value)}, expected a text, a number, true, false or null")


def to_sql(tree: Filter) -> tuple[str, Parameters]:
    """Return a SQL condition over the table `items` and its parameters; it is 0 or 1, never NULL."""
    if isinstance(tree, Compare):
        column, parameters = _column(tree.field)
        if tree.value is None:
            return f"({column} IS NULL)", parameters
        kinds = "('text')" if isinstance(tree.value, str) else "('integer', 'real')"
        sql = f"(typeof({column}) IN {kinds} AND ({column} {tree.operator} ?) IS TRUE)"
        return sql, [*parameters, *parameters, tree.value]
    if isinstance(tree, In):
        present = [value for value in tree.values if value is not None]
        column, parameters = _column(tree.field)
        # One JSON parameter holds any number of values; json_each keeps text and numbers apart.
        sql = f"(({column} IN (SELECT value FROM json_each(?))) IS TRUE"
        parameters = [*parameters, json.dumps(present)]
        if len(present) < len(tree.values):
            column, again = _column(tree.field)
            sql, parameters = f"{sql} OR {column} IS NULL", [*parameters, *again]
        return f"{sql})", parameters
    if isinstance(tree, Not):
        sql, parameters = to_sql(tree.part)
        return f"(NOT {sql})", parameters
    joint, empty = (" AND ", "1") if isinstance(tree, And) else (" OR ", "0")
    pairs = [to_sql(part) for part in tree.parts]
    return f"({joint.join(sql for sql, _ in pairs) or empty})", [p for _, ps in pairs for p in ps]


def _column(field: str) -> tuple[str, Parameters]:
    if field in COLUMNS:
        return f"+{field}", []  # the plus keeps SQLite from turning the number 5 into the text '5'
    return "json_extract(metadata, ?)", [f'$."{field}"']


ALWAYS, NEVER = "(row >= 0)", "(row < 0)"  # every stored item has a row number


def to_milvus(tree: Filter) -> str:
    """Return the same condition in Milvus's expression language; metadata lives in its field `metadata`.

    Milvus leaves an absent value out of a comparison and of its negation alike, so negations are
    carried down to the comparisons and say there that absence counts.
    """
    return _milvus(tree, negated=False)


def _milvus(tree: Filter, *, negated: bool) -> str:
    if isinstance(tree, Not):
        return _milvus(tree.part, negated=not negated)
    if isinstance(tree, Compare):
        return _milvus_compare(tree, negated=negated)
    if isinstance(tree, In):
        tree = Or(tuple(Compare(tree.field, "=", value) for value in tree.values))
    conjunction = isinstance(tree, And) != negated
    parts = [_milvus(part, negated=negated) for part in tree.parts]
    if not parts:
        return ALWAYS if conjunction else NEVER
    return f"({(' and ' if conjunction else ' or ').join(parts)})"


def _milvus_compare(tree: Compare, *, negated: bool) -> str:
    own = tree.field in COLUMNS
    field = tree.field if own else f'metadata["{tree.field}"]'
    if own and tree.field != "label":  # always there
        present, absent = ALWAYS, NEVER
    else:
        present, absent = (
            (f"({field} is not null)", f"({field} is null)")
            if own
            else (f"(exists {field})", f"(not exists {field})")
        )
    if tree.value is None:
        return present if negated else absent
    if own and isinstance(tree.value, str) == (tree.field == "uncertainty"):
        return ALWAYS if negated else NEVER  # a number never equals a text
    operator = "==" if tree.operator == "=" else tree.operator
    condition = f"({field} {operator} {json.dumps(tree.value, ensure_ascii=False)})"
    return f"({absent} or (not {condition}))" if negated else condition
