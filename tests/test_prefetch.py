"""Pages are fetched concurrently, in any order, and delivered in order, within one limit on their bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atom_saas_sync.errors import (
    ApiError,
    AtomSyncError,
    Interrupted,
    MarketplaceError,
    MarketplaceTimeout,
    NoRoom,
    RateLimited,
    TokenRefused,
)
from atom_saas_sync.model import FetchedPage
from atom_saas_sync.usecases import prefetch
from atom_saas_sync.usecases.prefetch import BYTES_PER_CONNECTION, MAX_BYTES_IN_FLIGHT, Prefetcher

MIB = 1024 * 1024
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use another connection for every page that is not received at once."""
    monkeypatch.setattr(prefetch, "PATIENCE_SECONDS", 0.0)


class Marketplace:
    """Answers requests for pages in a chosen order: the first of those in flight comes next."""

    def __init__(self, order: list[int] | None = None, sizes: list[int] | None = None) -> None:
        self._order = order or []
        self._sizes = sizes or []
        self._changed = threading.Condition()
        self._under_way: set[int] = set()
        self._over: set[int] = set()
        self.paused: set[int] = set()
        """Pages whose request is in a pause until it is told that it is over."""
        self.held: set[int] = set()
        """Pages that are not answered as long as they are in here."""
        self.errors: dict[int, BaseException] = {}
        self.asked: list[int] = []
        self.most_at_once = 0

    def __call__(self, number: int, admit: Callable[[int], bool], over: threading.Event) -> FetchedPage:
        with self._changed:
            self.asked.append(number)
            self._under_way.add(number)
            self.most_at_once = max(self.most_at_once, len(self._under_way))
            self._changed.notify_all()
            try:
                assert self._changed.wait_for(lambda: self._is_next(number), PATIENCE)
            finally:
                self._under_way.discard(number)
                self._changed.notify_all()
        if number in self.paused:
            assert over.wait(2 * PATIENCE)
            raise NoRoom("")
        if number in self.errors:
            raise self.errors.pop(number)
        size = self._sizes[number - 1] if self._sizes else 0
        for received in (size // 2, size):
            if not admit(received):
                self._note_over(number)
                raise NoRoom("")
        self._note_over(number)
        return FetchedPage((), None, number=number, size_bytes=size)

    def _is_next(self, number: int) -> bool:
        free = self._under_way - self.held
        return number in free and number == min(free, key=self._place)

    def _place(self, number: int) -> int:
        return self._order.index(number) if number in self._order else number

    def wait_until_asked(self, *numbers: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: set(numbers) <= set(self.asked), PATIENCE)

    def is_asked_soon(self, number: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: number in self.asked, 0.2)

    def wait_until_over(self, number: int) -> None:
        """Wait until a page has been received, or has found no room."""
        with self._changed:
            assert self._changed.wait_for(lambda: number in self._over, PATIENCE)

    def _note_over(self, number: int) -> None:
        with self._changed:
            self._over.add(number)
            self._changed.notify_all()

    def answer(self, number: int) -> None:
        with self._changed:
            self.held.discard(number)
            self._changed.notify_all()


def prefetcher(marketplace: Marketplace, connections: int, check: Callable[[], None] = lambda: None) -> Prefetcher:
    return Prefetcher(marketplace, connections=connections, check=check)


def taken(pages: Prefetcher, count: int) -> Iterator[int | type[AtomSyncError]]:
    """Take this many pages; yield their numbers, or the errors in their place."""
    for _ in range(count):
        try:
            yield pages.take().number
        except AtomSyncError as error:
            yield type(error)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fetch-ahead"]


def all_end() -> bool:
    """Wait for all threads to end; on a busy machine they may take longer than `close` waits."""
    for thread in threads():
        thread.join(PATIENCE)
    return not threads()


@given(order=st.permutations(range(1, 13)), connections=st.integers(1, 10))
def test_pages_come_in_order_for_any_order_of_responses(order: list[int], connections: int) -> None:
    marketplace = Marketplace(order)
    with closing(prefetcher(marketplace, connections)) as pages:
        pages.allow(12)
        assert list(taken(pages, 12)) == list(range(1, 13))
    assert sorted(marketplace.asked) == list(range(1, 13))
    assert marketplace.most_at_once <= connections
    assert all_end()


def test_with_one_connection_they_are_asked_for_in_order() -> None:
    marketplace = Marketplace()
    with closing(prefetcher(marketplace, 1)) as pages:
        pages.allow(8)
        assert list(taken(pages, 8)) == list(range(1, 9))
    assert marketplace.asked == list(range(1, 9))


def test_as_many_are_under_way_as_there_are_connections() -> None:
    marketplace, settled = Marketplace(), threading.Semaphore(0)
    marketplace.held = {1, 2, 3, 4, 5, 6, 7}
    with closing(prefetcher(marketplace, 6, check=settled.release)) as pages:
        pages.allow(9)
        first = threading.Thread(target=pages.take)
        first.start()
        marketplace.wait_until_asked(1, 2, 3, 4, 5, 6)
        # It is called only while no further connection is to be used; the first call may be an earlier one.
        assert settled.acquire(timeout=PATIENCE) and settled.acquire(timeout=PATIENCE)
        assert marketplace.most_at_once == 6
        for number in range(1, 8):
            marketplace.answer(number)
        first.join()
        assert list(taken(pages, 8)) == list(range(2, 10))
    assert marketplace.most_at_once == 6


def test_no_page_is_asked_for_that_is_not_allowed() -> None:
    marketplace = Marketplace()
    with closing(prefetcher(marketplace, 6)) as pages:
        pages.allow(2)
        assert list(taken(pages, 2)) == [1, 2]
        pages.allow(3)
        assert list(taken(pages, 1)) == [3]
    assert marketplace.asked == [1, 2, 3]


def test_a_fast_marketplace_takes_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "PATIENCE_SECONDS", PATIENCE)
    marketplace = Marketplace()
    with closing(prefetcher(marketplace, 6)) as pages:
        pages.allow(20)
        for _ in range(20):
            pages.take()
            assert len(threads()) == 1


