"""The state of the connection that `watch` stores for other processes, and its counters."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Never

from atom_saas_sync.characters import counted
from atom_saas_sync.core.connection import ConnectionState
from atom_saas_sync.errors import DatabaseBusy, DatabaseError
from atom_saas_sync.model import ConnectionSwitch, ReportedConnection
from atom_saas_sync.usecases.watch.background import wait_for
from atom_saas_sync.usecases.watch.edges import Clock, Supervisor, Write

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import StateStore


HEARTBEAT_SECONDS = 10.0

log = logging.getLogger(__name__)


class ConnectionReport:
    """Stores the state of the connection on each change, and as a heartbeat.

    `found` is called with what other programs have written into the stored state, and with what was there before.
    """

    def __init__(
        self,
        machine: ConnectionState,
        *,
        shown_url: str,
        store: StateStore,
        write: Write,
        supervisor: Supervisor,
        clock: Clock,
        found: Callable[[ConnectionSwitch, ReportedConnection | None], None],
    ) -> None:
        self.shown_url = shown_url
        self._machine = machine
        self._store = store
        self._write = write
        self._supervisor = supervisor
        self._clock = clock
        self._found = found
        self._changed = asyncio.Event()
        self._is_ready = False
        self._stored: ReportedConnection | None = None
        self._reconnects_stored = 0
        self._fallback_unstored = 0.0
        self._messages: Counter[str] = Counter()
        self._invalid = self._internal_errors = self._total = 0
        self._connected_at: datetime | None = None
        self._last_message_at: datetime | None = None

    def changed(self) -> None:
        """Request that the state be stored soon."""
        self._changed.set()

    def connected(self) -> None:
        """Record that the connection was opened just now."""
        self._connected_at = self._clock.now()

    def message(self, kind: str | None) -> None:
        """Record a valid message; messages with `kind` None are counted when they are applied."""
        self._last_message_at = self._clock.now()
        self._total += 1
        if kind is not None:
            self._messages[kind] += 1

    def invalid(self, number: int = 1) -> None:
        """Count frames that are not messages."""
        self._invalid += number

    def internal_error(self) -> None:
        """Count an internal error."""
        self._internal_errors += 1

    async def run(self) -> Never:
        """Store the state on each change, and periodically."""
        while True:
            self._changed.clear()
            await self.store()
            await wait_for(self._changed, HEARTBEAT_SECONDS)

    async def store(self) -> None:
        """Store the state and add the counts; if that fails, they are added the next time."""
        machine, now = self._machine, self._clock.now()
        fallback_seconds = self._fallback_unstored + machine.take_fallback_seconds(self._clock.monotonic())
        following = machine.next_attempt
        messages, self._messages = self._messages, Counter()
        invalid, self._invalid = self._invalid, 0
        errors, self._internal_errors = self._internal_errors, 0
        reconnects = machine.reconnects - self._reconnects_stored
        state = ReportedConnection(
            connected=machine.connected,
            ws_url=self.shown_url,
            connected_at=self._connected_at,
            reason=machine.reason,
            attempts=machine.attempts,
            failures=machine.failures,
            fallback=machine.fallback,
            next_attempt_at=None
            if following is None
            else now + timedelta(seconds=max(0.0, following - self._clock.monotonic())),
            last_message_at=self._last_message_at,
            messages=messages,
            invalid=invalid,
            internal_errors=errors,
            reconnects=reconnects,
            fallback_seconds=fallback_seconds,
        )
        try:
            found = await self._write(self._store.note, state, now)
        except DatabaseError as error:
            if not isinstance(error, DatabaseBusy):  # it is written again in a moment
                log.warning("could not write the state: %s", error.message)
            self._messages += messages
            self._invalid += invalid
            self._internal_errors += errors
            self._fallback_unstored = fallback_seconds
        else:
            self._fallback_unstored = 0.0
            self._reconnects_stored += reconnects
            before, self._stored = self._stored, state
            self._found(found, before)
        self._supervisor.status(self._describe())
        if not self._is_ready and (machine.connected or machine.fallback):
            self._is_ready = True
            self._supervisor.ready()

    def _describe(self) -> str:
        machine = self._machine
        if machine.connected:
            return f"connected; {counted(self._total, 'message')}"
        following = machine.next_attempt
        seconds = None if following is None else max(0.0, following - self._clock.monotonic())
        again = "" if seconds is None else f"; next attempt in {seconds:.0f} s"
        mode = "fallen back to polling" if machine.fallback else "connecting"
        return f"{mode}: {machine.reason}{again}" if machine.reason else mode
