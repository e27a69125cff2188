"""Run blocking work of `watch` in daemon threads, which do not delay the end of the process."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from atom_saas_sync.errors import AtomSyncError

log = logging.getLogger(__name__)
Result = TypeVar("Result")


class BackgroundRuns:
    """Runs each piece of work in a thread of its own. `on_bug` is called in the event loop after an internal error."""

    def __init__(self, on_bug: Callable[[], None]) -> None:
        self._on_bug = on_bug
        self._threads: list[threading.Thread] = []

    @property
    def at_work(self) -> bool:
        """Tell whether any work is still running."""
        return any(thread.is_alive() for thread in self._threads)

    async def run(self, work: Callable[[], Result]) -> Result | None:
        """Return the result of `work`; None if it failed, which is logged."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result | None] = loop.create_future()

        def finish(result: Result | None, is_bug: bool) -> None:
            if is_bug:
                self._on_bug()
            if not done.cancelled():
                done.set_result(result)

        def run() -> None:
            result, is_bug = None, False
            try:
                result = work()
            except AtomSyncError as failure:
                log.error("%s", failure.message)  # noqa: TRY400 - the message says it all
            except Exception:
                log.exception("internal error; the service continues")
                is_bug = True
            with suppress(RuntimeError):  # the loop is closed if the service has stopped in the meantime
                loop.call_soon_threadsafe(finish, result, is_bug)

        thread = threading.Thread(target=run, name="run", daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()
        return await done


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, at most this many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
