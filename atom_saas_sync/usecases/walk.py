"""Walk the list of skills page by page; core/listing.py decides when it ends, and whether it was complete."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from atom_saas_sync.core.listing import Listing, Next
from atom_saas_sync.errors import ApiError, BadResponse, MarketplaceError, TooLarge
from atom_saas_sync.model import FetchedPage, PageRecord
from atom_saas_sync.usecases.prefetch import Fetch, Prefetcher

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import Clock, Marketplace


class PageFailed(Struct, frozen=True):
    """A page that could not be fetched although the marketplace responded; the walk tries to continue after it."""

    number: int
    error: MarketplaceError


class PageSource:
    """Fetches pages of the list in one size, on condition that they are not those of the records. Threads share it."""

    def __init__(
        self, marketplace: Marketplace, clock: Clock, records: Mapping[int, PageRecord], page_size: int
    ) -> None:
        self._marketplace = marketplace
        self._clock = clock
        self.records = records
        self.page_size = page_size

    def __call__(self, number: int, admit: Callable[[int], bool], over: threading.Event) -> FetchedPage:
        """Fetch one page. Raises NoRoom and MarketplaceError."""
        record, asked_at = self.records.get(number), self._clock.now()
        etag = record.etag if record else None
        page = self._marketplace.list_skills(number, self.page_size, etag, admit=admit, over=over)
        if page.items is None:
            if record is None:
                raise BadResponse(f"page {number} of the list: 'not modified', but nothing was asked for on condition")
            page.size, page.total, page.etag = record.items, record.total, record.etag
        return _asked(page, number, asked_at)

    def intact(self, number: int) -> FetchedPage:
        """Fetch a page again that was damaged in transit. Raises MarketplaceError."""
        asked_at = self._clock.now()
        return _asked(self._marketplace.list_skills(number, self.page_size, intact=True), number, asked_at)


def _asked(page: FetchedPage, number: int, asked_at: datetime) -> FetchedPage:
    page.number, page.asked_at = number, asked_at
    return page


class Walk:
    """One walk over the list. The consumer of `pages` reports by `saw` what it found on each.

    `check` is called while the consumer waits, and may raise. With one connection, no page is requested that may not be
    needed.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        records: Mapping[int, PageRecord],
        page_size: int,
        connections: int,
        check: Callable[[], None],
    ) -> None:
        self._page_size = page_size
        self.overlaps = connections > 1
        """Whether a page may have been asked for before the one that precedes it was answered."""
        self.listing = Listing(page_size, records if connections > 1 else {})
        self.prefetcher = Prefetcher(fetch, connections=connections, check=check)
        self.seen: set[str] = set()
        self.unusable: set[str] = set()
        self._unusable_items = 0

    @property
    def complete(self) -> bool:
        """Tell whether this walk saw the whole list."""
        return self.listing.complete(self.distinct)

    @property
    def distinct(self) -> int:
        """Return the number of distinct skills in the list; each invalid item counts as one."""
        return len(self.seen) + self._unusable_items

    @property
    def listed(self) -> AbstractSet[str]:
        """Return all ids in the list, including those of invalid items."""
        return self.seen | self.unusable if self.unusable else self.seen  # a large set, so usually not copied

    @property
    def evidence(self) -> tuple[int | None, int | None, int]:
        """Return the total on the first and the last page, and the number of distinct skills."""
        return self.listing.first_total, self.listing.total, self.distinct

    def saw(self, skill_ids: Iterable[str], unusable: Iterable[str | None] = ()) -> None:
        """Record the skills of a page, and the ids of its invalid items (None: unknown)."""
        self.seen.update(skill_ids)
        for skill_id in unusable:
            self._unusable_items += 1
            if skill_id is not None:
                self.unusable.add(skill_id)

    @contextmanager
    def pages(self) -> Iterator[Iterator[FetchedPage | PageFailed]]:
        """Yield the pages in order, prefetching the next ones."""
        try:
            yield self._pages()
        finally:
            self.prefetcher.close()

    def _pages(self) -> Iterator[FetchedPage | PageFailed]:
        number, following = 1, Next.FETCH
        while following is not Next.END:
            self.prefetcher.allow(max(number, self.listing.promised))
            try:
                page = self.prefetcher.take()
            except (ApiError, BadResponse) as error:
                if isinstance(error, TooLarge) and self._page_size > 1:
                    raise  # smaller pages may work
                following = self.listing.could_not_fetch()
                if not self.listing.ended:
                    yield PageFailed(number, error)
            else:
                page.beyond, size = self.listing.beyond, page.size
                following = self.listing.took(number, size, page.total)
                needed = number + 1 if following is Next.FETCH else number
                self.prefetcher.allow(max(needed, self.listing.promised))
                yield page
                del page  # a page takes megabytes
                if following is Next.LOOK:
                    following = self.listing.looked(size, seen=len(self.seen), distinct=self.distinct)
            number += 1
