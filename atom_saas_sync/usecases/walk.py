"""Walking the list of skills page by page; core/listing.py says when it ends, and whether it was complete.

One thread prefetches pages while the previous one is compared and written. A second one parses prefetched pages while
the main thread is inside SQLite, which releases the GIL; started earlier, the two would compete for it.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from hashlib import sha256
from typing import NamedTuple

from msgspec import Raw, Struct, field

from atom_saas_sync.core.incoming.limits import MAX_PAGE_MEMORY
from atom_saas_sync.core.incoming.skills import read_skill
from atom_saas_sync.core.listing import Listing, Next
from atom_saas_sync.errors import ApiError, BadResponse, MarketplaceError, TooLarge
from atom_saas_sync.model import InvalidItem, ListedPage, PageRecord, SkillVersion

_POLL_SECONDS = 0.1

MAX_BYTES_AHEAD = 8 * 1024 * 1024
"""With more in memory, no further page is fetched."""

MEMORY_TO_READ_AHEAD = MAX_PAGE_MEMORY // 2
"""While decoded skills that take more wait to be written, no further page is decoded."""


class SortedItems(NamedTuple):
    """The ids with unchanged bytes, the parsed rest, and invalid items."""

    unchanged: set[str]
    changed: dict[str, SkillVersion]
    invalid: list[InvalidItem]


def sort_items(items: Collection[Raw], known: Mapping[bytes, str]) -> SortedItems:
    """Read the items of a page; those whose digest is `known`, with the skill's id, need no parsing.

    Raises TooLarge if the others, unless there is but one, would take more memory than a page may.
    """
    result, memory = SortedItems(set(), {}, []), 0
    for raw in items:
        digest = sha256(raw).digest()
        skill_id = known.get(digest)
        if skill_id is not None:
            result.unchanged.add(skill_id)
            continue
        item = read_skill(bytes(raw), digest)
        if isinstance(item, InvalidItem):
            result.invalid.append(item)
            version = item.if_held
        else:
            result.changed[item.skill_id] = version = item
        memory += 0 if version is None else version.memory
        if memory > MAX_PAGE_MEMORY and len(items) > 1:
            raise TooLarge("a page of the list would take too much memory")
    return result


class _Before(Struct):
    """The pages that are read and not written yet: the skills that they change, and the memory that those take."""

    memory: int
    news: set[str] = field(default_factory=set)


def _read_after(before: _Before, page: WalkedPage, known: Mapping[bytes, str]) -> SortedItems | None:
    """Read a page while others are not written yet; None if those take too much memory to read one more."""
    if page.items is None or before.memory > MEMORY_TO_READ_AHEAD:
        return None
    result = sort_items(page.items, excluding(known, before.news))
    page.items = ()
    before.memory += sum(version.memory for version in result.changed.values())
    before.news.update(result.changed)
    before.news.update(item.if_held.skill_id for item in result.invalid if item.if_held is not None)
    return result


def excluding(known: Mapping[bytes, str], news: AbstractSet[str]) -> Mapping[bytes, str]:
    """Return the digests that are known but for those of skills that something is to be written of."""
    return {digest: name for digest, name in known.items() if name not in news} if news else known


class WalkedPage(Struct):
    """One page of `size` items, which are None if it was not modified, and dropped as soon as they have been parsed.

    `beyond` says that the pages before it hold the whole list. `size_bytes` is what its items take in memory.
    """

    number: int
    items: tuple[Raw, ...] | None
    size: int
    etag: str | None
    total: int | None
    beyond: bool = False
    size_bytes: int = 0
    read_ahead: SortedItems | None = None


class PageFailed(Struct, frozen=True):
    """A page that could not be fetched although the marketplace answered; the walk tries to go on after it."""

    number: int
    error: MarketplaceError


_Ahead = queue.Queue[WalkedPage | PageFailed | BaseException | None]


class Walk:
    """One walk over the list. The consumer of `pages` tells it by `saw` what it found on each.

    `check` is called while the consumer waits, and may raise.
    """

    def __init__(
        self,
        *,
        fetch: Callable[[int, str | None], ListedPage],
        records: Mapping[int, PageRecord],
        page_size: int,
        check: Callable[[], None],
    ) -> None:
        self._fetch = fetch
        self._records = records
        self._page_size = page_size
        self._check = check
        self.listing = Listing(page_size)
        self.seen: set[str] = set()
        self.unusable: set[str] = set()
        self._unusable_items = 0
        # Room for two pages: with the one in work, two that are read and the one on its way, six are in memory.
        self._ahead: _Ahead = queue.Queue(maxsize=2)
        self._bytes_fetched = self._bytes_consumed = 0  # each is written by one thread
        self._consumed = threading.Event()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._being_read: deque[tuple[WalkedPage, Future[SortedItems | None]]] = deque()

    @property
    def complete(self) -> bool:
        """Tell whether this walk has seen the whole list."""
        return self.listing.complete(self.distinct)

    @property
    def distinct(self) -> int:
        """Return how many distinct skills the list has shown; each unusable item counts as one."""
        return len(self.seen) + self._unusable_items

    @property
    def listed(self) -> AbstractSet[str]:
        """Return all ids that the list has shown, including those of invalid items."""
        return self.seen | self.unusable if self.unusable else self.seen  # many, so usually not copied

    @property
    def evidence(self) -> tuple[int | None, int | None, int]:
        """Return the total on the first and the last page, and the number of distinct skills."""
        return self.listing.first_total, self.listing.total, self.distinct

    def saw(self, skill_ids: Iterable[str], unusable: Iterable[str | None] = ()) -> None:
        """Note the skills of a page, and the ids, None if there is none, of its unusable items."""
        self.seen.update(skill_ids)
        for skill_id in unusable:
            self._unusable_items += 1
            if skill_id is not None:
                self.unusable.add(skill_id)

    def read_ahead(self, known_on: Callable[[int], Mapping[bytes, str]], pages: int, *, memory: int) -> None:
        """Let up to so many of the pages that are here be read from now on, given the digests that are known of each.

        Not if some of those of last time are not taken yet: what they change is not known to `known_on`. `memory` is
        what the skills take that are being written.
        """
        if self._being_read:
            return
        before = _Before(memory)
        for _ in range(pages):
            page = self._ahead.queue[0] if self._ahead.queue else None
            if not isinstance(page, WalkedPage) or page.items is None:
                return
            self._ahead.get_nowait()
            reading = self._reader.submit(_read_after, before, page, known_on(page.number))
            self._being_read.append((page, reading))

    @contextmanager
    def pages(self) -> Iterator[Iterator[WalkedPage | PageFailed]]:
        """Yield the pages in order, the next ones being fetched meanwhile."""
        stop = threading.Event()
        # In this thread's context: what is logged while fetching belongs to the run.
        fetcher = threading.Thread(
            target=copy_context().run, args=(self._fetch_ahead, stop), name="fetch-ahead", daemon=True
        )
        fetcher.start()
        with self._reader:
            try:
                yield self._drain()
            finally:
                stop.set()
                while fetcher.is_alive() and not self._ahead.empty():
                    self._ahead.get_nowait()
                    self._ahead.task_done()

    def _drain(self) -> Iterator[WalkedPage | PageFailed]:
        while True:
            try:
                page = self._take()
            except queue.Empty:
                self._check()
                continue
            try:
                if page is None:
                    return
                if isinstance(page, BaseException):
                    raise page
                yield page
            finally:
                if isinstance(page, WalkedPage):
                    self._bytes_consumed += page.size_bytes
                    self._consumed.set()
                self._ahead.task_done()

    def _take(self) -> WalkedPage | PageFailed | BaseException | None:
        if not self._being_read:
            return self._ahead.get(timeout=_POLL_SECONDS)
        page, reading = self._being_read.popleft()
        page.read_ahead = reading.result()
        return page

    def _fetch_ahead(self, stop: threading.Event) -> None:
        try:
            for fetched in self._fetch_all(stop):
                if isinstance(fetched, WalkedPage):
                    self._bytes_fetched += fetched.size_bytes
                if not self._put(fetched, stop):
                    return
                del fetched  # a page takes megabytes
                self._wait_for_room(stop)
            self._put(None, stop)
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread
            self._put(error, stop)

    def _put(self, page: WalkedPage | PageFailed | BaseException | None, stop: threading.Event) -> bool:
        while not stop.is_set():
            try:
                self._ahead.put(page, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def _wait_for_room(self, stop: threading.Event) -> None:
        """Wait until the pages in memory leave room for another one of any size."""
        while self._is_full() and not stop.is_set():
            self._consumed.clear()
            if self._is_full():  # again, once no signal can be missed
                self._consumed.wait(_POLL_SECONDS)

    def _is_full(self) -> bool:
        return self._bytes_fetched - self._bytes_consumed > MAX_BYTES_AHEAD

    def _wait_until_consumed(self, stop: threading.Event) -> None:
        """Wait until all pages so far have been processed, so that `seen` is complete."""
        with self._ahead.all_tasks_done:
            while self._ahead.unfinished_tasks and not stop.is_set():
                self._ahead.all_tasks_done.wait(_POLL_SECONDS)

    def _fetch_all(self, stop: threading.Event) -> Iterator[WalkedPage | PageFailed]:
        number, following = 1, Next.FETCH
        while following is not Next.END:
            try:
                page, size = self._fetch_one(number)
            except (ApiError, BadResponse) as error:
                if isinstance(error, TooLarge) and self._page_size > 1:
                    raise  # smaller pages may do
                following = self.listing.could_not_fetch()
                if not self.listing.ended:
                    yield PageFailed(number, error)
            else:
                following = self.listing.took(number, size, page.total)
                yield page
                del page  # a page takes megabytes
                if following is Next.LOOK:
                    self._wait_until_consumed(stop)
                    following = self.listing.looked(size, seen=len(self.seen), distinct=self.distinct)
            number += 1

    def _fetch_one(self, number: int) -> tuple[WalkedPage, int]:
        record = self._records.get(number)
        fetched = self._fetch(number, record.etag if record else None)
        if fetched.page is not None:
            items = fetched.page.items
            page = WalkedPage(
                number,
                items,
                len(items),
                fetched.etag,
                fetched.page.total,
                self.listing.beyond,
                size_bytes=sum(map(len, items)),
            )
            return page, page.size
        if record is None:
            raise BadResponse(f"page {number} of the list: 'not modified', but nothing was asked for on condition")
        return WalkedPage(number, None, record.items, record.etag, record.total, self.listing.beyond), record.items
