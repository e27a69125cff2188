"""Where a list ends, page by page; tests/test_walk.py and tests/test_odd_marketplaces.py show whole walks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atom_saas_sync.core.listing import PAGES_BEYOND, Listing, Next
from atom_saas_sync.errors import BadResponse


def walk(pages: list[tuple[set[str], int | None] | None], page_size: int) -> tuple[Listing, set[str]]:
    """Report pages (ids and total; None: could not be fetched) until the listing ends the walk; then empty ones."""
    listing, seen = Listing(page_size, {}), set[str]()
    for number in range(1, len(pages) + 2 * PAGES_BEYOND):
        page = pages[number - 1] if number <= len(pages) else (set[str](), None)
        if page is None:
            following = listing.could_not_fetch()
        else:
            ids, total = page
            following = listing.took(number, len(ids), total)
            seen |= ids
            if following is Next.LOOK:
                following = listing.looked(len(ids), seen=len(seen), distinct=len(seen))
        if following is Next.END:
            return listing, seen
    raise AssertionError("the walk does not end")


@given(total=st.integers(0, 60), page_size=st.integers(1, 12))
def test_a_list_that_holds_still_is_complete(total: int, page_size: int) -> None:
    ids = [f"skill-{number}" for number in range(total)]
    pages = [(set(ids[start : start + page_size]), total) for start in range(0, total, page_size)]
    listing, seen = walk([*pages], page_size)
    assert listing.complete(len(seen))
    assert len(seen) == total


@given(
    pages=st.lists(
        st.none() | st.tuples(st.sets(st.sampled_from("abcdefgh"), max_size=4), st.none() | st.integers(0, 9)),
        max_size=12,
    ),
    page_size=st.integers(1, 4),
)
def test_every_walk_ends_and_is_complete_only_with_all_skills(
    pages: list[tuple[set[str], int | None] | None], page_size: int
) -> None:
    try:
        listing, seen = walk(pages, page_size)
    except BadResponse:
        return  # far too many pages
    if listing.complete(len(seen)):
        assert listing.first_total == listing.total
        assert len(seen) >= (listing.total or 0)
        assert not listing.failed


def test_one_page_may_fail_and_two_in_a_row_end_the_walk() -> None:
    page = ({"a", "b"}, 20)
    listing, seen = walk([page, None, ({"c", "d"}, 20), None, None], 2)
    assert (listing.failed, listing.pages_read, seen) == (True, 3, {"a", "b", "c", "d"})
    assert not listing.complete(20)


def test_a_total_that_changes_on_the_way_is_incomplete() -> None:
    listing, seen = walk([({"a", "b"}, 3), ({"c"}, 4), ({"d"}, 4)], 2)
    assert len(seen) == 4
    assert not listing.complete(4)


def test_an_error_after_the_end_is_the_end() -> None:
    listing, seen = walk([({"a", "b"}, 2), None], 2)
    assert listing.complete(len(seen))


def test_a_list_without_end_is_refused() -> None:
    listing = Listing(1, {})
    for number in range(1, 2 * 2 + PAGES_BEYOND + 1):
        listing.took(number, 1, 2)
    with pytest.raises(BadResponse, match="does not end"):
        listing.took(2 * 2 + PAGES_BEYOND + 1, 1, 2)