@given(
    sizes=st.lists(st.sampled_from([0, MIB // 10, 3 * MIB, 6 * MIB, 9 * MIB, 16 * MIB]), min_size=1, max_size=15),
    connections=st.integers(1, 10),
)
def test_all_pages_but_the_awaited_one_share_one_limit_of_bytes(sizes: list[int], connections: int) -> None:
    marketplace, most = Marketplace(sizes=sizes), 0
    alive: dict[int, int] = {}
    lock = threading.Lock()

    def fetch(number: int, admit: Callable[[int], bool], over: threading.Event) -> FetchedPage:
        def counted(size: int) -> bool:
            nonlocal most
            if not admit(size):
                return False
            with lock:
                alive[number] = size
                most = max(most, sum(alive.values()))
            return True

        return marketplace(number, counted, over)

    with closing(Prefetcher(fetch, connections=connections, check=lambda: None)) as pages:
        pages.allow(len(sizes))
        for number in range(1, len(sizes) + 1):
            with lock:
                alive.pop(number - 1, None)
            assert pages.take().number == number
    assert most <= MAX_BYTES_IN_FLIGHT + max(sizes)
    assert len(marketplace.asked) <= len(sizes) + 2 * connections, "what finds no room is asked for once more"


def test_pages_that_were_asked_for_before_their_size_was_known_have_the_same_bound() -> None:
    marketplace, lock = Marketplace(order=[6, 5, 4, 3, 2, 1], sizes=[16 * MIB] * 6), threading.Lock()
    marketplace.held = {1, 2, 3, 4, 5, 6}
    alive: set[int] = set()
    most = 0

    def fetch(number: int, admit: Callable[[int], bool], over: threading.Event) -> FetchedPage:
        nonlocal most
        page = marketplace(number, admit, over)
        with lock:
            alive.add(number)
            most = max(most, len(alive))
        return page

    found: list[int] = []

    def take_all() -> None:
        for _ in range(6):
            found.append(pages.take().number)
            with lock:
                alive.discard(found[-1])

    with closing(Prefetcher(fetch, connections=6, check=lambda: None)) as pages:
        pages.allow(6)
        consumer = threading.Thread(target=take_all)
        consumer.start()
        marketplace.wait_until_asked(1, 2, 3, 4, 5, 6)
        for number in (6, 5, 4, 3, 2, 1):
            marketplace.answer(number)
        consumer.join(PATIENCE)
    assert found == [1, 2, 3, 4, 5, 6]
    assert most <= 2, "one beside the page whose turn it is"


def test_pages_of_the_largest_size_come_one_at_a_time() -> None:
    marketplace = Marketplace(sizes=[20 * MIB] * 8)
    with closing(prefetcher(marketplace, 1)) as pages:
        pages.allow(8)
        assert list(taken(pages, 8)) == list(range(1, 9))
    assert marketplace.asked == list(range(1, 9))


def test_with_much_in_memory_a_single_connection_fetches_only_the_next_page() -> None:
    """Also if three pages would fit into what all connections share."""
    marketplace = Marketplace(sizes=[BYTES_PER_CONNECTION // 2 + 1] * 4)
    with closing(prefetcher(marketplace, 1)) as pages:
        pages.allow(4)
        assert pages.take().number == 1
        marketplace.wait_until_over(2)
        assert not marketplace.is_asked_soon(3)
        assert list(taken(pages, 3)) == [2, 3, 4]


def test_an_error_of_one_page_comes_in_its_turn_and_the_others_come() -> None:
    marketplace = Marketplace()
    marketplace.errors[3] = ApiError("it fails", status=500)
    with closing(prefetcher(marketplace, 6)) as pages:
        pages.allow(6)
        assert list(taken(pages, 6)) == [1, 2, ApiError, 4, 5, 6]


@pytest.mark.parametrize("error", [MarketplaceTimeout("late"), RateLimited("used up")], ids=["timeout", "budget"])
def test_an_error_that_ends_the_walk_leaves_the_pages_before_it(error: MarketplaceError) -> None:
    marketplace = Marketplace(order=[1, 4, 3, 2])
    marketplace.errors[4] = error
    marketplace.held = {2, 3, 4}
    with closing(prefetcher(marketplace, 4)) as pages:
        pages.allow(60)
        assert list(taken(pages, 1)) == [1]
        marketplace.answer(4)
        marketplace.answer(3)
        rest: list[int | type[AtomSyncError]] = []
        taking = threading.Thread(target=lambda: rest.extend(taken(pages, 3)))
        taking.start()
        marketplace.wait_until_asked(2, 3, 4)
        marketplace.answer(2)
        taking.join()
        assert rest == [2, 3, type(error)]
    assert max(marketplace.asked) <= 8, "nothing is asked for after it"


@pytest.mark.parametrize("error", [TokenRefused("no"), Interrupted()], ids=["token", "signal"])
def test_a_refused_token_and_a_signal_end_it_at_once(error: AtomSyncError) -> None:
    """No matter how long an earlier page takes."""
    marketplace = Marketplace()
    marketplace.errors[3] = error
    marketplace.held = {2, 3}
    with closing(prefetcher(marketplace, 3)) as pages:
        pages.allow(60)
        assert list(taken(pages, 1)) == [1]
        marketplace.answer(3)
        assert list(taken(pages, 1)) == [type(error)]
        assert max(marketplace.asked) <= 5, "none beyond those under way"
        marketplace.answer(2)
    assert all_end()


def test_check_ends_a_wait() -> None:
    marketplace, stopped = Marketplace(), threading.Event()
    marketplace.held = {1}

    def check() -> None:
        stopped.set()
        raise Interrupted

    with closing(prefetcher(marketplace, 2, check)) as pages:
        pages.allow(1)
        assert list(taken(pages, 1)) == [Interrupted]
        marketplace.answer(1)
    assert stopped.is_set()
    assert all_end()


def test_closing_ends_pauses_at_once() -> None:
    marketplace = Marketplace()
    marketplace.paused = {2}
    marketplace.errors[3] = TokenRefused("no")
    with closing(prefetcher(marketplace, 3)) as pages:
        pages.allow(1)
        assert list(taken(pages, 1)) == [1], "a refused token would come before a page that waits"
        pages.allow(60)
        assert list(taken(pages, 1)) == [TokenRefused]
        marketplace.wait_until_asked(2)
    assert all_end()


def test_a_page_without_room_makes_way_for_a_request_of_the_consumer() -> None:
    marketplace = Marketplace(sizes=[16 * MIB] * 3)
    with closing(prefetcher(marketplace, 1)) as pages:
        pages.allow(3)
        assert pages.take().number == 1
        marketplace.wait_until_asked(2)
        with pages.making_way():
            marketplace.wait_until_over(2)
            assert marketplace.asked == [1, 2]
        assert list(taken(pages, 2)) == [2, 3]
    assert marketplace.asked == [1, 2, 2, 3]
