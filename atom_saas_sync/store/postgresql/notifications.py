"""Notify listeners on the channel `atom_sync` that skills have changed. It is only a hint: nothing relies on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from atom_saas_sync.store.postgresql.rows import Row

_PAUSE_SECONDS = 0.1  # commits with a notification wait for each other
_NOTIFY = """
    SELECT pg_notify('atom_sync', json_build_object(
        'schema', current_schema(),
        'run', CASE WHEN %s THEN (SELECT max(id) FROM sync_run WHERE kind = 'skills' AND status = 'running') END,
        'changes', %s::bigint)::text)
"""


class Notifications:
    """The notifications of one connection: at most ten a second; changes that come sooner are in the next one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None
        self._changes = 0

    def send(self, connection: psycopg.Connection[Row], changes: int, *, in_run: bool, last: bool = False) -> None:
        """Send a hint with the transaction if skills have changed in it, or have since the last hint.

        `in_run` says that the run of the skills has changed them; a `last` hint does not wait.
        """
        self._changes += changes
        now = self._clock()
        is_early = self._last is not None and now - self._last < _PAUSE_SECONDS
        if self._changes and (last or not is_early):
            connection.execute(_NOTIFY, (in_run, self._changes))
            self._changes, self._last = 0, now
