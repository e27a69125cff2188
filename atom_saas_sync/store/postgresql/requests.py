"""The request budget shared by all processes of all hosts (marketplace-api.md, "Errors and limits")."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial

import psycopg

from atom_saas_sync.core.server_address import ServerAddress
from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.model import BudgetLimit, BudgetState
from atom_saas_sync.store import request_limits
from atom_saas_sync.store.limits import BUSY_TIMEOUT_SECONDS
from atom_saas_sync.store.names import MARKETPLACE, RATE_LIMIT
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.facts import drop_fact, get_facts, set_fact
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.request_limits import HOUR, MINUTE, Budget, Declared, Limits


class RequestBudget:
    """Counts the requests of the last hour, by second.

    Thread-safe: threads take turns on one connection. A client that takes many requests within one second gets several
    at a time, for that second, and returns unused ones: each write has to wait for other writers' transactions.
    """

    def __init__(
        self,
        address: ServerAddress,
        *,
        per_minute: int,
        per_hour: int,
        marketplace: str = "",
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
    ) -> None:
        """Enforce `per_minute` and `per_hour`, and lower limits that `marketplace` declares."""
        self._database = Database.open(address, busy_timeout_seconds=busy_timeout_seconds)
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
            with self._database.transaction(durable=False, together=True) as connection:
                self._give_back(connection)
                budget = _read(connection, now, self._configured, self._marketplace)
                if (wait := budget.wait(partial(_sent, connection, budget.now))) > 0:
                    return wait
                lease = request_limits.next_lease(self._lease, again=second == self._leased_second, free=budget.free())
                connection.execute(
                    "INSERT INTO request_budget AS b (second, requests) VALUES (%s, %s) "
                    "ON CONFLICT (second) DO UPDATE SET requests = b.requests + excluded.requests",
                    (second, lease),
                )
                # A clock that was set back leaves seconds in the future, which would count forever.
                connection.execute(
                    "DELETE FROM request_budget WHERE second <= %s OR second > %s", (second - HOUR, second + MINUTE)
                )
            self._leased_second, self._lease, self._left = second, lease, lease - 1
        return 0.0

    def learn(self, now: datetime, *, limit: int, remaining: int | None, reset_seconds: float | None) -> None:
        """Apply a limit declared by the marketplace, for its window."""
        learned = request_limits.declared(self._marketplace, now.timestamp(), limit, remaining, reset_seconds)
        with self._turn:
            if request_limits.is_known(learned, self._learned):
                return
            with self._database.transaction(together=True) as connection:
                set_fact(connection, RATE_LIMIT, json.dumps(learned._asdict()), now)
                self._give_back(connection)
            self._learned = learned

    def free(self, now: datetime) -> int:
        """Return the number of requests that are left now."""
        with self._turn, self._database.reading() as connection:
            return _read(connection, now, self._configured, self._marketplace).free() + self._left

    def close(self) -> None:
        """Close the connection after waiting for its thread."""
        with self._turn:
            # What can't be returned counts as used, to be safe.
            if self._left:
                with suppress(DatabaseError), self._database.transaction(durable=False, together=True) as connection:
                    self._give_back(connection)
            self._database.close()

    def _give_back(self, connection: psycopg.Connection[Row]) -> None:
        if self._left:
            connection.execute(
                "UPDATE request_budget SET requests = requests - %s WHERE second = %s",
                (self._left, self._leased_second),
            )
            self._left = 0


class StoredLimits:
    """The request budget for display."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self, now: datetime, *, per_minute: int, per_hour: int, marketplace: str) -> BudgetState:
        """Return the available requests, and the origin of each limit."""
        configured = ((per_minute, MINUTE), (per_hour, HOUR))
        setters = ["ATOM_SAAS_RATE_LIMIT_PER_MINUTE", "ATOM_SAAS_RATE_LIMIT_PER_HOUR", marketplace]
        with self._database.reading() as connection:
            budget = _read(connection, now, configured, marketplace)
            found = budget.declared
            limits = [
                BudgetLimit(limit, window, used := budget.used[window], max(0, limit - used), set_by)
                for (limit, window), set_by in zip(budget.limits, setters, strict=False)
            ]
            pauses = found is not None and found.pause_until > now.timestamp()
            return BudgetState(
                free=budget.free(),
                next_free_in_seconds=budget.wait(partial(_sent, connection, budget.now)),
                limits=tuple(limits),
                declared_until=None if found is None else request_limits.as_time(found.until),
                paused_until=request_limits.as_time(found.pause_until) if found is not None and pauses else None,
            )

    def forget_declared_limit(self) -> bool:
        """Discard a declared limit; tell whether there was one."""
        with self._database.transaction() as connection:
            return bool(drop_fact(connection, RATE_LIMIT).fetchall())


USED = """
    SELECT coalesce(sum(requests) FILTER (WHERE second > %(minute)s), 0), coalesce(sum(requests), 0)
    FROM request_budget WHERE second > %(hour)s AND second <= %(moment)s
"""


def used_parameters(now: datetime) -> dict[str, float]:
    """Return the parameters of USED."""
    moment = now.timestamp()
    return {"minute": moment - MINUTE, "hour": moment - HOUR, "moment": moment}


def remaining_requests(facts: Mapping[str, str], used: Row, now: datetime, per_minute: int, per_hour: int) -> int:
    """Return the number of requests to the database's marketplace that are left now; `used` is the result of USED."""
    return _budget(facts, used, now, ((per_minute, MINUTE), (per_hour, HOUR)), None).free()


def _sent(connection: psycopg.Connection[Row], now: float, since: float) -> Iterable[tuple[int, int]]:
    rows = connection.execute(
        "SELECT second, requests FROM request_budget WHERE second > %s AND second <= %s ORDER BY second DESC",
        (since, now),
    )
    return ((row[0], row[1]) for row in rows)


def _read(connection: psycopg.Connection[Row], now: datetime, configured: Limits, marketplace: str | None) -> Budget:
    """Return the budget now; of the database's own marketplace for None."""
    asked = connection.execute(USED, used_parameters(now))  # before the facts are read: one round trip for both
    facts = get_facts(connection, [RATE_LIMIT, MARKETPLACE])
    used = asked.fetchone()
    assert used is not None
    return _budget(facts, used, now, configured, marketplace)


def _budget(facts: Mapping[str, str], used: Row, now: datetime, configured: Limits, marketplace: str | None) -> Budget:
    moment = now.timestamp()
    of = facts.get(MARKETPLACE) if marketplace is None else marketplace
    found = request_limits.in_force(facts.get(RATE_LIMIT), moment, of)
    return Budget(moment, configured, found, {MINUTE: int(used[0]), HOUR: int(used[1])})
