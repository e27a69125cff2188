"""The gate's periodic work in `watch`: judge waiting versions, and remove what must not be served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Never, Protocol

from atom_saas_sync.usecases.watch.background import BackgroundRuns
from atom_saas_sync.usecases.watch.edges import Clock

LOOK_SECONDS, SCAN_SECONDS = 1.0, 10.0
"""Changed files and rows take effect within a second. A scan may take minutes, and does not delay the ticks."""


_SHARE = 10
"""Share of the request budget that confirming messages may use."""

_MINUTE, _HOUR = 60.0, 3600.0


class GateWork(Protocol):
    """The gate's work. All methods block, and none runs twice at the same time."""

    def tick(self) -> None:
        """Apply changed files and rows, and judge what is due."""

    def scan(self) -> None:
        """Scan the versions that only lack a scan."""

    def confirm(self, skill_ids: Sequence[str]) -> None:
        """Fetch the skills that messages named, and apply the result."""

    @property
    def limits(self) -> tuple[int, int]:
        """Return the request limits per minute and per hour."""


class GateWatch:
    """Calls `tick`, `scan` and `confirm` periodically, each in a thread of its own.

    `take_unconfirmed` returns at most the given number of skills that must be fetched from the marketplace.
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
        """Run until cancelled."""
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
        """Record this many requests."""
        self._asked += [now] * number

    def free(self, now: float) -> int:
        """Return how many requests of our share are left; the next poll fetches the rest."""
        while self._asked and self._asked[0] <= now - _HOUR:
            self._asked.popleft()
        lately = sum(1 for asked in self._asked if asked > now - _MINUTE)
        minute, hour = (max(1, limit // _SHARE) for limit in self._work.limits)
        return max(0, min(minute - lately, hour - len(self._asked)))

    async def _repeat(self, work: Callable[[], None], seconds: float) -> Never:
        while True:
            await self._runs.run(work)
            await asyncio.sleep(seconds)
