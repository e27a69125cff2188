"""Two versions of a skill side by side, field by field. Imported late, because it needs rich."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.syntax import ANSI_DARK, ANSI_LIGHT, ANSISyntaxTheme, Syntax
from rich.table import Table
from rich.text import Text

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.output import counted
from atom_saas_sync.core.canonical import canonical
from atom_saas_sync.core.comparison import ABSENT, FieldChange
from atom_saas_sync.core.line_diff import compare_lines

_CONTEXT = 3
# Limits for one field, so that the screen appears within a second whatever a publisher sends; --json shows all.
_MOST_ROWS = 400
_LONGEST_LINE = 2000
# Highlighting is far slower than comparing, and its duration depends on the text.
LONGEST_HIGHLIGHTED = 20_000
_CHANGED_BY = {"local": "changed here", "remote": "changed there", "both": "changed on both sides"}
# Bright colours are hard to read on light terminals, and dark blue on dark ones.
CODE_COLOURS = ANSISyntaxTheme(
    {
        token: ANSI_DARK.get(token, style) if style.color and style.color.name == "blue" else style
        for token, style in ANSI_LIGHT.items()
        if token != ("Error",)  # the syntax is only a guess, so errors are not marked
    }
)
_JAVASCRIPT = re.compile(r"(?:/[/*]|(?:export|const|let|var|function|async function)\s|import\b[^\n]*\bfrom\s+[\"'])")
# No background colours: they would be wrong on either a dark or a light terminal.
_MARKS = {"-": "bold red", "+": "bold green", "~": "bold yellow"}


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the view: on each side a line number, from 0, or None; a gap has neither."""

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
        local, remote = _Lines(change.name, change.local), _Lines(change.name, change.remote)
        out.print(_table(local, remote, left, right, width=out.width))
        if tell_who and change.changed_by == "both" and change.base is not ABSENT and len(_lines(change.base)) == 1:
            base = _shown(_lines(change.base)[0], tabs=True)
            out.print(Text.assemble(("base: ", "dim"), base), overflow="fold")


