"""Sharing one reading among the requests that wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Shared(Generic[_T]):
    """Calls a function for many threads, a few times at once. Each gets a result that is newer than its request.

    Those that come while all calls are under way share the next one, which begins as soon as one of these has ended.
    """

    def __init__(self, read: Callable[[], _T], *, at_once: int) -> None:
        self._read = read
        self._turns = threading.BoundedSemaphore(at_once)
        self._lock = threading.Lock()
        self._next: Future[_T] | None = None

    def get(self) -> _T:
        """Return what the function returns, or raise what it raises."""
        with self._lock:
            shared, is_first = self._next, self._next is None
            if shared is None:
                shared = self._next = Future()
        if is_first:
            with self._turns:
                with self._lock:
                    self._next = None  # who comes from now on may know of changes that this reading misses
                try:
                    shared.set_result(self._read())
                except BaseException as error:  # noqa: BLE001 - each of the callers raises it
                    shared.set_exception(error)
        return shared.result()
