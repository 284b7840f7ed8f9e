"""The metadata that a gallery holds -> whether a filter can mean anything, and if not, what it may have meant."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from index.answers.filters import COLUMNS, And, Compare, Filter, In, Not, Or, Scalar
from vssl.errors import InputError, shown

Columns = Mapping[str, Mapping[str, int]]  # by name: how many items have a value of each kind there
TEXT, NUMBER, FLAG = "text", "number", "true or false"
AT_ONCE = 1000


def counted(metadata: Iterable[Mapping[str, Scalar]]) -> dict[str, dict[str, int]]:
    """Return the columns of some items' metadata: by name, how many values of each kind they hold.

    >>> counted([{"year": 2020, "make": "x"}, {"year": 2021, "sold": True}])
    {'make': {'text': 1}, 'sold': {'true or false': 1}, 'year': {'number': 2}}
    """
    columns: dict[str, dict[str, int]] = {}
    for entry in metadata:
        for name, value in entry.items():
            if value is not None:
                kind = FLAG if isinstance(value, bool) else _kind(value)
                kinds = columns.setdefault(name, {})
                kinds[kind] = kinds.get(kind, 0) + 1
    return {name: columns[name] for name in sorted(columns)}


def parsed(texts: Iterable[str]) -> Iterator[dict[str, Scalar]]:
    """Yield the metadata that each text holds as a JSON object; several are parsed at once, a million in a second.

    >>> list(parsed(['{"year": 2020}', "{}"]))
    [{'year': 2020}, {}]
    """
    rest = iter(texts)
    while part := list(itertools.islice(rest, AT_ONCE)):
        yield from json.loads(f"[{','.join(part)}]")


def check_columns(tree: Filter, holds: Callable[[Filter], bool], names: Callable[[], Sequence[str]]) -> None:
    """Raise InputError for a comparison that can fit no item: of an unknown column, or of a type no item has there.

    holds: whether any item fits a filter. names: of the metadata that items have.
    Nothing is said of an empty gallery.
    """
    if not holds(And(())):
        return
    for field, kinds, either in _compared(tree):
        if field in COLUMNS:
            held = NUMBER if field == "uncertainty" else TEXT
            missing = [kind for kind in kinds if kind != held]
        else:
            if not holds(Not(Compare(field, "=", None))) and field not in (found := names()):
                known = [*COLUMNS, *found]
                near = difflib.get_close_matches(field, known, 1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise InputError(f"where: no item has {field!r}{hint}; the columns are {', '.join(known)}")
            held = ""
            missing = [kind for kind in kinds if not holds(_OF_KIND[kind](field))]
        if len(missing) > (len(kinds) - 1 if either else 0):
            kind, value = missing[0], kinds[missing[0]]
            raise InputError(
                f"where: {field}: found the {kind} {shown(value)}, "
                + (
                    f"expected a {held}"
                    if held
                    else f"and no item has a {kind} there; "
                    'write a text as {"name": "2020"} and a number as {"name": 2020}'
                )
            )


_OF_KIND: dict[str, Callable[[str], Filter]] = {
    TEXT: lambda field: Compare(field, ">=", ""),
    NUMBER: lambda field: Or((Compare(field, ">=", 0), Compare(field, "<", 0))),
}
"""Whether a field holds a text, or a number; true and false compare as 1 and 0."""


def compared_fields(tree: Filter) -> set[str]:
    """Return the columns that a filter reads."""
    return {field for field, _, _ in _compared(tree)}


def _kind(value: Scalar) -> str:
    return TEXT if isinstance(value, str) else NUMBER


def _compared(tree: Filter) -> Iterator[tuple[str, dict[str, Scalar], bool]]:
    """Yield each field that a filter compares, with what of each kind, and whether one kind suffices."""
    if isinstance(tree, Compare | In):
        values = tree.values if isinstance(tree, In) else (tree.value,)
        either = isinstance(tree, In) and tree.either
        yield tree.field, {_kind(value): value for value in values if value is not None}, either
    else:
        for part in (tree.part,) if isinstance(tree, Not) else tree.parts:
            yield from _compared(part)
