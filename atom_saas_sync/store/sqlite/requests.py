"""The request budget shared by all processes (marketplace-api.md, "Errors and limits")."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path

from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.model import BudgetLimit, BudgetState
from atom_saas_sync.store import request_limits
from atom_saas_sync.store.limits import BUSY_TIMEOUT_SECONDS
from atom_saas_sync.store.names import MARKETPLACE, RATE_LIMIT
from atom_saas_sync.store.request_limits import HOUR, MINUTE, Budget, Declared, Limits
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.runs import get_fact, set_fact

_USED = """
    SELECT coalesce(sum(CASE WHEN second > ?1 THEN requests END), 0), coalesce(sum(requests), 0)
    FROM request_budget WHERE second > ?2 AND second <= ?3
"""


class RequestBudget:
    """Counts the requests of the last hour, by second. Thread-safe: threads take turns on one connection.

    A client that takes many requests within one second gets several at a time, for that second, and returns unused
    ones: each write has to wait for other writers' transactions.
    """

    def __init__(
        self,
        path: Path,
        *,
        per_minute: int,
        per_hour: int,
        marketplace: str = "",
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
    ) -> None:
        """Enforce `per_minute` and `per_hour`, and lower limits that `marketplace` declares."""
        self._database = Database.open(path, any_thread=True, busy_timeout_seconds=busy_timeout_seconds)
        self._turn = threading.Lock()
        self._configured = ((per_minute, MINUTE), (per_hour, HOUR))
        self._marketplace = marketplace
        self._learned: Declared | None = None
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
                budget = _read(connection, now.timestamp(), self._configured, self._marketplace)
                if (wait := budget.wait(partial(_sent, connection, budget.now))) > 0:
                    return wait
                lease = request_limits.next_lease(self._lease, again=second == self._leased_second, free=budget.free())
                connection.execute(
                    "INSERT INTO request_budget (second, requests) VALUES (?1, ?2) "
                    "ON CONFLICT (second) DO UPDATE SET requests = requests + ?2",
                    (second, lease),
                )
                # A clock that was set back leaves seconds in the future, which would count forever.
                connection.execute(
                    "DELETE FROM request_budget WHERE second <= ? OR second > ?", (second - HOUR, second + MINUTE)
                )
            self._leased_second, self._lease, self._left = second, lease, lease - 1
        return 0.0

    def learn(self, now: datetime, *, limit: int, remaining: int | None, reset_seconds: float | None) -> None:
        """Apply a limit declared by the marketplace, for its window.

        The headers do not name the window: a reset more than a minute away means an hour, otherwise a minute.
        """
        learned = request_limits.declared(self._marketplace, now.timestamp(), limit, remaining, reset_seconds)
        with self._turn:
            if request_limits.is_known(learned, self._learned):
                return
            with self._database.transaction() as connection:
                set_fact(connection, RATE_LIMIT, json.dumps(learned._asdict()), now)
                self._give_back(connection)
            self._learned = learned

    def free(self, now: datetime) -> int:
        """Return the number of requests that are left now."""
        with self._turn, self._database.reading() as connection:
            return _read(connection, now.timestamp(), self._configured, self._marketplace).free() + self._left

    def close(self) -> None:
        """Close the connection after waiting for its thread; closing it mid-statement crashes the process."""
        with self._turn:
            # What can't be returned counts as used, to be safe.
            if self._left:
                with suppress(DatabaseError), self._database.transaction() as connection:
                    self._give_back(connection)
            self._database.close()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if self._left:
            connection.execute(
                "UPDATE request_budget SET requests = requests - ? WHERE second = ?", (self._left, self._leased_second)
            )
            self._left = 0


def remaining_requests(connection: sqlite3.Connection, now: float, per_minute: int, per_hour: int) -> int:
    """Return the number of requests to the database's marketplace that are left now."""
    return _read(connection, now, ((per_minute, MINUTE), (per_hour, HOUR)), get_fact(connection, MARKETPLACE)).free()


class StoredLimits:
    """The request budget as people see it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self, now: datetime, *, per_minute: int, per_hour: int, marketplace: str) -> BudgetState:
        """Return the available requests, and the origin of each limit."""
        moment = now.timestamp()
        configured = ((per_minute, MINUTE), (per_hour, HOUR))
        setters = ["ATOM_SAAS_RATE_LIMIT_PER_MINUTE", "ATOM_SAAS_RATE_LIMIT_PER_HOUR", marketplace]
        with self._database.reading() as connection:
            budget = _read(connection, moment, configured, marketplace)
            declared = budget.declared
            limits = [
                BudgetLimit(limit, window, used := budget.used[window], max(0, limit - used), set_by)
                for (limit, window), set_by in zip(budget.limits, setters, strict=False)
            ]
            pauses = declared is not None and declared.pause_until > moment
            return BudgetState(
                free=budget.free(),
                next_free_in_seconds=budget.wait(partial(_sent, connection, moment)),
                limits=tuple(limits),
                declared_until=None if declared is None else request_limits.as_time(declared.until),
                paused_until=request_limits.as_time(declared.pause_until) if declared is not None and pauses else None,
            )

    def forget_declared_limit(self) -> bool:
        """Discard a declared limit; tell whether there was one."""
        with self._database.transaction() as connection:
            return connection.execute("DELETE FROM fact WHERE name = ?", (RATE_LIMIT,)).rowcount > 0


def _read(connection: sqlite3.Connection, now: float, configured: Limits, marketplace: str | None) -> Budget:
    declared = request_limits.in_force(get_fact(connection, RATE_LIMIT), now, marketplace)
    minute, hour = connection.execute(_USED, (now - MINUTE, now - HOUR, now)).fetchone()
    return Budget(now, configured, declared, {MINUTE: int(minute), HOUR: int(hour)})


def _sent(connection: sqlite3.Connection, now: float, since: float) -> Iterable[tuple[int, int]]:
    return connection.execute(
        "SELECT second, requests FROM request_budget WHERE second > ? AND second <= ? ORDER BY second DESC",
        (since, now),
    )
