"""Reading pages ahead has the same result as reading them in sequence."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from msgspec import Raw

from atom_saas_sync.core.incoming.skills import parse_skill_page
from atom_saas_sync.model import FetchedPage
from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.usecases.read_pages import (
    MEMORY_AT_ONCE,
    MEMORY_TO_READ_AHEAD,
    PageReader,
    ParsedPage,
    read_page,
)

NOW = datetime(2026, 2, 19, 12, tzinfo=UTC)


def item(skill_id: str, version: str = "1.0.0") -> bytes:
    return json.dumps({"skill_id": skill_id, "name": skill_id, "version": version}).encode()


def page_of(number: int, *items: bytes) -> FetchedPage:
    return FetchedPage(tuple(map(Raw, items)), 7, number=number, size=len(items), asked_at=NOW)


# One skill a page; the one that changed on page 2 is on page 3 too, as it was.
SECOND, THIRD = (item("both", "2.0.0"),), (item("both"), item("skill-3"))
KNOWN = {sha256(raw).digest(): json.loads(raw)["skill_id"] for raw in (item("both"), item("skill-3"), item("skill-4"))}


def read_ahead(reader: PageReader, pages: list[FetchedPage], *, memory: int = 0) -> list[ParsedPage]:
    """Read pages 2 and 3 ahead, then take them all; what was not read ahead is read with nothing known."""
    reader.read_ahead(pages, {2: KNOWN, 3: KNOWN}, memory=memory, now=NOW)
    try:
        assert reader.is_reading()
        return [reader.read(page, dict, NOW) for page in pages]
    finally:
        assert not reader.is_reading()
        reader.close()


def test_a_change_on_an_earlier_page_counts_on_later_ones() -> None:
    pages = [page_of(2, *SECOND), page_of(3, *THIRD), page_of(4, item("skill-4"))]
    second, third, fourth = read_ahead(PageReader(), pages)
    assert (second.unchanged, list(second.changed)) == (set(), ["both"])
    assert (third.unchanged, list(third.changed)) == ({"skill-3"}, ["both"])
    assert list(fourth.changed) == ["skill-4"], "nothing was said of page 4, so it was not read ahead"
    assert [page.items for page in pages] == [(), (), ()], "megabytes"


@pytest.mark.parametrize(("memory", "unchanged"), [(0, {"skill-3"}), (1, set())])
def test_pages_that_take_much_memory_are_read_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, memory: int, unchanged: set[str]
) -> None:
    """What is not read ahead is read with what is known in its turn: here, nothing."""
    monkeypatch.setattr("atom_saas_sync.usecases.read_pages.MEMORY_TO_READ_AHEAD", 0)
    found = read_ahead(PageReader(), [page_of(3, *THIRD[1:]), page_of(2, *SECOND)], memory=memory)
    assert [page.unchanged for page in found] == [unchanged, set()]


def test_a_page_of_ordinary_skills_lets_the_next_be_read_ahead() -> None:
    """Otherwise a first sync reads and writes in turn, which takes a third longer."""
    with Sandbox(skills=1000, seed=3) as sandbox:
        skills = [sandbox.skill(skill_id) for skill_id in sandbox.skill_ids()]
    body = json.dumps({"skills": skills, "total": 1000}, ensure_ascii=False).encode()
    page = parse_skill_page(body, page=1, page_size=1000)
    page.number, page.asked_at = 1, NOW
    read = read_page(page, {}, NOW)
    assert len(read.changed) == 1000
    assert MEMORY_TO_READ_AHEAD / 2 < read.memory < MEMORY_TO_READ_AHEAD


@pytest.mark.parametrize(("more", "unchanged"), [(0, {"skill-3"}), (1, set())])
def test_a_page_that_does_not_fit_beside_others_waits_for_its_turn(more: int, unchanged: set[str]) -> None:
    """What is not read ahead is read with what is known in its turn: here, nothing."""
    large = [
        json.dumps({"skill_id": f"s{number}", "name": "x", "code": "y" * 900_000}).encode() for number in range(20)
    ]
    size = read_page(page_of(2, *large), {}, NOW).memory
    assert size > MEMORY_AT_ONCE - MEMORY_TO_READ_AHEAD
    pages = [page_of(2, *large, item("skill-3"))]
    found = read_ahead(PageReader(), pages, memory=MEMORY_AT_ONCE - size + more)
    assert found[0].unchanged == unchanged
    assert {f"s{number}" for number in range(20)} <= found[0].changed.keys()
