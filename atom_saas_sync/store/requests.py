"""The budget of requests that all processes share (marketplace-api.md, "Errors and limits")."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.store.database import Database
from atom_saas_sync.store.runs import get_fact, set_fact

_MINUTE, _HOUR = 60, 3600
_LARGEST_LEASE = 16


class RequestBudget:
    """Counts the requests of the last hour, by second. Threads may share it: they take turns on one connection.

    A client that asks for many requests in one second gets more than one at a time, for this second, and gives back
    what it did not use: each write waits for the transaction of whoever writes at the time.
    """

    def __init__(self, path: Path, *, per_minute: int, per_hour: int) -> None:
        """Keep to `per_minute` and `per_hour` until the marketplace declares another limit."""
        self._database = Database.open(path, any_thread=True)
        self._turn = threading.Lock()
        self._defaults = ((per_minute, _MINUTE), (per_hour, _HOUR))
        self._learned: tuple[int, int] | None = None
        self._leased_second = 0
        self._lease = self._left = 0

    def take(self, now: datetime) -> float:
        """Take one request and return 0.0, or return the seconds until one is free."""
        second = int(now.timestamp())
        with self._turn:
            if self._left and second == self._leased_second:
                self._left -= 1
                return 0.0
            with self._database.transaction() as connection:
                self._give_back(connection)
                wait = self._seconds_to_wait(connection, now.timestamp())
                if wait > 0:
                    return wait
                lease = self._next_lease(second, self._free(connection, now))
                connection.execute(
                    "INSERT INTO request_budget (second, requests) VALUES (?1, ?2) "
                    "ON CONFLICT (second) DO UPDATE SET requests = requests + ?2",
                    (second, lease),
                )
                # A clock that was set back leaves seconds in the future, which would count for ever.
                connection.execute(
                    "DELETE FROM request_budget WHERE second <= ? OR second > ?", (second - _HOUR, second + _MINUTE)
                )
            self._leased_second, self._lease, self._left = second, lease, lease - 1
        return 0.0

    def learn(self, now: datetime, *, limit: int, remaining: int | None, reset_seconds: float | None) -> None:
        """Replace the default limits by what the marketplace said.

        The headers do not name their window: a reset that is more than a minute away means an hour, else a minute.
        """
        window = _HOUR if reset_seconds is not None and reset_seconds > _MINUTE else _MINUTE
        exhausted = remaining == 0 and reset_seconds is not None and reset_seconds > 0
        pause_until = now.timestamp() + min(reset_seconds or 0, _HOUR) if exhausted else 0
        fact = json.dumps({"limit": limit, "window": window, "remaining": remaining, "pause_until": pause_until})
        with self._turn:
            if self._learned == (limit, window) and not exhausted:
                return
            with self._database.transaction() as connection:
                set_fact(connection, "rate_limit", fact, now)
                self._give_back(connection)
            self._learned = (limit, window)

    def free(self, now: datetime) -> int:
        """Return how many requests are free now."""
        with self._turn, self._database.reading() as connection:
            return self._free(connection, now) + self._left

    def close(self) -> None:
        """Close the connection, once no thread is at work with it: SQLite would crash the process."""
        with self._turn:
            # What can't be given back counts as used, which is the careful side.
            if self._left:
                with suppress(DatabaseError), self._database.transaction() as connection:
                    self._give_back(connection)
            self._database.close()

    def _next_lease(self, second: int, free: int) -> int:
        """Return how many to take: one at first, twice as many again in the same second, most being left to others."""
        wanted = 2 * self._lease if second == self._leased_second else 1
        return max(1, min(wanted, free // 4, _LARGEST_LEASE))

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if self._left:
            connection.execute(
                "UPDATE request_budget SET requests = requests - ? WHERE second = ?", (self._left, self._leased_second)
            )
            self._left = 0

    def _free(self, connection: sqlite3.Connection, now: datetime) -> int:
        (per_minute, _), (per_hour, _) = self._defaults
        return remaining_requests(connection, now.timestamp(), per_minute, per_hour)

    def _seconds_to_wait(self, connection: sqlite3.Connection, now: float) -> float:
        fact = get_fact(connection, "rate_limit")
        limits: tuple[tuple[int, int], ...] = self._defaults
        wait = 0.0
        if fact is not None:
            declared = json.loads(fact)
            limits = ((declared["limit"], declared["window"]),)
            wait = _pause(declared["pause_until"], now)
        return max([wait, *(_wait_for(connection, now, limit, window) for limit, window in limits)])


def remaining_requests(connection: sqlite3.Connection, now: float, per_minute: int, per_hour: int) -> int:
    """Return how many requests are free now, under the declared limit or else the default ones."""
    fact = get_fact(connection, "rate_limit")
    limits: tuple[tuple[int, int], ...] = ((per_minute, _MINUTE), (per_hour, _HOUR))
    if fact is not None:
        declared = json.loads(fact)
        if _pause(declared["pause_until"], now) > 0:
            return 0
        limits = ((declared["limit"], declared["window"]),)
    free = []
    for limit, window in limits:
        (sent,) = connection.execute(
            "SELECT coalesce(sum(requests), 0) FROM request_budget WHERE second > ? AND second <= ?",
            (now - window, now),
        ).fetchone()
        free.append(limit - int(sent))
    return max(0, min(free))


def _pause(until: float, now: float) -> float:
    """Return the seconds of a pause that are left."""
    left = until - now
    # A longer one than can be declared is of a clock that was set back.
    return left if left <= _HOUR else 0.0


def _wait_for(connection: sqlite3.Connection, now: float, limit: int, window: int) -> float:
    """Return the seconds until the window has room for one more request."""
    rows = connection.execute(
        "SELECT second, requests FROM request_budget WHERE second > ? AND second <= ? ORDER BY second DESC",
        (now - window, now),
    )
    sent = 0
    for row in rows:
        sent += row["requests"]
        if sent >= limit:
            # Free again when this second, and with it enough of the oldest requests, has left the window.
            return float(row["second"] + window + 1 - now)
    return 0.0
