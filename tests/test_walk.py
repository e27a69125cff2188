"""Where a walk over the list ends; tests/test_prefetch.py shows how its pages are fetched."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from msgspec import Raw

from atom_saas_sync.core.listing import PAGES_BEYOND
from atom_saas_sync.errors import BadResponse
from atom_saas_sync.model import FetchedPage
from atom_saas_sync.usecases.walk import Walk


def page_of(number: int, skill_ids: list[str], total: int | None) -> FetchedPage:
    items = tuple(Raw(json.dumps({"skill_id": name, "name": name}).encode()) for name in skill_ids)
    return FetchedPage(items, total, number=number, size=len(items), asked_at=datetime.now(UTC))


def walked(page: Callable[[int], FetchedPage], *, page_size: int) -> Walk:
    """Walk to the end, with one connection."""
    walk = Walk(lambda number, *_: page(number), records={}, page_size=page_size, connections=1, check=lambda: None)
    with walk.pages() as pages:
        for each in pages:
            assert isinstance(each, FetchedPage)
            walk.saw(str(json.loads(bytes(raw))["skill_id"]) for raw in each.items or ())
    return walk


def test_a_list_without_end_is_left() -> None:
    asked: list[int] = []

    def page(number: int) -> FetchedPage:
        asked.append(number)
        assert number <= 100
        return page_of(number, [f"skill-{number}-{each}" for each in range(2)], 10)

    with pytest.raises(BadResponse, match="does not end"):
        walked(page, page_size=2)
    assert max(asked) == 2 * 5 + PAGES_BEYOND + 1


def test_a_server_of_small_pages_may_need_many() -> None:
    def page(number: int) -> FetchedPage:
        return page_of(number, [f"skill-{number}"] if number <= 100 else [], 100)

    assert walked(page, page_size=1000).complete


@pytest.mark.parametrize(
    ("total", "listed"), [(10**9, "a total of 1000000000"), (2**53, "a total of"), (None, "no total")]
)
def test_no_total_allows_more_pages_than_any_list_has(
    monkeypatch: pytest.MonkeyPatch, total: int | None, listed: str
) -> None:
    monkeypatch.setattr("atom_saas_sync.core.listing.MAX_PAGES", 50)

    def page(number: int) -> FetchedPage:
        assert number <= 100
        return page_of(number, [f"skill-{number}"], total)

    with pytest.raises(BadResponse, match=f"page 51 is not the last, with {listed}"):
        walked(page, page_size=1)


@pytest.mark.parametrize(("total", "listed"), [(10**9, "a total of 1000000000"), (None, "no total")])
def test_no_total_allows_more_skills_than_fit_into_the_memory(
    monkeypatch: pytest.MonkeyPatch, total: int | None, listed: str
) -> None:
    monkeypatch.setattr("atom_saas_sync.core.listing.MAX_SKILLS", 1_000)

    def full(number: int) -> FetchedPage:
        assert number <= 20
        return page_of(number, [f"skill-{number}-{each}" for each in range(100)], total)

    with pytest.raises(BadResponse, match=f"page 11 is not the last, with {listed}, after 1,000 skills"):
        walked(full, page_size=100)

    def all_of_them(number: int) -> FetchedPage:
        return page_of(number, [f"skill-{number}-{each}" for each in range(100)] if number <= 10 else [], 1_000)

    assert walked(all_of_them, page_size=100).complete
