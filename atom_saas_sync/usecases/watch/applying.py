"""Apply waiting messages to the database, in batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from atom_saas_sync.characters import counted
from atom_saas_sync.core.incoming.messages import Message
from atom_saas_sync.errors import AtomSyncError, DatabaseError
from atom_saas_sync.usecases.follow_events import EventFollower
from atom_saas_sync.usecases.watch.backlog import Backlog
from atom_saas_sync.usecases.watch.edges import Clock
from atom_saas_sync.usecases.watch.inbox import Inbox, Parsed
from atom_saas_sync.usecases.watch.writer import Writer

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import StoreUpkeep


BATCH_SECONDS = 0.002
"""How long a batch waits for more messages."""

TURN_SECONDS = 0.5
"""The writer thread yields after this time, so that the state is stored even during a flood."""

_FAIRNESS_SECONDS = 2.0
"""How often to check whether other processes get their share of the write lock."""

log = logging.getLogger(__name__)


class Applying:
    """Applies waiting messages until `finish` is called."""

    def __init__(
        self,
        backlog: Backlog,
        *,
        inbox: Inbox,
        follower: EventFollower,
        writer: Writer,
        upkeep: StoreUpkeep,
        clock: Clock,
    ) -> None:
        self.written = asyncio.Event()
        """Set after each write; the waiter clears it."""
        self._backlog = backlog
        self._inbox = inbox
        self._follower = follower
        self._writer = writer
        self._upkeep = upkeep
        self._clock = clock
        self._finishing = self._given_up = False
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Apply messages until `finish` and an empty queue. Raises DatabaseError if writing fails for too long."""
        self._task = asyncio.current_task()
        try:
            await self._apply_batches()
        except DatabaseError as error:
            if not self._finishing:
                raise
            log.error("%s", error.message)  # noqa: TRY400 - the message says it all

    async def _apply_batches(self) -> None:
        began, writing = self._clock.monotonic(), 0.0
        while self._backlog or not self._finishing:
            await self._inbox.wait_for_news()
            if not self._backlog.makes_a_batch and not self._finishing:
                await asyncio.sleep(BATCH_SECONDS)
            before = self._clock.monotonic()
            await self._writer.write_patiently(self._apply_waiting, asyncio.get_running_loop())
            self.written.set()
            now = self._clock.monotonic()
            writing += now - before
            if now - began >= _FAIRNESS_SECONDS:
                if not self._finishing:
                    await asyncio.sleep(self._upkeep.pause(writing, of=now - began))
                began, writing = self._clock.monotonic(), 0.0

    async def finish(self, seconds: float) -> None:
        """Write the remaining messages, within this many seconds."""
        self._finishing = True
        self._inbox.wake()
        if self._task is None:
            return
        _, late = await asyncio.wait({self._task}, timeout=max(0.0, seconds))
        if late:
            self._task.cancel()
            self._given_up = True
            if waiting := len(self._backlog):
                said = counted(waiting, "message")
                log.error("%s could not be written; the next start fetches what was in them", said)

    def _apply_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        """Apply batches in the writer thread until none are left or its turn ends."""
        end = self._clock.monotonic() + TURN_SECONDS
        while self._backlog:
            came: list[tuple[Parsed, int]] = []

            def read(frame: str, came: list[tuple[Parsed, int]] = came) -> Message | None:
                parsed = self._inbox.parse(frame)
                if not isinstance(parsed, Message):
                    came.append((parsed, len(frame)))
                    return None
                # Without its content, which would take memory until the event loop gets to it.
                came.append((Message(parsed.type, parsed.key), len(frame)))
                return parsed if parsed.brings_news else None

            batch = self._backlog.batch(read)
            if came:
                loop.call_soon_threadsafe(self._inbox.note_all, came)
            if batch:
                self._apply(batch, loop)
            del batch  # freed before the next one is decoded
            loop.call_soon_threadsafe(self._inbox.make_room)
            if self._given_up or self._clock.monotonic() >= end:
                return

    def _apply(self, batch: Sequence[Message], loop: asyncio.AbstractEventLoop) -> None:
        """Apply a batch; on an internal error, halve it until only the failing message is dropped."""
        began = self._clock.monotonic()
        try:
            self._follower.apply(batch, self._clock.now())
        except AtomSyncError:
            raise
        except Exception:
            if len(batch) > 1:
                middle = len(batch) // 2
                self._apply(batch[:middle], loop)
                self._apply(batch[middle:], loop)
                return
            if self._inbox.may_log_dropped():
                log.exception("dropped a message: internal error")
            loop.call_soon_threadsafe(self._inbox.note_dropped)
        self._backlog.done(batch, self._clock.monotonic() - began)
