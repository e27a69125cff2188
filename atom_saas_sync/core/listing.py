"""Where the list of skills ends, and whether it was read completely (marketplace-api.md, section 3).

The list is not a snapshot: skills come and go between pages, and servers differ in what they send after the last page.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum

from msgspec.structs import replace

from atom_saas_sync.errors import BadResponse
from atom_saas_sync.model import PageRecord

PAGES_BEYOND = 10
MAX_PAGES = 10_000
"""A list may have twice the pages that its total implies, plus ten; never more than that."""

MAX_SKILLS = 1_000_000
"""The ids of a list are kept in memory until its end: a hundred bytes each."""


LONGEST_UNREAD = timedelta(days=7)
"""A page that has only been confirmed for longer is fetched whole once: a list that never changes may be frozen."""

_CLOCK_STEPS = timedelta(hours=1)


def with_fresh_etags(records: Mapping[int, PageRecord], now: datetime) -> dict[int, PageRecord]:
    """Return the records without the ETags of pages that must be fetched whole because of their age."""
    return {page: record if _is_fresh(record, now) else replace(record, etag=None) for page, record in records.items()}


def _is_fresh(record: PageRecord, now: datetime) -> bool:
    read_at = record.read_at
    return read_at is not None and -_CLOCK_STEPS <= now - read_at <= LONGEST_UNREAD


class Next(Enum):
    """What to do after a page."""

    FETCH = "fetch the next page"
    LOOK = "look at the page first: it may be the last"
    END = "end the walk"


class Listing:
    """The pages of one walk, reported in order. `page_size` is the requested size.

    `last_time` are the pages that the list had when it was last read, as far as they may be asked for in advance.
    """

    def __init__(self, page_size: int, last_time: Mapping[int, PageRecord]) -> None:
        self._page_size = page_size
        self._last_time = last_time
        self.first_total: int | None = None
        self.total: int | None = None
        self.pages_read = 0
        self.failed = False
        self.ended = False
        self.beyond = False
        """Whether the pages so far contain the whole list; the next one is requested only to make sure."""
        self._items = 0
        self._reported = 0
        self._failures = 0
        self._largest_page = 0
        self._seen_at_last_look = -1

    @property
    def promised(self) -> int:
        """The last page of the list as far as is known: all pages up to it may be fetched before the next is read.

        A list of as many skills as last time has as many pages.
        """
        if not self._reported:
            return max(self._last_time, default=1)
        promised = self._reported
        if self.total is not None and self._largest_page:
            promised += max(0, -((self._items - self.total) // self._largest_page))
        first = self._last_time.get(1)
        if first is not None and first.total == self.total:
            promised = max(promised, *self._last_time)
        return promised

    def complete(self, distinct: int) -> bool:
        """Tell whether the whole list was seen: the same total first and last, and that many distinct skills."""
        return self.ended and not self.failed and self.first_total == self.total and distinct >= (self.total or 0)

    def took(self, number: int, size: int, total: int | None) -> Next:
        """Record a page of `size` items with this `total`. Raises BadResponse if the list has far too many pages."""
        self._failures = 0
        self._reported = self.pages_read = number
        self._check_length(number, size, total)
        if number == 1:
            self.first_total = total
        if total is not None and not (self.beyond and size == total == 0):
            self.total = total
        self._items += size
        if size == 0:
            self.ended = True
            return Next.END
        return Next.LOOK if self._items >= (self.total or 0) else Next.FETCH

    def looked(self, size: int, *, seen: int, distinct: int) -> Next:
        """Decide after the consumer has read a page of `size` items and all announced pages are read.

        Beyond the announced pages, or without any, each page is read before the next is fetched. `seen` is the number
        of ids so far; `distinct` also counts invalid items.
        """
        enough = self.total is not None and distinct >= self.total
        if size < self._page_size and enough:
            self.ended = True
        elif seen == self._seen_at_last_look:  # otherwise a server that repeats itself would be walked forever
            if self.beyond:
                self.ended = enough
                self.pages_read -= 1
        else:
            self._seen_at_last_look = seen
            self.beyond = self.first_total == self.total == distinct
            return Next.FETCH
        return Next.END

    def could_not_fetch(self) -> Next:
        """Record a page that could not be fetched although the marketplace responded."""
        if self.beyond:  # servers differ in their response after the end of a list
            self.ended = True
            return Next.END
        self.failed = True
        self._reported += 1
        self._failures += 1
        # Without a total the end of the list is unknown; two failures in a row are not an accident.
        ends = self._failures > 1 or self.total is None or self._items + self._page_size >= self.total
        self._items += self._page_size
        return Next.END if ends else Next.FETCH

    def _check_length(self, number: int, size: int, total: int | None) -> None:
        self._largest_page = max(self._largest_page, size)
        most = MAX_PAGES
        if total is not None:
            expected = -(-total // max(1, min(self._largest_page, self._page_size)))
            most = min(most, 2 * expected + PAGES_BEYOND)
        if size and (number > most or self._items + size > MAX_SKILLS):
            listed = "no total" if total is None else f"a total of {total}"
            there = f", after {self._items:,} skills" if number <= most else ""
            raise BadResponse(
                f"the list does not end: page {number} is not the last, with {listed}{there}",
                hint="what was read is kept; the marketplace is at fault",
            )
