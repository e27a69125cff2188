"""The gate beside the messages: what waits is judged, and what must not be served is taken out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Never, Protocol

from atom_saas_sync.usecases.watch.background import BackgroundRuns

LOOK_SECONDS, SCAN_SECONDS = 1.0, 10.0
"""Files and rows that have changed count within a second; a scan may take minutes, and keeps no tick waiting."""


class GateWork(Protocol):
    """The gate's work. Both block; neither is called twice at once."""

    def tick(self) -> None:
        """Act on what has changed, and judge what is due."""

    def scan(self) -> None:
        """Scan what waits for nothing else."""


class GateWatch:
    """Calls `tick` and `scan` again and again, each in a thread of its own."""

    def __init__(self, work: GateWork, runs: BackgroundRuns) -> None:
        self._work = work
        self._runs = runs

    async def run(self) -> None:
        """Go on until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self._work.tick, LOOK_SECONDS))
            group.create_task(self._repeat(self._work.scan, SCAN_SECONDS))

    async def _repeat(self, work: Callable[[], None], seconds: float) -> Never:
        while True:
            await self._runs.run(work)
            await asyncio.sleep(seconds)
