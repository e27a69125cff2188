"""Ids by their first characters, and versions by number, version or digest."""

from __future__ import annotations

import pytest

from atom_saas_sync.core.ids import MOST_CANDIDATES, choose_id
from atom_saas_sync.core.versions import choose_version
from atom_saas_sync.errors import Ambiguous, NotFound
from atom_saas_sync.model import PublishedVersion


@pytest.mark.parametrize(
    ("given", "current", "former", "meant"),
    [
        ("abcd-1", ["abcd-1", "abcd-12"], [], "abcd-1"),
        ("abcd-1", ["abcd-12"], ["abcd-1"], "abcd-1"),
        ("abcd", ["abcd-1"], [], "abcd-1"),
        ("abcd", ["abcd-1"], ["abcd-2", "abcd-3"], "abcd-1"),
        ("abcd", [], ["abcd-2"], "abcd-2"),
        ("abc", ["abcd-1"], [], "abc"),
        ("abc", ["abc", "abcd"], [], "abc"),
        ("abcd", [], [], "abcd"),
    ],
)
def test_a_whole_id_wins_and_a_prefix_is_enough(given: str, current: list[str], former: list[str], meant: str) -> None:
    assert choose_id(given, dict.fromkeys(current), dict.fromkeys(former)) == meant


def test_an_ambiguous_prefix_names_what_it_could_be() -> None:
    with pytest.raises(Ambiguous, match=r"^'abcd' is ambiguous, it could be: abcd-1 \(one\), abcd-2$") as caught:
        choose_id("abcd", {"abcd-1": "one", "abcd-2": None}, {})
    assert (caught.value.exit_code, caught.value.kind) == (1, "ambiguous")
    with pytest.raises(Ambiguous, match=r"abcd9, …$"):
        choose_id("abcd", {f"abcd{number}": None for number in range(MOST_CANDIDATES + 1)}, {})


def version(number: int | None, name: str | None, digest: str, executed: str = "ee") -> PublishedVersion:
    return PublishedVersion(number, name, "{}", None, None, bytes.fromhex(digest * 32), bytes.fromhex(executed * 32))


VERSIONS = [
    version(None, "3.0", "a1"),
    version(9, "2.0", "a2", "f1"),
    version(8, "9", "a3", "f1"),
    version(5, "2.0", "a4"),
]


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        ("base", None),
        ("3.0", None),
        ("9", 9),
        ("#8", 8),
        ("2.0", 9),
        ("a4" * 6, 5),
        ("sha256:" + "A3" * 32, 8),
        ("a1" * 20, None),
    ],
)
def test_a_version_is_found(wanted: str, number: int | None) -> None:
    assert choose_version("s", VERSIONS, wanted).number == number


@pytest.mark.parametrize("wanted", ["7", "#3.0", "a1" * 5, "ff" * 6, "a1" * 33, "", "local"])
def test_no_other_version_is_taken_for_it(wanted: str) -> None:
    with pytest.raises(NotFound):
        choose_version("s", VERSIONS, wanted)


def test_a_digest_of_several_is_ambiguous() -> None:
    with pytest.raises(Ambiguous, match=r"#9 \(2.0\), #8 \(9\)"):
        choose_version("s", VERSIONS, "f1" * 6)
