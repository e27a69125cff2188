"""Compare the lines of two texts, in time that grows with their length, whatever they contain.

difflib finds good matches, but its time grows with the cube of the length for repeated lines, and a publisher chooses
the lines. So the texts are first split at lines that occur exactly once in both (patience diff), and difflib compares
the rest only within a budget.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

# Pairs of lines that difflib may compare, per gap and in total: half a second in the worst case found.
_PAIRS_OF_A_GAP = 10_000
_PAIRS_IN_ALL = 100_000


class Block(NamedTuple):
    """A range of lines on each side; `equal` tells whether they are the same."""

    equal: bool
    left: range
    right: range


class _Budget:
    def __init__(self) -> None:
        self._pairs = _PAIRS_IN_ALL

    def allows(self, pairs: int) -> bool:
        if pairs > _PAIRS_OF_A_GAP or pairs > self._pairs:
            return False
        self._pairs -= pairs
        return True


def compare_lines(left: Sequence[Hashable], right: Sequence[Hashable]) -> list[Block]:
    """Return the blocks of both texts in order: equal ones, and between them changed, added or removed ones."""
    blocks: list[Block] = []
    a = b = equal = 0  # where the run of equal lines ends that is not yet a block, and how long it is
    found = [match for match in _matches(left, right) if match[2]]
    for x, y, length in [*found, (len(left), len(right), 0)]:
        if x == a and y == b and length:
            a, b, equal = x + length, y + length, equal + length
            continue
        if equal:
            blocks.append(Block._make((True, range(a - equal, a), range(b - equal, b))))
        if x > a or y > b:
            blocks.append(Block._make((False, range(a, x), range(b, y))))
        a, b, equal = x + length, y + length, length
    return blocks


_Match = tuple[int, int, int]
"""Where equal lines begin on each side, and how many there are."""


def _matches(left: Sequence[Hashable], right: Sequence[Hashable]) -> Iterator[_Match]:
    """Yield the matches in order; none overlap."""
    budget = _Budget()
    head = _common(left, right, range(len(left)), range(len(right)))
    yield 0, 0, head
    a, b = range(head, len(left)), range(head, len(right))
    tail = _common(left, right, a[::-1], b[::-1])
    a, b = a[: len(a) - tail], b[: len(b) - tail]
    x_start, y_start = a.start, b.start
    for x, y in _anchors(left, right, a, b):
        if x == x_start + 1 and y == y_start + 1:  # the most frequent gap, and the shortest way through it
            if left[x_start] == right[y_start]:
                yield x_start, y_start, 1
        elif x > x_start and y > y_start:
            yield from _gap(left, right, range(x_start, x), range(y_start, y), budget)
        yield x, y, 1
        x_start, y_start = x + 1, y + 1
    yield from _gap(left, right, range(x_start, a.stop), range(y_start, b.stop), budget)
    yield a.stop, b.stop, tail


def _common(left: Sequence[Hashable], right: Sequence[Hashable], a: Sequence[int], b: Sequence[int]) -> int:
    count = 0
    for x, y in zip(a, b, strict=False):
        if left[x] != right[y]:
            break
        count += 1
    return count


def _anchors(left: Sequence[Hashable], right: Sequence[Hashable], a: range, b: range) -> list[tuple[int, int]]:
    """Return the longest chain of lines that occur once in both ranges, in the same order."""
    left_once, right_once = _single(left, a), _single(right, b)
    pairs = [(place, right_once[line]) for line, place in left_once.items() if line in right_once]
    ends: list[int] = []  # for each length, the smallest position at which such a chain can end
    chains: list[int] = []  # and the index of that position
    before: list[int] = []
    for index, (_, place) in enumerate(pairs):
        length = len(ends) if not ends or place > ends[-1] else bisect_left(ends, place)
        before.append(chains[length - 1] if length else -1)
        if length == len(ends):
            ends.append(place)
            chains.append(index)
        else:
            ends[length] = place
            chains[length] = index
    chain = []
    index = chains[-1] if chains else -1
    while index >= 0:
        chain.append(pairs[index])
        index = before[index]
    return chain[::-1]


def _single(lines: Sequence[Hashable], places: range) -> dict[Hashable, int]:
    """Return the lines that occur once in this range, with their positions, in order."""
    part = lines[places.start : places.stop]
    last = dict(zip(part, places, strict=True))
    if len(last) == len(part):
        return last
    first = dict(zip(part[::-1], places[::-1], strict=True))
    return {line: place for line, place in last.items() if first[line] == place}


def _gap(left: Sequence[Hashable], right: Sequence[Hashable], a: range, b: range, budget: _Budget) -> Iterator[_Match]:
    """Compare the lines between two anchors; beyond the budget, all of them count as changed."""
    head = _common(left, right, a, b)
    if head:
        yield a.start, b.start, head
    a, b = a[head:], b[head:]
    if len(a) <= 1 and len(b) <= 1:
        return
    tail = _common(left, right, a[::-1], b[::-1])
    rest_a, rest_b = a[: len(a) - tail], b[: len(b) - tail]
    if rest_a and rest_b and budget.allows(len(rest_a) * len(rest_b)):
        mine, theirs = left[rest_a.start : rest_a.stop], right[rest_b.start : rest_b.stop]
        for x, y, length in SequenceMatcher(None, mine, theirs, autojunk=False).get_matching_blocks():
            yield rest_a.start + x, rest_b.start + y, length
    yield rest_a.stop, rest_b.stop, tail
