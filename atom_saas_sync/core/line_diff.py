"""Which lines of two texts are equal, in time that grows with their length, whatever is in them.

difflib finds good matches, but its time grows with the cube of the length for repeated lines, and a publisher chooses
the lines. So the texts are first cut at lines that stand exactly once in both (patience diff), and difflib looks at
what is left only within a budget.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

# Pairs of lines that difflib may compare, of one gap and in all: half a second in the worst case that was found.
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
    """Return the blocks of both texts in order: equal ones, and between them what was changed, added or removed."""
    blocks: list[Block] = []
    for block in _blocks(left, right, range(len(left)), range(len(right)), _Budget()):
        if not block.left and not block.right:
            continue
        if blocks and blocks[-1].equal == block.equal:
            before = blocks.pop()
            block = Block(  # noqa: PLW2901 - the two are one
                block.equal, range(before.left.start, block.left.stop), range(before.right.start, block.right.stop)
            )
        blocks.append(block)
    return blocks


def _blocks(
    left: Sequence[Hashable], right: Sequence[Hashable], a: range, b: range, budget: _Budget
) -> Iterator[Block]:
    head = _common(left, right, a, b)
    yield Block(equal=True, left=a[:head], right=b[:head])
    a, b = a[head:], b[head:]
    tail = _common(left, right, a[::-1], b[::-1])
    ends = Block(equal=True, left=a[len(a) - tail :], right=b[len(b) - tail :])
    a, b = a[: len(a) - tail], b[: len(b) - tail]
    start_a, start_b = a.start, b.start
    for x, y in _anchors(left, right, a, b):
        yield from _gap(left, right, range(start_a, x), range(start_b, y), budget)
        yield Block(equal=True, left=range(x, x + 1), right=range(y, y + 1))
        start_a, start_b = x + 1, y + 1
    yield from _gap(left, right, range(start_a, a.stop), range(start_b, b.stop), budget)
    yield ends


def _common(left: Sequence[Hashable], right: Sequence[Hashable], a: Sequence[int], b: Sequence[int]) -> int:
    count = 0
    for x, y in zip(a, b, strict=False):
        if left[x] != right[y]:
            break
        count += 1
    return count


def _anchors(left: Sequence[Hashable], right: Sequence[Hashable], a: range, b: range) -> list[tuple[int, int]]:
    """Return the longest chain of lines that stand once in both ranges and come in the same order."""
    left_once, right_once = _single(left, a), _single(right, b)
    common = [line for line in left_once if line in right_once]
    places = [right_once[line] for line in common]
    ends: list[int] = []  # for each length, the smallest place that a chain of it can end with
    chains: list[int] = []  # and the index of that place
    before: list[int] = []
    for index, place in enumerate(places):
        length = bisect_left(ends, place)
        before.append(chains[length - 1] if length else -1)
        ends[length : length + 1] = [place]
        chains[length : length + 1] = [index]
    chain = []
    index = chains[-1] if chains else -1
    while index >= 0:
        chain.append((left_once[common[index]], places[index]))
        index = before[index]
    return chain[::-1]


def _single(lines: Sequence[Hashable], places: range) -> dict[Hashable, int]:
    """Return the lines that stand once in these places, with their place, in order."""
    first: dict[Hashable, int] = {}
    repeated = set()
    for place in places:
        if first.setdefault(lines[place], place) != place:
            repeated.add(lines[place])
    for line in repeated:
        del first[line]
    return first


def _gap(left: Sequence[Hashable], right: Sequence[Hashable], a: range, b: range, budget: _Budget) -> Iterator[Block]:
    """Compare what stands between two anchors; beyond the budget all of it counts as changed."""
    head = _common(left, right, a, b)
    yield Block(equal=True, left=a[:head], right=b[:head])
    a, b = a[head:], b[head:]
    tail = _common(left, right, a[::-1], b[::-1])
    rest_a, rest_b = a[: len(a) - tail], b[: len(b) - tail]
    if rest_a and rest_b and budget.allows(len(rest_a) * len(rest_b)):
        mine, theirs = [left[x] for x in rest_a], [right[y] for y in rest_b]
        for tag, x, x_end, y, y_end in SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes():
            yield Block(tag == "equal", rest_a[x:x_end], rest_b[y:y_end])
    else:
        yield Block(equal=False, left=rest_a, right=rest_b)
    yield Block(equal=True, left=a[len(a) - tail :], right=b[len(b) - tail :])
