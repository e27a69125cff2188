"""Tables for lists: fitted to the terminal, and uncut in a file or pipe."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from atom_saas_sync.characters import printable

_GAP = 2
_LONGEST_ID = 64
"""A longer id is printed in full, but does not widen the column."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column. On a narrow terminal, columns with the highest `drop` are left out first; 0 is never left out.

    Columns that may be cut are cut first, down to `least` cells.
    """

    head: str
    drop: int = 0
    cut: bool = False
    right: bool = False
    least: int = 8


def print_table(columns: Sequence[Column], lines: Sequence[Sequence[str]]) -> None:
    """Print a table with column headings. Without rows, print nothing.

    Not with rich's table, which takes a second for a thousand rows.
    """
    from rich.cells import cell_len

    if not lines:
        return
    rows = [[column.head for column in columns], *([printable(cell) for cell in line] for line in lines)]
    widths = [
        min(_LONGEST_ID if _is_id(column) else sys.maxsize, max(cell_len(row[place]) for row in rows))
        for place, column in enumerate(columns)
    ]
    shown = fitted(columns, widths, shutil.get_terminal_size((0, 0)).columns or None)
    for row in rows:
        cells = [
            _cell(row[place], width, columns[place]) for place, width in enumerate(shown) if width is not None and width
        ]
        sys.stdout.write((" " * _GAP).join(cells).rstrip() + "\n")
    sys.stdout.flush()


def print_lines(lines: Iterable[str]) -> None:
    """Print lines of text; on a terminal, wrapped between words."""
    from rich.text import Text

    from atom_saas_sync.cli.output import console

    out = console(whole_lines=True)
    for line in lines:
        out.print(Text(printable(line, lines=True)), soft_wrap=not sys.stdout.isatty())
    sys.stdout.flush()


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns; a value may have several lines."""
    from rich.table import Table
    from rich.text import Text

    from atom_saas_sync.cli.output import console

    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column(overflow="fold")
    for name, value in facts:
        lines.add_row(name, Text(printable(value, lines=True)))
    console(whole_lines=True).print(lines)
    sys.stdout.flush()


def fitted(columns: Sequence[Column], widths: Sequence[int], room: int | None) -> list[int | None]:
    """Return the column widths that fit into `room` cells (None: unlimited); None for columns left out.

    Columns start with their minimum width, most important first; remaining space widens the cut ones.
    """
    if room is None:
        return list(widths)
    shown: list[int | None] = [None] * len(widths)
    least = [min(width, column.least) if column.cut else width for column, width in zip(columns, widths, strict=True)]
    for place in sorted(range(len(columns)), key=lambda place: columns[place].drop):
        shown[place] = least[place]
        if columns[place].drop and _total(shown) > room:
            shown[place] = None
    cut = {at for at, column in enumerate(columns) if column.cut and shown[at] is not None}
    while _total(shown) < room and (growing := {at: least[at] for at in cut if least[at] < widths[at]}):
        narrowest = min(growing, key=lambda at: growing[at])
        least[narrowest] += 1
        shown[narrowest] = least[narrowest]
    return shown


def _is_id(column: Column) -> bool:
    return not column.drop and not column.cut


def _total(widths: Sequence[int | None]) -> int:
    taken = [width for width in widths if width]
    return sum(taken) + _GAP * (len(taken) - 1)


def _cell(text: str, width: int, column: Column) -> str:
    from rich.cells import cell_len, set_cell_size

    length = cell_len(text)
    if length > width:
        return text if _is_id(column) else set_cell_size(text, width - 1) + "…"
    padding = " " * (width - length)
    return padding + text if column.right else text + padding
