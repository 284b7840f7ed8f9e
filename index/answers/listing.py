"""Every item of a gallery as columns: what a person browses and filters by. Shape letter: N items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from index.answers.filters import Scalar
from vssl.embeddings.gaussian import Floats

Codes = NDArray[np.uint16]
MOST_VALUES = 1000
"""Different texts that a column may have to be filtered by; a column of more of them names items."""


@dataclass(frozen=True, eq=False)
class NumberColumn:
    """`values` (N,) float32, NaN where an item has none."""

    values: Floats


@dataclass(frozen=True, eq=False)
class TextColumn:
    """`codes` (N,): 0 where an item has none, else one more than the place of its text in `values`."""

    codes: Codes
    values: list[str]


Column = NumberColumn | TextColumn


@dataclass(frozen=True, eq=False)
class Listing:
    """N items in the order they were added, as of one generation; item `row` is the same in every column.

    uncertainty: NaN without variances; metadata: of those rows that have some.
    """

    generation: int
    ids: list[str]
    labels: list[str | None]
    paths: list[str]
    uncertainty: Floats
    metadata: Mapping[int, dict[str, Scalar]]
    _columns: dict[str, Column] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def uncertainty_of(self, row: int) -> float | None:
        """Return an item's uncertainty, None without variances."""
        found = float(self.uncertainty[row])
        return None if np.isnan(found) else found

    @property
    def columns(self) -> Mapping[str, Column]:
        """The columns to filter by: uncertainty, label where there are labels, and the metadata.

        Numbers are numbers, everything else is text; texts of more than MOST_VALUES kinds are left out.
        """
        if not self._columns:
            found: dict[str, Column] = {"uncertainty": NumberColumn(self.uncertainty)}
            given: dict[str, list[Scalar]] = {"label": list(self.labels)}
            for row, entry in self.metadata.items():
                for name, value in entry.items():
                    if name not in given:
                        given[name] = [None] * len(self)
                    given[name][row] = value
            for name, values in given.items():
                column = as_column(values)
                if column is not None:
                    found[name] = column
            self._columns.update(found)
        return self._columns


def as_column(values: Sequence[Scalar]) -> Column | None:
    """Return a column of N values; None where there is no value, or where they are too many texts.

    >>> as_column(["b", None, "a"]).codes.tolist()
    [2, 0, 1]
    """
    there = [value for value in values if value is not None]
    if not there:
        return None
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in there):
        return NumberColumn(np.array([np.nan if v is None else v for v in values], np.float32))
    texts = [None if value is None else _text(value) for value in values]
    names = sorted({text for text in texts if text is not None})
    if len(names) > MOST_VALUES:
        return None
    codes = {name: code for code, name in enumerate(names, start=1)}
    return TextColumn(np.array([0 if t is None else codes[t] for t in texts], np.uint16), names)


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