def print_version(out: Console, changes: Iterable[FieldChange]) -> None:
    """Print the remote values of a skill that does not exist locally, with line numbers for long texts."""
    for change in changes:
        out.print(Rule(Text(printable(change.name), style="bold"), align="left", style="dim"))
        lines = _Lines(change.name, change.remote)
        table = Table.grid(padding=(0, 1))
        table.add_column(justify="right", style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for number in range(min(len(lines.raw), _MOST_ROWS)):
            table.add_row(str(number + 1) if len(lines.raw) > 1 else "", lines[number])
        out.print(table)
        if len(lines.raw) > _MOST_ROWS:
            out.print(Text(f"… {counted(len(lines.raw) - _MOST_ROWS, 'more line')}; --json shows all", "bold yellow"))


def guess_syntax(name: str, text: str) -> str | None:
    """Return the name of the syntax for colours, None for plain text.

    Most skills are Python, Markdown or JavaScript.
    """
    if name not in {"code", "command"}:
        return None
    start = text.lstrip()[:2000]
    if start.startswith("---\n") or (start.startswith(("# ", "```")) and "\n## " in text):
        return "markdown"
    first = start.partition("\n")[0]
    if _JAVASCRIPT.match(start) or (first.startswith("#!") and "node" in first):
        return "javascript"
    if name == "command" or (first.startswith("#!") and "python" not in first):
        return "bash"
    return "python"


def _table(local: _Lines, remote: _Lines, left: str, right: str, *, width: int) -> Table:
    longer = max(len(local.raw), len(remote.raw))
    table = Table.grid(padding=0, expand=True)
    digits = len(str(longer)) if longer > 1 else 0
    # Both halves have the same width, so that lines stay side by side.
    text_width = max(8, (width - 3 - 2 * (digits + 3)) // 2)
    for _ in range(2):
        table.add_column(width=digits, justify="right", style="dim", no_wrap=True)
        table.add_column(width=3, justify="center", no_wrap=True)
        table.add_column(width=text_width, overflow="fold")
        if len(table.columns) == 3:  # noqa: PLR2004 - between the two halves
            table.add_column(width=3, justify="center", style="dim", no_wrap=True)
    table.add_row("", "", Text(left, style="italic"), "│", "", "", Text(right, style="italic"))
    for count, row in enumerate(_rows(local.raw, remote.raw)):
        if count == _MOST_ROWS:
            rest = Text("… more differences follow; --json shows all of them", style="bold yellow")
            table.add_row("", "", rest, "│", "", "", rest)
            break
        if row.skipped:
            gap = Text(f"… {counted(row.skipped, 'unchanged line')}", style="dim")
            table.add_row("", "", gap, "│", "", "", gap)
            continue
        marks = {"~": ("~", "~"), "-": ("-", ""), "+": ("", "+"), " ": ("", "")}[row.mark]
        table.add_row(
            *_half(row.left, local, marks[0], numbered=bool(digits)),
            "│",
            *_half(row.right, remote, marks[1], numbered=bool(digits)),
        )
    return table


def _half(number: int | None, lines: _Lines, mark: str, *, numbered: bool) -> tuple[str, Text, Text]:
    if number is None:
        return "", Text(""), Text("")
    line = lines[number]
    if mark:
        line.stylize("bold")
    return str(number + 1) if numbered else "", Text(mark, style=_MARKS.get(mark, "")), line


def _rows(local: list[str], remote: list[str]) -> Iterator[_Row]:
    """Yield the rows: every change, and a few equal lines around it."""
    for equal, left, right in compare_lines(local, remote):
        a, a_end, b, b_end = left.start, left.stop, right.start, right.stop
        if not equal:
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
    """Return a value as lines, unchanged: values that differ in invisible characters must differ."""
    if value is ABSENT:
        return ["(no such field)"]
    if isinstance(value, str):
        return value.split("\n")
    if isinstance(value, list) and value:
        return [_one_line(entry) for entry in value]
    if isinstance(value, dict) and value:
        return [f"{name}: {_one_line(entry)}" for name, entry in sorted(value.items())]
    return [_one_line(value)]


def _one_line(value: Any) -> str:  # noqa: ANN401 - JSON
    return value if isinstance(value, str) else canonical(value).decode()


def _shown(line: str, *, tabs: bool) -> str:
    """Return a printable line, cut to a readable length."""
    rest = len(line) - _LONGEST_LINE
    end = f"… {counted(rest, 'more character')}" if rest > 0 else ""
    line = line[:_LONGEST_LINE]
    return printable(line.expandtabs(4) if tabs else line) + end


class _Lines:
    """The lines of one side, rendered on request: most lines of a long text are never shown."""

    def __init__(self, name: str, value: Any) -> None:  # noqa: ANN401 - JSON
        self.raw = _lines(value)
        self._tabs = isinstance(value, str)
        self._coloured = _coloured(name, value) if isinstance(value, str) else None

    def __getitem__(self, number: int) -> Text:
        if self._coloured is not None:
            return self._coloured[number].copy()
        return Text(_shown(self.raw[number], tabs=self._tabs))


def _coloured(name: str, text: str) -> list[Text] | None:
    syntax = guess_syntax(name, text)
    if syntax is None or len(text) > LONGEST_HIGHLIGHTED:
        return None
    lines = [_shown(line, tabs=True) for line in text.split("\n")]
    coloured = Syntax("", syntax, theme=CODE_COLOURS).highlight("\n".join(lines)).split("\n", allow_blank=True)
    # The highlighter may drop blank lines at the ends; then use no colours rather than wrong numbers.
    shown = [line.plain for line in coloured[: len(lines)]]
    return list(coloured[: len(lines)]) if shown == lines else None
