"""Patches in the format of `diff -u` and `patch`."""

from __future__ import annotations

import random
import re

import pytest

from atom_saas_sync.core.comparison import compare
from atom_saas_sync.core.unified import unified, unified_fields

NO_NEWLINE = "\\ No newline at end of file"


def applied(before: str, patch: list[str]) -> str:
    """Apply a patch strictly: each hunk must match at its stated position."""
    lines = re.findall(r"[^\n]*\n|[^\n]+", before)
    result: list[str] = []
    read = 0
    for number, line in enumerate(patch):
        if found := re.fullmatch(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", line):
            start, count = int(found[1]), int(found[2] or 1)
            place = start if count == 0 else start - 1
            result += lines[read:place]
            assert len(result) == (int(found[3]) if found[4] == "0" else int(found[3]) - 1)
            read = place
            continue
        if line.startswith("\\"):
            continue
        ended = number + 1 < len(patch) and patch[number + 1].startswith("\\")
        text = line[1:] + ("" if ended else "\n")
        if line[0] in " -":
            assert lines[read] == text
            read += 1
        if line[0] in " +":
            result.append(text)
    return "".join(result + lines[read:])


@pytest.mark.parametrize("seed", range(8))
def test_a_patch_makes_the_one_from_the_other(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(150):
        before, after = (
            "".join(chance.choices(["a\n", "b\n", "c\n", "\n", "d"], k=chance.randrange(30))) for _ in range(2)
        )
        mixed = before[: chance.randrange(20)] + after
        for old, new in ((before, after), (before, mixed), (mixed, before)):
            patch = "\n".join(unified(old, new)).splitlines()
            assert applied(old, patch) == new
            assert (patch == []) == (old == new)


def test_a_hunk_has_three_lines_around_each_change() -> None:
    before = "".join(f"{number}\n" for number in range(1, 31))
    after = before.replace("5\n", "five\n", 1).replace("29\n", "", 1)
    assert list(unified(before, after)) == [
        *("@@ -2,7 +2,7 @@", " 2", " 3", " 4", "-5", "+five", " 6", " 7", " 8"),
        *("@@ -26,5 +26,4 @@", " 26", " 27", " 28", "-29", " 30"),
    ]
    near = before.replace("5\n", "five\n", 1).replace("12\n", "twelve\n", 1)
    assert sum(line.startswith("@@") for line in unified(before, near)) == 1


def test_each_field_is_a_file() -> None:
    left = {"skill_id": "s", "name": "one", "code": "a\nb", "tags": ["x"], "old": 1}
    right = {"skill_id": "s", "name": "two", "code": "a\nc\n", "tags": ["x", "y"], "new": "n"}
    assert "\n".join(unified_fields(compare(left, left, right), "base (1)", "local")).split("\n") == [
        *("--- a/name\tbase (1)", "+++ b/name\tlocal", "@@ -1 +1 @@", "-one", "+two"),
        *(
            "--- a/code\tbase (1)",
            "+++ b/code\tlocal",
            "@@ -1,2 +1,2 @@",
            " a",
            "-b",
            "\\ No newline at end of file",
            "+c",
        ),
        *("--- a/tags\tbase (1)", "+++ b/tags\tlocal", "@@ -1,3 +1,4 @@", " [", '-  "x"', '+  "x",', '+  "y"', " ]"),
        *("--- a/old\tbase (1)", "+++ /dev/null", "@@ -1 +0,0 @@", "-1"),
        *("--- /dev/null", "+++ b/new\tlocal", "@@ -0,0 +1 @@", "+n", NO_NEWLINE),
    ]
