"""What goes on beside the messages: care for the database, signs of life, and word of what the log left out."""

from __future__ import annotations

import asyncio
import logging
from typing import Never, Protocol

from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.usecases.ports import StoreUpkeep
from atom_saas_sync.usecases.watch.edges import Supervisor
from atom_saas_sync.usecases.watch.writer import PATIENCE_SECONDS, Writer

TIDY_SECONDS = 1.0
"""At least so long between two calls of the store's `tidy`."""

_SETTLE_SECONDS = 1.0

log = logging.getLogger(__name__)


class Upkeep:
    """Has the store tidied after writes, in another thread than the one that writes."""

    def __init__(self, store: StoreUpkeep, written: asyncio.Event) -> None:
        self._store = store
        self._written = written

    async def run(self) -> Never:
        """Tidy now and then, as long as something is written."""
        while True:
            await self._written.wait()
            self._written.clear()
            try:
                await asyncio.to_thread(self._store.tidy)
            except DatabaseError as error:
                log.warning("could not shorten the write-ahead log: %s", error.message)
            await asyncio.sleep(TIDY_SECONDS)


class Watchdog:
    """Gives signs of life as long as the event loop turns and the thread that writes is not stuck."""

    def __init__(self, supervisor: Supervisor, writer: Writer) -> None:
        self._supervisor = supervisor
        self._writer = writer

    async def run(self) -> None:
        """Give a sign of life twice in each interval of the supervisor; return at once if it wants none."""
        seconds = self._supervisor.watchdog_seconds
        while seconds is not None:
            if self._writer.busy_seconds < max(seconds, PATIENCE_SECONDS):
                self._supervisor.alive()
            await asyncio.sleep(seconds / 2)


class Limited(Protocol):
    """Whoever limits how much is logged."""

    def settle(self, *, at_once: bool = False) -> None:
        """Log how many lines were left out, once their second is over."""


class LeftOutLines:
    """Has the log told of the lines that were left out."""

    def __init__(self, *limited: Limited) -> None:
        self._limited = limited

    async def run(self) -> Never:
        """Do so each second."""
        while True:
            self.settle()
            await asyncio.sleep(_SETTLE_SECONDS)

    def settle(self, *, at_once: bool = False) -> None:
        """Do so now."""
        for each in self._limited:
            each.settle(at_once=at_once)
