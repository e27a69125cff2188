"""When `watch` polls: to catch up after each connect, and periodically without a connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Never

from atom_saas_sync.model import RunReport
from atom_saas_sync.usecases.schedule import poll_is_due
from atom_saas_sync.usecases.watch.background import BackgroundRuns, wait_for
from atom_saas_sync.usecases.watch.edges import Clock, Write

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import JobStore, StateStore


_LOOK_SECONDS = 1.0
_FIRST_RETRY, _LONGEST_RETRY = 15.0, 900.0

log = logging.getLogger(__name__)


class Polling:
    """Polls on request, and whenever `interval` has passed; None if polling is not needed or left to other processes.

    `poll` makes one run in the calling thread; it returns None if it was stopped or could not get the lock. `ask` reads
    from the store, and waits while another program has its tables locked.
    """

    def __init__(
        self,
        poll: Callable[[], RunReport | None],
        *,
        interval: Callable[[], timedelta | None],
        store: StateStore,
        schedule: JobStore,
        ask: Write,
        runs: BackgroundRuns,
        clock: Clock,
    ) -> None:
        self._poll = poll
        self._interval = interval
        self._store = store
        self._schedule = schedule
        self._ask = ask
        self._runs = runs
        self._clock = clock
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Request a poll as soon as possible. Call it in the event loop."""
        self._asked.set()

    async def run(self) -> Never:
        """Poll whenever needed; a requested poll that failed is retried."""
        retry = _FIRST_RETRY
        while True:
            if not self._asked.is_set():
                await wait_for(self._asked, _LOOK_SECONDS)
            wanted = self._asked.is_set()
            if not wanted and not await self._is_due():
                continue
            if await self._ask(self._schedule.stopped):
                await asyncio.sleep(_LOOK_SECONDS)  # the emergency stop: a request waits until it ends
                continue
            self._asked.clear()
            report = await self._runs.run(self._poll)
            if report is not None and report.complete:
                retry = _FIRST_RETRY
            elif wanted or report is None:
                log.warning("%s did not succeed; trying again in %.0f s", "catching up" if wanted else "polling", retry)
                await wait_for(self._asked, retry)
                if wanted:
                    self._asked.set()
                retry = min(2 * retry, _LONGEST_RETRY)

    async def _is_due(self) -> bool:
        interval = self._interval()
        if interval is None:
            return False
        return poll_is_due(await self._ask(self._store.last_poll), interval, self._clock.now())
