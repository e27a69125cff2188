"""One limit on each whole exchange: httpx limits single reads only, and a slow answer can have any number of them."""

from __future__ import annotations

import math
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class TimeLimit:
    """The limit of one exchange: when it ends, on the monotonic clock, and whether the connection was cut off then."""

    ends: float
    connection: socket.socket
    expired: bool = False


class TimeLimits:
    """Cuts connections off whose exchange takes too long. Threads may share it.

    One thread watches over all of them: to start one for each exchange takes longer than many an answer.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: set[TimeLimit] = set()
        self._watching = False
        self._closed = False
        self._wakes_at = math.inf

    def begin(self, seconds: float, connection: socket.socket) -> TimeLimit:
        """Begin an exchange of at most that many seconds over a connection."""
        limit = TimeLimit(time.monotonic() + seconds, connection)
        with self._changed:
            self._running.add(limit)
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="time-limits", daemon=True).start()
            elif limit.ends < self._wakes_at:
                self._changed.notify()
        return limit

    def end(self, limit: TimeLimit) -> None:
        """End an exchange: from here on its connection is safe."""
        with self._changed:
            self._running.discard(limit)

    def close(self) -> None:
        """End the thread. Exchanges that are under way have no limit any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                for limit in [each for each in self._running if each.ends <= now]:
                    self._running.discard(limit)
                    limit.expired = True
                    with suppress(OSError):
                        limit.connection.shutdown(socket.SHUT_RDWR)
                self._wakes_at = min((each.ends for each in self._running), default=math.inf)
                self._changed.wait(None if self._wakes_at == math.inf else self._wakes_at - now)
