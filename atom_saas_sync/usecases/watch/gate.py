"""The gate beside the messages: what waits is judged, and what must not be served is taken out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Never, Protocol

from atom_saas_sync.usecases.watch.background import BackgroundRuns
from atom_saas_sync.usecases.watch.edges import Clock

LOOK_SECONDS, SCAN_SECONDS = 1.0, 10.0
"""Files and rows that have changed count within a second; a scan may take minutes, and keeps no tick waiting."""


_SHARE = 10
"""Confirming messages takes at most this part of the request budget."""

_MINUTE, _HOUR = 60.0, 3600.0


class GateWork(Protocol):
    """The gate's work. Both block; neither is called twice at once."""

    def tick(self) -> None:
        """Act on what has changed, and judge what is due."""

    def scan(self) -> None:
        """Scan what waits for nothing else."""

    def confirm(self, skill_ids: Sequence[str]) -> None:
        """Ask the marketplace for skills of which messages told, and act on the answers."""

    @property
    def limits(self) -> tuple[int, int]:
        """Return how many requests a minute and an hour there may be."""


class GateWatch:
    """Calls `tick`, `scan` and `confirm` again and again, each in a thread of its own.

    `take_unconfirmed` returns at most so many skills that the marketplace must be asked about.
    """

    def __init__(
        self, work: GateWork, runs: BackgroundRuns, take_unconfirmed: Callable[[int], list[str]], clock: Clock
    ) -> None:
        self._work = work
        self._runs = runs
        self._take_unconfirmed = take_unconfirmed
        self._clock = clock
        self._asked: deque[float] = deque()

    async def run(self) -> None:
        """Go on until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self._work.tick, LOOK_SECONDS))
            group.create_task(self._repeat(self._work.scan, SCAN_SECONDS))
            group.create_task(self._confirm())

    async def _confirm(self) -> Never:
        while True:
            now = self._clock.monotonic()
            if ids := self._take_unconfirmed(self.free(now)):
                self.asked(len(ids), now)
                await self._runs.run(partial(self._work.confirm, ids))
            await asyncio.sleep(LOOK_SECONDS)

    def asked(self, number: int, now: float) -> None:
        """Note that so many requests are made."""
        self._asked += [now] * number

    def free(self, now: float) -> int:
        """Return how many requests are left of our share of the budget; the next poll finds what is not asked for."""
        while self._asked and self._asked[0] <= now - _HOUR:
            self._asked.popleft()
        lately = sum(1 for asked in self._asked if asked > now - _MINUTE)
        minute, hour = (max(1, limit // _SHARE) for limit in self._work.limits)
        return max(0, min(minute - lately, hour - len(self._asked)))

    async def _repeat(self, work: Callable[[], None], seconds: float) -> Never:
        while True:
            await self._runs.run(work)
            await asyncio.sleep(seconds)
