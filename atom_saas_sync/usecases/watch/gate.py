"""The gate beside the messages: what waits is judged, and what must not be served is taken out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Never

from atom_saas_sync.usecases.watch.background import BackgroundRuns

LOOK_SECONDS, SCAN_SECONDS = 1.0, 10.0
"""Files and rows that have changed count within a second; a scan may take minutes, and keeps no tick waiting."""


class GateWatch:
    """Calls `tick` and `scan` again and again, each in a thread: they block."""

    def __init__(self, tick: Callable[[], None], scan: Callable[[], None] | None, runs: BackgroundRuns) -> None:
        self._tick = tick
        self._scan = scan
        self._runs = runs

    async def run(self) -> None:
        """Go on until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self._tick, LOOK_SECONDS))
            if self._scan is not None:
                group.create_task(self._repeat(self._scan, SCAN_SECONDS))

    async def _repeat(self, work: Callable[[], None], seconds: float) -> Never:
        while True:
            await self._runs.run(work)
            await asyncio.sleep(seconds)
