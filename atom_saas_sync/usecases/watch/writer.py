"""The only thread of `watch` that uses the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from atom_saas_sync.errors import DatabaseBusy, DatabaseError
from atom_saas_sync.usecases.watch.edges import Clock, Result

LOCKED_SECONDS = 60.0
_RETRY_SECONDS = 1.0
_BUSY_UNTOLD_SECONDS = 10.0

log = logging.getLogger(__name__)


class Writer:
    """Calls methods of the store in its thread, one after the other."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._busy_since: float | None = None

    @property
    def busy_seconds(self) -> float:
        """Return for how long the current call has been running; 0.0 if there is none."""
        since = self._busy_since
        return 0.0 if since is None else self._clock.monotonic() - since

    async def write(self, verb: Callable[..., Result], *arguments: object) -> Result:
        """Call `verb` in the thread and return its result. Raises what `verb` raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(self._call, verb, arguments))

    async def write_patiently(self, verb: Callable[..., Result], *arguments: object) -> Result:
        """Write, retrying while another program has the database locked. Raises DatabaseError after a time limit."""
        began = self._clock.monotonic()
        while True:
            try:
                return await self.write(verb, *arguments)
            except DatabaseError as error:
                waited = self._clock.monotonic() - began
                if waited > LOCKED_SECONDS:
                    raise
                # A short write by another program is not worth a log line.
                if waited > _BUSY_UNTOLD_SECONDS or not isinstance(error, DatabaseBusy):
                    log.error("%s; trying again", error.message)  # noqa: TRY400 - the message says it all
                await asyncio.sleep(_RETRY_SECONDS)

    def _call(self, verb: Callable[..., Result], arguments: tuple[object, ...]) -> Result:
        # Noted in the thread: calls that wait for their turn are not the one that may hang.
        self._busy_since = self._clock.monotonic()
        try:
            return verb(*arguments)
        finally:
            self._busy_since = None

    def close(self) -> None:
        """Wait for the current call and drop queued ones; the store may be closed afterwards."""
        self._thread.shutdown(cancel_futures=True)
