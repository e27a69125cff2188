"""One run of a kind at a time, on any host: a lock of the writing session, which ends with it.

The row in `run_lock` names the holder, for messages; only the server knows whether it is held. Its token fences off a
run that lost its session and whose lock another run has taken: every transaction of a run reads it first.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import random
from typing import Any

from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.store.lock_taken import lock_taken
from atom_saas_sync.store.postgresql.connection import Connection
from atom_saas_sync.store.postgresql.session import advisory_class, advisory_key
from atom_saas_sync.times import format_time

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.25, 1.0
_UNSIGNED = 1 << 32

_log = logging.getLogger(__name__)


@contextmanager
def run_lock(
    db: Connection,
    kind: str,
    *,
    command: str,
    now: Callable[[], str],
    sleep: Callable[[float], object],
    wait_seconds: float = 0,
    may_wait: bool = False,
) -> Iterator[None]:
    """Hold the lock for runs of this kind during the block; wait for it up to `wait_seconds`, which may be infinite.

    `command` and the time `now()` are shown to others that find the lock taken, so `command` must not contain secrets.
    With `may_wait` the error names `--wait`, which only some commands have. With an infinite wait, there is no
    connection between attempts.

    Raises Locked, naming the holder, ConfigError behind a pooler that cannot hold locks, and DatabaseError.
    """
    db.require_session()
    waited = 0.0
    # A session can take a lock that it already holds.
    while kind in db.held or not db.take(kind):
        if waited >= wait_seconds:
            run = holder(db, kind) or {}
            place = "" if run.get("host") == db.host else f" on {run.get('host')}"
            stop = f"`kill {run.get('pid')}`{place} ends it and frees the lock"
            raise lock_taken(kind, run, place=place, stop=stop, may_wait=may_wait)
        pause = min(_SHORTEST_PAUSE + random() * (_LONGEST_PAUSE - _SHORTEST_PAUSE), wait_seconds - waited)
        if wait_seconds == float("inf"):
            _stand_by(db, pause, sleep)
        else:
            sleep(pause)
        waited += pause
    try:
        with db.transaction(together=True) as connection:
            written = connection.execute(
                "INSERT INTO run_lock (kind, host, pid, backend, command, since, token) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (kind) DO UPDATE SET (host, pid, backend, command, "
                "since, token) = (excluded.host, excluded.pid, excluded.backend, excluded.command, excluded.since, "
                "excluded.token) RETURNING token",
                (kind, db.host, os.getpid(), db.session.backend, command, now(), _new_token()),
            )
        ((db.held[kind],),) = written.fetchall()
        yield
    finally:
        db.release(kind)


def holder(db: Connection, kind: str) -> dict[str, Any] | None:
    """Return `pid`, `host`, `command` and `since` of the run that holds the lock now, or None.

    The dictionary is empty for the instant before a run that got the lock has written its name.

    Raises DatabaseError.
    """
    with db.reading() as connection:
        row = connection.execute(
            "SELECT r.pid, r.host, r.command, r.since FROM pg_locks AS l "
            "LEFT JOIN run_lock AS r ON r.kind = %s AND r.backend = l.pid "
            "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 "
            "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            "AND l.classid::bigint = %s AND l.objid::bigint = %s",
            (kind, advisory_class(db.schema) % _UNSIGNED, advisory_key(kind) % _UNSIGNED),
        ).fetchone()
    if row is None:
        return None
    pid, host, command, since = row
    return {} if pid is None else {"pid": pid, "host": host, "command": command, "since": format_time(since)}


def _new_token() -> int:
    """Return a token that no other run has had.

    A number counted up would come twice: a failover to a standby may lose the transaction that wrote the last one.
    """
    return int.from_bytes(os.urandom(7))


def _stand_by(db: Connection, seconds: float, sleep: Callable[[float], object]) -> None:
    """Wait without a connection, then reconnect; retry while that fails for a reason that may pass."""
    db.close()
    logged = ""
    while True:
        sleep(seconds)
        try:
            db.reconnect()
        except DatabaseError as error:
            if error.message != logged:
                _log.warning("%s; trying again", error.message)
                logged = error.message
        else:
            return
