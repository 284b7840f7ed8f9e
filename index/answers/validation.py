"""Rows and metadata -> what a gallery takes in, or why it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from index.answers.filters import COLUMNS, FIELD, Scalar
from vssl.embeddings.store import Rows
from vssl.errors import InputError

Metadata = Mapping[str, Scalar]
RESERVED = (*COLUMNS, "and", "or", "not")


def admitted(rows: Rows, metadata: Sequence[Metadata] | None) -> list[dict[str, Scalar]]:
    """Return the metadata of N rows, one flat mapping each.

    Raises InputError for an id given twice, for metadata of another length, and for a name or a
    value that a filter could not ask for.
    """
    if len(set(rows.ids)) != len(rows):
        seen: set[str] = set()
        for id_ in rows.ids:
            if id_ in seen:
                raise InputError(f"the id {id_!r} is given twice; ids must be unique")
            seen.add(id_)
    if metadata is None:
        return [{} for _ in range(len(rows))]
    if len(metadata) != len(rows):
        raise InputError(f"metadata: found {len(metadata)} entries for {len(rows)} rows")
    return [{name: _value(name, value) for name, value in entry.items()} for entry in metadata]


def _value(name: object, value: object) -> Scalar:
    if not isinstance(name, str) or not FIELD.fullmatch(name) or name in RESERVED:
        raise InputError(
            f"metadata: found the name {name!r}, expected letters, digits, '_', '.', '-', "
            f"and none of {', '.join(RESERVED)}"
        )
    if isinstance(value, (str, bool, type(None))):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, float) and np.isfinite(value):
        return value
    raise InputError(
        f"metadata: {name}: found {value!r}, expected a text, a finite number, true, false or null"
    )
