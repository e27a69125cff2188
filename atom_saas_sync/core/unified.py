"""Differences in unified format, as printed by `diff -u` and read by `patch`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from atom_saas_sync.core.comparison import ABSENT, FieldChange
from atom_saas_sync.core.line_diff import Block, compare_lines

_CONTEXT = 3
_NO_NEWLINE = "\\ No newline at end of file"


def unified_fields(changes: Iterable[FieldChange], before: str, after: str) -> Iterator[str]:
    """Yield the lines of a patch in which each field is a file; `before` and `after` name the versions."""
    for change in changes:
        left, right = _text(change.local), _text(change.remote)
        if left and right and "\n" not in left + right:  # one line each: skip notes about the missing newline
            left, right = f"{left}\n", f"{right}\n"
        yield "--- /dev/null" if change.local is ABSENT else f"--- a/{change.name}\t{before}"
        yield "+++ /dev/null" if change.remote is ABSENT else f"+++ b/{change.name}\t{after}"
        yield from unified(left, right)


def unified(before: str, after: str) -> Iterator[str]:
    """Yield the lines of the hunks, without line ends; nothing if both are equal.

    A last line without an end comes together with the line that says so.
    """
    left, right = _lines(before), _lines(after)
    for hunk in _hunks(compare_lines(left, right)):
        first, last = hunk[0], hunk[-1]
        a, b = range(first.left.start, last.left.stop), range(first.right.start, last.right.stop)
        yield f"@@ -{_place(a)} +{_place(b)} @@"
        for equal, old, new in hunk:
            if equal:
                yield from [f" {line}" for line in left[old.start : old.stop]]
            else:
                yield from [f"-{line}" for line in left[old.start : old.stop]]
                yield from [f"+{line}" for line in right[new.start : new.stop]]


def _text(value: Any) -> str:  # noqa: ANN401 - JSON
    """Return a value as the text of a file: a string as it is, anything else as indented JSON."""
    if value is ABSENT:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def _lines(text: str) -> list[str]:
    """Return the lines without their ends; a last line without an end is marked as such, so it equals no other."""
    lines = text.split("\n")
    if lines[-1]:
        lines[-1] += f"\n{_NO_NEWLINE}"
        return lines
    return lines[:-1]


def _hunks(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Yield the changes, each with a few equal lines around it; changes close together are one."""
    hunk: list[Block] = []
    for place, block in enumerate(blocks):
        if not block.equal:
            hunk.append(block)
            continue
        head = min(_CONTEXT, len(block.left)) if hunk else 0
        tail = min(_CONTEXT, len(block.left)) if place + 1 < len(blocks) else 0
        if hunk and tail and len(block.left) <= head + tail:
            hunk.append(block)
            continue
        if hunk:
            yield [*hunk, Block(equal=True, left=block.left[:head], right=block.right[:head])]
        start = len(block.left) - tail
        hunk = [Block(equal=True, left=block.left[start:], right=block.right[start:])] if tail else []
    if hunk:
        yield hunk


def _place(lines: range) -> str:
    """Return a range in the form of hunks: counted from 1; an empty range follows the line that it names."""
    if len(lines) == 1:
        return str(lines.start + 1)
    return f"{lines.start + 1 if lines else lines.start},{len(lines)}"
