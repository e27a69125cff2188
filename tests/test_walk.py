"""Pages that are read ahead are read as they would be one after the other."""

from __future__ import annotations

import json
import threading
from hashlib import sha256

import pytest
from msgspec import Raw

from atom_saas_sync.core.listing import PAGES_BEYOND
from atom_saas_sync.errors import BadResponse
from atom_saas_sync.model import ListedPage, SkillPage
from atom_saas_sync.usecases.walk import Walk, WalkedPage

PAGES = 6


def item(skill_id: str, version: str = "1.0.0") -> bytes:
    return json.dumps({"skill_id": skill_id, "name": skill_id, "version": version}).encode()


# One skill a page; the one that changed on page 2 is on page 3 too, as it was.
LIST = {number: [item(f"skill-{number}")] for number in range(1, PAGES + 1)}
LIST[2] = [item("both", "2.0.0")]
LIST[3] = [item("both"), item("skill-3")]
KNOWN = {sha256(raw).digest(): json.loads(raw)["skill_id"] for raw in (item("both"), item("skill-3"), item("skill-4"))}


class Fetching:
    """The list, and which pages of it have been asked for."""

    def __init__(self) -> None:
        self.asked = {number: threading.Event() for number in range(1, PAGES + 1)}

    def __call__(self, page: int, etag: str | None) -> ListedPage:
        self.asked[page].set()
        items = tuple(Raw(raw) for raw in LIST[page])
        return ListedPage(page=SkillPage(items=items, total=PAGES + 1), etag=etag)


def test_what_an_earlier_page_changes_is_news_on_the_later_ones() -> None:
    fetching = Fetching()
    walk = Walk(fetch=fetching, records={}, page_size=1, check=lambda: None)
    found: list[WalkedPage] = []
    with walk.pages() as pages:
        for page in pages:
            assert isinstance(page, WalkedPage)
            found.append(page)
            if page.number == 1:
                assert fetching.asked[4].wait(10)  # so that 2 and 3 are here
                walk.read_ahead(lambda _: KNOWN, 2, memory=0)
                walk.read_ahead(lambda _: KNOWN, 2, memory=0)  # nothing more, as those are not taken yet
            elif page.number == 4:
                break
    assert [page.read_ahead is not None for page in found] == [False, True, True, False]
    second, third = found[1].read_ahead, found[2].read_ahead
    assert second is not None
    assert third is not None
    assert (second.unchanged, list(second.changed)) == (set(), ["both"])
    assert (third.unchanged, list(third.changed)) == ({"skill-3"}, ["both"])


@pytest.mark.parametrize(("memory", "read_ahead"), [(0, [False, True, False]), (1, [False, False, False])])
def test_pages_that_take_much_memory_are_read_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, memory: int, read_ahead: list[bool]
) -> None:
    monkeypatch.setattr("atom_saas_sync.usecases.walk.MEMORY_TO_READ_AHEAD", 0)
    fetching = Fetching()
    walk = Walk(fetch=fetching, records={}, page_size=1, check=lambda: None)
    found: list[WalkedPage] = []
    with walk.pages() as pages:
        for page in pages:
            assert isinstance(page, WalkedPage)
            found.append(page)
            if page.number == 1:
                assert fetching.asked[4].wait(10)  # so that 2 and 3 are here
                walk.read_ahead(lambda _: {}, 2, memory=memory)
            elif page.number == 3:
                break
    assert [page.read_ahead is not None for page in found] == read_ahead
    assert [bool(page.items) for page in found] == [not read for read in read_ahead]


def read(walk: Walk) -> None:
    with walk.pages() as pages:
        for page in pages:
            assert isinstance(page, WalkedPage)
            walk.saw(str(json.loads(bytes(raw))["skill_id"]) for raw in page.items or ())


def test_a_list_without_end_is_left() -> None:
    asked: list[int] = []

    def fetch(page: int, etag: str | None) -> ListedPage:
        asked.append(page)
        assert page <= 100
        items = tuple(Raw(item(f"skill-{page}-{number}")) for number in range(2))
        return ListedPage(page=SkillPage(items=items, total=10), etag=etag)

    walk = Walk(fetch=fetch, records={}, page_size=2, check=lambda: None)
    with pytest.raises(BadResponse, match="does not end"):
        read(walk)
    assert max(asked) == 2 * 5 + PAGES_BEYOND + 1


def test_a_server_of_small_pages_may_need_many() -> None:
    def fetch(page: int, etag: str | None) -> ListedPage:
        items = (Raw(item(f"skill-{page}")),) if page <= 100 else ()
        return ListedPage(page=SkillPage(items=items, total=100), etag=etag)

    walk = Walk(fetch=fetch, records={}, page_size=1000, check=lambda: None)
    read(walk)
    assert walk.complete


def test_no_total_allows_more_pages_than_any_list_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atom_saas_sync.core.listing.MAX_PAGES", 50)

    def fetch(page: int, etag: str | None) -> ListedPage:
        assert page <= 100
        return ListedPage(page=SkillPage(items=(Raw(item(f"skill-{page}")),), total=10**9), etag=etag)

    walk = Walk(fetch=fetch, records={}, page_size=1, check=lambda: None)
    with pytest.raises(BadResponse, match="page 51 is not the last"):
        read(walk)
