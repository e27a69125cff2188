"""Background services: database maintenance, keep-alives, and counts of suppressed log lines."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Never, Protocol

from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.usecases.watch.edges import Supervisor
from atom_saas_sync.usecases.watch.writer import LOCKED_SECONDS, Writer

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import StoreUpkeep


TIDY_SECONDS = 1.0
"""Minimum time between two calls of the store's `tidy`."""

_SETTLE_SECONDS = 1.0

log = logging.getLogger(__name__)


class Upkeep:
    """Tidies the store after writes, in a thread other than the writer."""

    def __init__(self, store: StoreUpkeep, written: asyncio.Event) -> None:
        self._store = store
        self._written = written

    async def run(self) -> Never:
        """Tidy periodically while messages are written."""
        while True:
            await self._written.wait()
            self._written.clear()
            try:
                await asyncio.to_thread(self._store.tidy)
            except DatabaseError as error:
                log.warning("could not truncate the write-ahead log: %s", error.message)
            await asyncio.sleep(TIDY_SECONDS)


class Watchdog:
    """Sends keep-alives while the event loop runs and the writer thread is not stuck."""

    def __init__(self, supervisor: Supervisor, writer: Writer) -> None:
        self._supervisor = supervisor
        self._writer = writer

    async def run(self) -> None:
        """Send two keep-alives per interval of the supervisor; return at once if it wants none."""
        seconds = self._supervisor.watchdog_seconds
        while seconds is not None:
            if self._writer.busy_seconds < max(seconds, LOCKED_SECONDS):
                self._supervisor.alive()
            await asyncio.sleep(seconds / 2)


class Limited(Protocol):
    """A component that limits its log lines."""

    def log_suppressed(self, *, at_once: bool = False) -> None:
        """Log how many lines were suppressed, once their second is over."""


class LeftOutLines:
    """Logs the numbers of suppressed lines."""

    def __init__(self, *limited: Limited) -> None:
        self._limited = limited

    async def run(self) -> Never:
        """Log them every second."""
        while True:
            self.log_suppressed()
            await asyncio.sleep(_SETTLE_SECONDS)

    def log_suppressed(self, *, at_once: bool = False) -> None:
        """Log them now."""
        for each in self._limited:
            each.log_suppressed(at_once=at_once)
