"""Comparing lines: correct for any texts, and in time linear in their length, even for malicious input."""

from __future__ import annotations

import random
from collections.abc import Callable
from difflib import SequenceMatcher
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atom_saas_sync.core import line_diff
from atom_saas_sync.core.line_diff import Block, compare_lines


class Line:
    """A line that counts how often it is compared, and refuses to be compared too often."""

    comparisons = 0
    most = 0

    def __init__(self, text: str) -> None:
        self.text = text

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        Line.count(1)
        return isinstance(other, Line) and self.text == other.text

    @staticmethod
    def count(number: int) -> None:
        Line.comparisons += number
        assert Line.comparisons < Line.most, "more comparisons than the length allows"


class Counting(SequenceMatcher[Line]):
    """Counts the pairs that difflib may go through without comparing lines."""

    def __init__(self, isjunk: None, a: list[Line], b: list[Line], *, autojunk: bool) -> None:
        Line.count(len(a) * len(b))
        super().__init__(isjunk, a, b, autojunk)


def assert_true(blocks: list[Block], left: list[str], right: list[str]) -> None:
    places = [0, 0]
    for equal, a, b in blocks:
        assert [a.start, b.start] == places
        assert a or b
        places = [a.stop, b.stop]
        if equal:
            assert left[a.start : a.stop] == right[b.start : b.stop]
    assert places == [len(left), len(right)]
    assert all(one.equal != other.equal for one, other in pairwise(blocks))


lines = st.lists(st.sampled_from(["a", "b", "c", "", "one", "two", "three", "four"]), max_size=40)


@given(lines, lines)
def test_the_blocks_are_the_two_texts(left: list[str], right: list[str]) -> None:
    assert_true(compare_lines(left, right), left, right)


@given(lines)
def test_a_text_is_equal_to_itself(text: list[str]) -> None:
    assert [block.equal for block in compare_lines(text, text)] == [True] * bool(text)


def test_one_changed_line_is_one_changed_line() -> None:
    left = [f"line {number}" for number in range(100)]
    right = [*left[:50], "other", *left[51:]]
    assert [block for block in compare_lines(left, right) if not block.equal] == [
        Block(equal=False, left=range(50, 51), right=range(50, 51))
    ]


def test_a_moved_repeated_block_keeps_what_is_between() -> None:
    left = ["begin", "{", "}", "middle", "{", "}", "end"]
    right = ["begin", "{", "}", "new", "{", "}", "middle", "{", "}", "end"]
    changed = [block for block in compare_lines(left, right) if not block.equal]
    assert sum(len(block.left) for block in changed) == 0
    assert sum(len(block.right) for block in changed) == 3


def test_single_lines_keep_far_changes_apart() -> None:
    left = [f"line {number}" for number in range(5_000)]
    right = ["first", *left[1:2_500], "middle", *left[2_501:-1], "last"]
    changed = [block for block in compare_lines(left, right) if not block.equal]
    assert [(block.left, block.right) for block in changed] == [
        (range(place, place + 1), range(place, place + 1)) for place in (0, 2_500, 4_999)
    ]


SIZE = 20_000
CHOICE = random.Random(7)
HOSTILE: dict[str, Callable[[], tuple[list[str], list[str]]]] = {
    "equal lines, the last differs": lambda: (["x"] * SIZE, ["x"] * (SIZE - 1) + ["y"]),
    "equal lines, both ends differ": lambda: (["a"] + ["x"] * SIZE + ["b"], ["c"] + ["x"] * (SIZE + 1) + ["d"]),
    "two kinds of line at random": lambda: (CHOICE.choices("ab", k=SIZE), CHOICE.choices("ab", k=SIZE)),
    "shuffled": lambda: ([*map(str, range(SIZE))], [*map(str, CHOICE.sample(range(SIZE), SIZE))]),
    "many small gaps": lambda: (
        [line for number in range(SIZE // 90) for line in [f"u{number}", *CHOICE.choices("ab", k=89)]],
        [line for number in range(SIZE // 90) for line in [f"u{number}", *CHOICE.choices("ab", k=89)]],
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_work_grows_with_the_length_only(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_diff, "SequenceMatcher", Counting)
    left, right = HOSTILE[kind]()
    Line.comparisons, Line.most = 0, 20 * (len(left) + len(right)) + 500_000
    blocks = compare_lines([*map(Line, left)], [*map(Line, right)])
    assert_true(blocks, left, right)
