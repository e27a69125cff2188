"""Parse frames: answer pings, and queue news for the writer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from atom_saas_sync.core.incoming.messages import PING, PONG, Malformed, Message, parse_frame
from atom_saas_sync.usecases.limited_log import LimitedLog
from atom_saas_sync.usecases.watch.backlog import Backlog
from atom_saas_sync.usecases.watch.reporting import ConnectionReport

_LARGE_FRAME = 1024
"""In characters. Pings, deletions and ratings are smaller: parsing them costs less than handing them over."""

log = logging.getLogger(__name__)

Parsed = Message | Malformed | None
"""A parsed frame; None after an internal error."""


class Inbox:
    """Receives frames in the event loop. `parse` is called for large ones in the writer thread.

    `heard` is called with the type of each valid message, and `fetch` if a poll has to fetch what a message announced.
    """

    def __init__(
        self,
        backlog: Backlog,
        *,
        report: ConnectionReport,
        heard: Callable[[str], None],
        fetch: Callable[[], None],
    ) -> None:
        self.is_full = False
        """Whether `take` waits for room: then no frame can arrive, and silence is not the peer's fault."""
        self._backlog = backlog
        self._report = report
        self._heard = heard
        self._fetch = fetch
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._malformed = LimitedLog(log, logging.WARNING, "dropped %d more malformed messages within a second")
        self._dropped = LimitedLog(log, logging.ERROR, "dropped %d more messages: internal error", most=1)

    def log_suppressed(self, *, at_once: bool = False) -> None:
        """Log how many lines were suppressed, once their second is over."""
        for each in (self._malformed, self._dropped):
            each.log_suppressed(at_once=at_once)

    async def take(self, frame: str | bytes) -> None:
        """Parse one frame, or queue it for the writer thread if it is large; return when there is room for more."""
        if isinstance(frame, str) and len(frame) > _LARGE_FRAME:
            self._backlog.add(frame)
            self._news.set()
        else:
            parsed = self.parse(frame)
            self._note(parsed, len(frame))
            if isinstance(parsed, Message) and parsed.brings_news:
                self._backlog.add(parsed)
                self._news.set()
        while self._backlog.full:
            self.is_full = True
            self._room.clear()
            await self._room.wait()
            self.is_full = False

    async def wait_for_news(self) -> None:
        """Return when there is something to write, or `wake` was called."""
        if not self._backlog:
            self._news.clear()
            await self._news.wait()

    def wake(self) -> None:
        """End `wait_for_news`."""
        self._news.set()

    def make_room(self) -> None:
        """Let `take` check for room again, after a write."""
        self._room.set()

    def parse(self, frame: str | bytes) -> Parsed:
        """Parse a frame; log an internal error with its traceback. Thread-safe."""
        try:
            return parse_frame(frame)
        except Exception:
            if self.may_log_dropped():
                log.exception("dropped a message: internal error")
            return None

    def may_log_dropped(self) -> bool:
        """Tell whether one more traceback of a dropped message may be logged. Thread-safe."""
        return self._dropped.admits()

    def note_all(self, came: Sequence[tuple[Parsed, int]]) -> None:
        """Record the parsed frames of these sizes."""
        for parsed, size in came:
            self._note(parsed, size)

    def note_dropped(self) -> None:
        """Count an internal error about a message, and request a poll to fetch its change."""
        self._report.internal_error()
        self._fetch()

    def _note(self, parsed: Parsed, size: int) -> None:
        if parsed is None:
            self.note_dropped()
            return
        if isinstance(parsed, Malformed):
            self._report.invalid()
            self._malformed.say("dropped a malformed message: %s (%d bytes)", parsed.reason, size)
            return
        self._heard(parsed.type)
        self._report.message(None if parsed.brings_news else parsed.type)
        if not parsed.brings_news and parsed.type not in {PING, PONG}:
            log.debug("ignored a message of an unknown type")
