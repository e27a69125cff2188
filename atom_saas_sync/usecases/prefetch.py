"""Prefetch pages, several at a time, and return them in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Protocol

from atom_saas_sync.errors import ApiError, BadResponse, MarketplaceError, NoRoom, TokenRefused
from atom_saas_sync.model import FetchedPage

MAX_BYTES_IN_FLIGHT = 20 * 1024 * 1024
"""For all pages that are being received, wait to be read, or are read. Only a page that is awaited may exceed it."""

BYTES_PER_CONNECTION = 8 * 1024 * 1024
"""With more in memory for each connection in use, no further page is requested."""

PATIENCE_SECONDS = 0.01
"""With a page awaited for longer, one more connection is used. On a fast network a thread more only takes time."""

_POLL_SECONDS = 0.1
_LAST_RESPONSES_SECONDS = 1.0


class Fetch(Protocol):
    """Fetches one page. Thread-safe."""

    def __call__(self, number: int, admit: Callable[[int], bool], over: threading.Event, /) -> FetchedPage:
        """Return the page, asking `admit` for each larger size whether there is room for so many bytes.

        Raises NoRoom where there is not, and when `over` is set during a pause; and MarketplaceError.
        """


class Prefetcher:
    """Pages from 1 on, in order, fetched by up to `connections` threads. `check` is called in `take`, and may raise."""

    def __init__(self, fetch: Fetch, *, connections: int, check: Callable[[], None]) -> None:
        self._fetch = fetch
        self._connections = connections
        self._check = check
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._due = 1
        """The page to take next."""
        self._last = 0
        """The last page that may be fetched."""
        self._unasked = 1
        """The first page that no thread has taken on yet."""
        self._came: dict[int, FetchedPage | MarketplaceError] = {}
        self._refused: set[int] = set()
        """Pages that found no room, to be fetched in their turn."""
        self._room: dict[int, int] = {}
        """Bytes of each page that is being fetched, has come, or is in use."""
        self._largest = 0
        self._failure: BaseException | None = None
        self._over = threading.Event()
        self._making_way = False

    def allow(self, last: int) -> None:
        """Allow fetching pages up to this one, as far as there is room."""
        with self._changed:
            self._last = last
            if not self._threads:
                self._start_thread()
            self._changed.notify_all()

    def take(self) -> FetchedPage:
        """Wait for the next page and return it; the previous one is no longer needed.

        Raises what went wrong with this page, or with all: then the pages before it have been taken, if they came.
        """
        with self._changed:
            number = self._due
            self._room.pop(number - 1, None)
            self._changed.notify_all()
            while number not in self._came:
                if self._failure is not None and (_ends_all(self._failure) or number not in self._room):
                    raise self._failure
                if not self._wait():
                    self._check()
            came = self._came.pop(number)
            self._due = number + 1
            self._changed.notify_all()
        if isinstance(came, MarketplaceError):
            raise came
        return came

    def arrived(self) -> list[FetchedPage]:
        """Return the fetched pages that will be taken next, in order."""
        with self._changed:
            pages: list[FetchedPage] = []
            while isinstance(page := self._came.get(self._due + len(pages)), FetchedPage):
                pages.append(page)
            return pages

    def close(self) -> None:
        """Fetch no more pages. Wait briefly for requests in progress, and drop their responses."""
        with self._changed:
            self._over.set()
            self._changed.notify_all()
        end = time.monotonic() + _LAST_RESPONSES_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._came.clear()

    @contextmanager
    def making_way(self) -> Iterator[None]:
        """In the block, let no page keep its connection until there is room: the caller may need the only one."""
        self._make_way(True)
        try:
            yield
        finally:
            self._make_way(False)

    def _make_way(self, value: bool) -> None:
        with self._changed:
            self._making_way = value
            self._changed.notify_all()

    def _wait(self) -> bool:
        """Wait for a change, using one more connection if there is none for some time and a page to fetch with it."""
        if len(self._threads) < self._connections and self._claimable(len(self._threads) + 1) is not None:
            if not self._changed.wait(PATIENCE_SECONDS):
                self._start_thread()
            return True
        return self._changed.wait(_POLL_SECONDS)

    # In the threads

    def _start_thread(self) -> None:
        # In this thread's context: what is logged while fetching belongs to the run.
        thread = threading.Thread(target=copy_context().run, args=(self._work,), name="fetch-ahead", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (number := self._claim()) is not None:
            try:
                page = self._fetch(number, partial(self._admit, number), self._over)
            except NoRoom:
                self._put_off(number)
            except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread
                self._fail(number, error)
            else:
                self._arrive(number, page)
                del page  # megabytes

    def _claim(self) -> int | None:
        """Return the page to fetch next, once there is room for it; None if no more are needed."""
        with self._changed:
            while not self._over.is_set() and self._failure is None:
                number = None if self._making_way else self._claimable(len(self._threads))
                if number is not None:
                    self._refused.discard(number)
                    self._unasked = max(self._unasked, number + 1)
                    self._room[number] = self._largest
                    return number
                self._changed.wait()
            return None

    def _claimable(self, threads: int) -> int | None:
        """Return the page that one of so many threads may fetch now."""
        if self._due in self._refused:
            return self._due
        number = self._unasked
        if number > self._last:
            return None
        if number == self._due:
            return number
        most = min(MAX_BYTES_IN_FLIGHT, threads * BYTES_PER_CONNECTION)
        has_room = self._used_beside(number) + self._largest <= most and not self._refused
        return number if has_room and number <= self._due + threads else None

    def _used_beside(self, number: int) -> int:
        return sum(size for page, size in self._room.items() if page != number)

    def _admit(self, number: int, size: int) -> bool:
        """Tell whether there is room for a page of that size; the next page waits for it, others do without."""
        with self._changed:
            while not self._over.is_set():
                fits = self._used_beside(number) + size <= MAX_BYTES_IN_FLIGHT
                is_awaited = number == self._due and number - 1 not in self._room
                if fits or is_awaited:
                    self._room[number] = size
                    return True
                if number != self._due or self._making_way:
                    return False
                self._changed.wait()
            return False

    def _put_off(self, number: int) -> None:
        with self._changed:
            del self._room[number]
            self._refused.add(number)
            self._largest = max(self._largest, MAX_BYTES_IN_FLIGHT // self._connections)
            self._changed.notify_all()

    def _fail(self, number: int, error: BaseException) -> None:
        """Record a failure. A failure of a single page does not stop the others."""
        with self._changed:
            if isinstance(error, MarketplaceError) and not _ends_all(error):
                self._came[number] = error
                self._room[number] = 0
            if not isinstance(error, ApiError | BadResponse):
                self._failure = self._failure or error
            self._changed.notify_all()

    def _arrive(self, number: int, page: FetchedPage) -> None:
        with self._changed:
            self._came[number] = page
            self._room[number] = page.size_bytes
            self._largest = max(self._largest, page.size_bytes)
            self._changed.notify_all()


def _ends_all(error: BaseException) -> bool:
    """Tell whether a failure ends the walk at once, without waiting for the pages before it."""
    return isinstance(error, TokenRefused) or not isinstance(error, MarketplaceError)
