"""Two versions of a skill side by side, field by field. Imported late, for it needs rich."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.syntax import ANSI_DARK, ANSI_LIGHT, ANSISyntaxTheme, Syntax
from rich.table import Table
from rich.text import Text

from atom_saas_sync.cli.output import printable
from atom_saas_sync.core.canonical import canonical
from atom_saas_sync.core.comparison import ABSENT, FieldChange

_CONTEXT = 3
_CHANGED_BY = {"local": "changed here", "remote": "changed there", "both": "changed on both sides"}
# No light terminal shows bright colours well, and no dark one a blue that is not bright.
CODE_COLOURS = ANSISyntaxTheme(
    {
        token: ANSI_DARK.get(token, style) if style.color and style.color.name == "blue" else style
        for token, style in ANSI_LIGHT.items()
    }
)
# No background colours: they would be wrong on either a dark or a light terminal.
_MARKS = {"-": "bold red", "+": "bold green", "~": "bold yellow"}


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the view: on each side the number of a line, counted from 0, or None; a gap has neither."""

    mark: str
    left: int | None = None
    right: int | None = None
    skipped: int = 0


def print_comparison(
    out: Console,
    changes: Iterable[FieldChange],
    *,
    left: str = "here (local)",
    right: str = "marketplace (remote)",
    tell_who: bool = True,
) -> None:
    """Print local values on the left and remote ones on the right, with line numbers and context for long texts."""
    for change in changes:
        label = printable(change.name) + (f" · {_CHANGED_BY[change.changed_by]}" if tell_who else "")
        out.print(Rule(Text(label, style="bold"), align="left", style="dim"))
        local, remote = _lines(change.local), _lines(change.remote)
        out.print(_table(change.name, local, remote, left, right, width=out.width))
        if tell_who and change.changed_by == "both" and change.base is not ABSENT and len(_lines(change.base)) == 1:
            out.print(Text.assemble(("base: ", "dim"), *_lines(change.base)), overflow="fold")


def guess_syntax(name: str, text: str) -> str | None:
    """Return the name of the syntax for colours, None for plain text. Most skills are Python or Markdown."""
    if name not in {"code", "command"}:
        return None
    start = text.lstrip()[:2000]
    if start.startswith("---\n") or (start.startswith(("# ", "```")) and "\n## " in text):
        return "markdown"
    first = start.partition("\n")[0]
    if name == "command" or (first.startswith("#!") and "python" not in first):
        return "bash"
    return "python"


def _table(name: str, local: list[str], remote: list[str], left: str, right: str, *, width: int) -> Table:
    long = len(local) > 1 or len(remote) > 1
    table = Table.grid(padding=0, expand=True)
    digits = len(str(max(len(local), len(remote)))) if long else 0
    # Both halves have exactly the same width, or lines would not stand beside each other.
    text_width = max(8, (width - 3 - 2 * (digits + 3)) // 2)
    for _ in range(2):
        table.add_column(width=digits, justify="right", style="dim", no_wrap=True)
        table.add_column(width=3, justify="center", no_wrap=True)
        table.add_column(width=text_width, overflow="fold")
        if len(table.columns) == 3:  # noqa: PLR2004 - between the two halves
            table.add_column(width=3, justify="center", style="dim", no_wrap=True)
    table.add_row("", "", Text(left, style="italic"), "│", "", "", Text(right, style="italic"))
    mine, theirs = _coloured(name, local), _coloured(name, remote)
    for row in _rows(local, remote):
        if row.skipped:
            gap = Text(f"… {row.skipped} equal line{'s' if row.skipped > 1 else ''}", style="dim")
            table.add_row("", "", gap, "│", "", "", gap)
            continue
        marks = {"~": ("~", "~"), "-": ("-", ""), "+": ("", "+"), " ": ("", "")}[row.mark]
        table.add_row(
            *_half(row.left, mine, marks[0], numbered=bool(digits)),
            "│",
            *_half(row.right, theirs, marks[1], numbered=bool(digits)),
        )
    return table


def _half(number: int | None, lines: list[Text], mark: str, *, numbered: bool) -> tuple[str, Text, Text]:
    if number is None:
        return "", Text(""), Text("")
    line = lines[number]
    if mark:
        line = line.copy()
        line.stylize("bold")
    return str(number + 1) if numbered else "", Text(mark, style=_MARKS.get(mark, "")), line


def _rows(local: list[str], remote: list[str]) -> Iterator[_Row]:
    """Yield the rows: every change, and a few equal lines around it."""
    for tag, a, a_end, b, b_end in SequenceMatcher(None, local, remote, autojunk=False).get_opcodes():
        if tag != "equal":
            paired = min(a_end - a, b_end - b)
            yield from (_Row("~", a + each, b + each) for each in range(paired))
            yield from (_Row("-", each) for each in range(a + paired, a_end))
            yield from (_Row("+", None, each) for each in range(b + paired, b_end))
            continue
        length = a_end - a
        head = 0 if a == 0 and b == 0 else _CONTEXT
        tail = 0 if a_end == len(local) and b_end == len(remote) else _CONTEXT
        if length <= head + tail + 1:
            head, tail = length, 0
        yield from (_Row(" ", a + each, b + each) for each in range(head))
        if length > head + tail:
            yield _Row(" ", skipped=length - head - tail)
        yield from (_Row(" ", a + each, b + each) for each in range(length - tail, length))


def _lines(value: Any) -> list[str]:  # noqa: ANN401 - JSON
    """Return a value as lines that a terminal may show."""
    if value is ABSENT:
        return ["(no such field)"]
    if isinstance(value, str):
        return printable(value, lines=True).split("\n")
    if isinstance(value, list) and len(value) > 1:
        return [_one_line(entry) for entry in value]
    if isinstance(value, dict) and len(value) > 1:
        return [f"{printable(name)}: {_one_line(entry)}" for name, entry in sorted(value.items())]
    return [_one_line(value)]


def _one_line(value: Any) -> str:  # noqa: ANN401 - JSON
    return printable(value if isinstance(value, str) else canonical(value).decode())


def _coloured(name: str, lines: list[str]) -> list[Text]:
    text = "\n".join(lines)
    syntax = guess_syntax(name, text)
    if syntax is None:
        return [Text(line) for line in lines]
    coloured = Syntax("", syntax, theme=CODE_COLOURS).highlight(text).split("\n", allow_blank=True)
    # The highlighter may drop blank lines at the ends: then colours are not worth wrong numbers.
    shown = [line.plain for line in coloured[: len(lines)]]
    return list(coloured[: len(lines)]) if shown == lines else [Text(line) for line in lines]
