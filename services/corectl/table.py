"""Columns: coloured on a terminal, plain where another program may read them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Column:
    """One column's title and how it is laid out."""

    title: str
    is_number: bool = False


STYLES = {
    "present": "green",
    "truncated": "yellow",
    "missing": "bold red",
    "none": "dim",
    "removed": "dim",
    "RUNNING": "green",
    "STARTING": "yellow",
    "FATAL": "bold red",
}
"""The colours of cells that begin with these words."""

_Rows = Sequence[Sequence[str]]


def print_table(columns: Sequence[Column], rows: _Rows, *, header: bool = True) -> None:
    """Print *rows*, whose cells are safe already, under their titles."""
    if sys.stdout.isatty():
        _print_rich(columns, rows, header=header)
    else:
        for line in plain_lines(columns, rows, header=header):
            print(line)


def plain_lines(columns: Sequence[Column], rows: _Rows, *, header: bool = True) -> list[str]:
    """Lay *rows* out in columns that are as wide as their widest cell."""
    titles = [[column.title for column in columns]] if header else []
    table = [*titles, *rows]
    widths = [max((len(row[place]) for row in table), default=0) for place in range(len(columns))]
    return [
        " ".join(
            cell.rjust(width) if column.is_number else cell.ljust(width)
            for cell, column, width in zip(row, columns, widths, strict=True)
        ).rstrip()
        for row in table
    ]


def _print_rich(columns: Sequence[Column], rows: _Rows, *, header: bool) -> None:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=header, header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        table.add_column(column.title, justify=justify, no_wrap=True)
    for row in rows:
        # Text, and no plain str: a "[" in a process's name is no markup.
        table.add_row(*(Text(cell, style=STYLES.get(cell.split(" ")[0], "")) for cell in row))
    # As wide as it comes: a narrow terminal breaks the lines, where rich would leave columns out.
    cells = zip([column.title for column in columns], *rows, strict=True)
    width = sum(max(map(cell_len, column)) + 2 for column in cells)
    Console(width=width).print(table)
