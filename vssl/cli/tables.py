"""Rows for a person -> a table on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table

Column = tuple[str, Literal["left", "right"]]
FILE_WIDTH = 160  # columns when stdout is no terminal and has no width of its own


def show_table(title: str, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; long cells fold, nothing is cut."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for name, justify in columns:
        table.add_column(name, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    print_table(table)


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal, or as a file may be."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else FILE_WIDTH, highlight=False).print(table)
