"""A connection that gives up on a server that has fallen silent.

TCP notices a lost peer (session.py), but not a proxy or load balancer in between that has stopped forwarding: it still
answers TCP itself.
"""

from __future__ import annotations

import time
from typing import TypeVar

import psycopg
from psycopg.abc import PQGen

from atom_saas_sync.store.postgresql.rows import Row

STATEMENT_SECONDS = 60
"""How long a statement may take, unless `take_time` has lifted the limit."""
LONGEST_SILENCE = STATEMENT_SECONDS + 30.0
"""After how many seconds without an answer a connection counts as broken."""

_WAKES_UP_SECONDS = 0.1
_T = TypeVar("_T")


class Link(psycopg.Connection[Row]):
    """A connection with a limit on how long it waits for an answer."""

    is_hurried = True
    """Whether the limit holds in the current transaction."""

    def wait(self, gen: PQGen[_T], interval: float = _WAKES_UP_SECONDS, timeout: float | None = None) -> _T:
        """Wait for an answer. Raises OperationalError, and closes the connection, if none comes in time."""
        limited = self._limited(gen)
        # Older drivers have no `timeout`, and never ask for one.
        return super().wait(limited, interval) if timeout is None else super().wait(limited, interval, timeout)

    def _limited(self, gen: PQGen[_T]) -> PQGen[_T]:
        """Yield what `gen` waits for; it is sent what has arrived, or 0 each time that was nothing."""
        end = time.monotonic() + LONGEST_SILENCE
        try:
            wanted = next(gen)
            while True:
                arrived = yield wanted
                if arrived:
                    end = time.monotonic() + LONGEST_SILENCE
                elif self.is_hurried and time.monotonic() >= end:
                    gen.close()
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer for {LONGEST_SILENCE:g} seconds")
                wanted = gen.send(arrived)
        except StopIteration as done:
            result: _T = done.value
            return result


def take_time(connection: psycopg.Connection[Row]) -> None:
    """Lift the limits on statements for the rest of the transaction."""
    assert isinstance(connection, Link)
    connection.execute("SET LOCAL statement_timeout = 0")
    connection.is_hurried = False
