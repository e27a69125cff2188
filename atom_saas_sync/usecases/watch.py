"""The real-time service: runs the connection, the writer, the report, polling and jobs, for months on its own.

One event loop waits for frames, the clock, signals and threads; it never waits for the disk. One thread writes:
batches of messages, and the state that others look at. Polling runs have a thread each.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Never

from msgspec import Struct
from msgspec.structs import replace

from atom_saas_sync.characters import counted
from atom_saas_sync.core.incoming.messages import PING, PONG, Malformed, Message, parse_frame
from atom_saas_sync.core.realtime import DISABLED_BY_ADMIN, Lifeline, Rules, asks_for_retry
from atom_saas_sync.errors import AtomSyncError, DatabaseBusy, DatabaseError
from atom_saas_sync.model import LinkState, LinkSwitch, RunReport, Strategy
from atom_saas_sync.usecases.background import BackgroundRuns
from atom_saas_sync.usecases.follow_events import EventFollower
from atom_saas_sync.usecases.limited_log import LimitedLog
from atom_saas_sync.usecases.link_keeper import LinkKeeper
from atom_saas_sync.usecases.link_report import LinkReport
from atom_saas_sync.usecases.periodic_jobs import Job, PeriodicJobs
from atom_saas_sync.usecases.polling import Polling
from atom_saas_sync.usecases.ports import JobStore, LogStore, StateStore
from atom_saas_sync.usecases.watch_edges import Clock, Link, Result, Supervisor

BATCH_SECONDS = 0.002
"""How long a batch waits for company."""

BATCH_MESSAGES = 1000
BATCH_BYTES = 4 * 1024 * 1024
WAITING_MESSAGES = 3000
WAITING_BYTES = 12 * 1024 * 1024
"""Backpressure limit: above it we stop reading, so TCP slows the sender down and nothing is dropped."""

_LARGE_FRAME = 1024
"""In characters. Pings, deletions and ratings are smaller: reading them costs less than handing them on."""

TURN_SECONDS = 0.5
"""After so long the thread that writes lets others have a turn: the state must be told also in a flood."""

OTHERS_SECONDS = 0.12
"""Pause after two seconds of almost continuous writing, so that other processes can take SQLite's write lock.

A waiter polls at most every 100 ms and usually gives up after 5 s. Without the pause, a flood that is faster than the
disk would never let it succeed.
"""
_OTHERS_WAIT_SECONDS = 2.0
_LITTLE_BUT_WRITING = 0.8

CHECKPOINT_SECONDS = 1.0
"""How often what was written is moved from the write-ahead log into the database file."""

STOP_SECONDS = 3.0
"""With what a last attempt to write may take, and the end of the process, less than five."""

_WRITE_RETRY_SECONDS = 1.0
_WRITE_PATIENCE_SECONDS = 60.0
_BUSY_UNTOLD_SECONDS = 10.0
_SETTLE_SECONDS = 1.0

log = logging.getLogger(__name__)


class WatchSettings(Struct, frozen=True):
    """What of the settings the service depends on."""

    rules: Rules
    shown_url: str
    strategy: Strategy
    poll_minutes: int


class Backlog:
    """What was received and waits for the disk: the event loop adds, the thread that writes reads and takes away.

    Large frames wait as they came. The thread that writes reads them: if the loop did, both would contend for the
    interpreter, and what is decoded takes far more memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Message | str] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Tell whether so much waits that no more is to be read."""
        return len(self._waiting) >= WAITING_MESSAGES or self._bytes >= WAITING_BYTES

    @property
    def makes_a_batch(self) -> bool:
        """Tell whether it is no use to wait for more."""
        return len(self._waiting) >= BATCH_MESSAGES

    def add(self, what: Message | str) -> None:
        """Put a message, or a frame that is still to be read, behind the others."""
        with self._lock:
            self._waiting.append(what)
            self._bytes += _memory(what)

    def batch(self, read: Callable[[str], Message | None]) -> list[Message]:
        """Return the first messages that make a batch, by number and by size; they stay until they are `done`.

        `read` is called once for each frame among them; one of which it makes no message is dropped.
        """
        with self._lock:
            first = self._waiting[:BATCH_MESSAGES]
        batch: list[Message] = []
        size = looked_at = 0
        for what in first:
            looked_at += 1
            message = read(what) if isinstance(what, str) else what
            if message is not None:
                batch.append(message)
                size += message.memory
            if size >= BATCH_BYTES:
                break
        with self._lock:
            self._bytes += size - sum(map(_memory, first[:looked_at]))
            self._waiting[:looked_at] = batch
        return batch

    def done(self, batch: Sequence[Message]) -> None:
        """Take the first messages away: they are in the database."""
        with self._lock:
            self._bytes -= sum(map(_memory, batch))
            del self._waiting[: len(batch)]


def _memory(what: Message | str) -> int:
    return sys.getsizeof(what) if isinstance(what, str) else what.memory


class Watch:
    """The service. `run` returns when it is told to stop, and raises DatabaseError if writing fails for too long.

    `poll` makes one polling run in the calling thread; None if it could not because it was stopped or locked out.
    `interrupt` ends runs that are at work. `token_changed` says whether there is another token than the last one used.
    """

    def __init__(
        self,
        *,
        settings: WatchSettings,
        open_link: Callable[[Callable[[], None]], Awaitable[Link]],
        follower: EventFollower,
        store: StateStore,
        log_store: LogStore,
        schedule: JobStore,
        poll: Callable[[], RunReport | None],
        interrupt: Callable[[], None],
        token_changed: Callable[[], bool],
        supervisor: Supervisor,
        clock: Clock,
        jitter: Callable[[], float],
        jobs: Sequence[Job] = (),
    ) -> None:
        self._settings = settings
        self._follower = follower
        self._store = store
        self._log_store = log_store
        self._interrupt = interrupt
        self._supervisor = supervisor
        self._clock = clock
        self._lifeline = lifeline = Lifeline(settings.rules, jitter)
        write, url = self._write, settings.shown_url
        self._report = LinkReport(
            lifeline, shown_url=url, store=store, write=write, supervisor=supervisor, clock=clock, found=self._obey
        )
        self._runs = runs = BackgroundRuns(self._report.internal_error)
        self._jobs = PeriodicJobs(jobs, schedule=schedule, write=write, runs=runs, clock=clock, jitter=jitter)
        self._polling = Polling(
            poll, interval=self._poll_interval, store=store, schedule=schedule, write=write, runs=runs, clock=clock
        )
        self._keeper = LinkKeeper(
            lifeline,
            open_link=open_link,
            take=self._take,
            catch_up=self._polling.ask,
            token_changed=token_changed,
            report=self._report,
            clock=clock,
        )
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._writing_since: float | None = None
        self._waiting = Backlog()
        self._stopping = False
        self._malformed = LimitedLog(log, logging.WARNING, "dropped %d more malformed messages within a second")
        self._dropped = LimitedLog(log, logging.ERROR, "dropped %d more messages: internal error", most=1)

    async def run(self) -> None:
        """Work until `stop` is called."""
        self._stop = asyncio.Event()
        self._news, self._room, self._written = asyncio.Event(), asyncio.Event(), asyncio.Event()
        switch = await self._write_patiently(self._store.begin, self._settings.shown_url, self._clock.now())
        self._lifeline.rules = replace(self._settings.rules, allowed=switch.enabled)
        self._poll_if_switched_off()
        applying = asyncio.create_task(self._apply_batches())
        workers = [
            asyncio.create_task(each)
            for each in (
                self._keeper.run(),
                self._settle_logs(),
                self._report.run(),
                self._polling.run(),
                self._give_signs_of_life(),
                self._checkpoint(),
                self._jobs.run(),
            )
        ]
        stopped = asyncio.create_task(self._stop.wait())
        try:
            ends: set[asyncio.Future[Any]] = {applying, stopped, *workers}
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()  # raises what went wrong
        finally:
            self._stopping = True
            self._supervisor.stopping()
            await self._shut_down(applying, [*workers, stopped])

    def stop(self) -> None:
        """End the service; nothing that was received is lost. To be called in the event loop."""
        self._stop.set()

    def reload(self, settings: WatchSettings, jobs: Sequence[Job], *, reconnect: bool) -> None:
        """Take new settings over; `reconnect` if the connection itself depends on what has changed."""
        self._settings = settings
        self._report.shown_url = settings.shown_url
        self._follower.strategy = settings.strategy
        if reconnect and self._lifeline.holds:
            self._keeper.hang_up("the configuration was read again")
        rules = replace(settings.rules, allowed=self._lifeline.rules.allowed)
        self._keeper.carry_out(self._lifeline.new_rules(self._clock.monotonic(), rules))
        self._jobs.replace(jobs)

    # Messages

    async def _take(self, frame: str | bytes) -> None:
        """Read one frame, or leave it to the thread that writes if it is large; return when there is room for more."""
        if isinstance(frame, str) and len(frame) > _LARGE_FRAME:
            self._waiting.add(frame)
            self._news.set()
        else:
            parsed = self._read(frame)
            self._note_read(parsed, len(frame))
            if isinstance(parsed, Message) and parsed.brings_news:
                self._waiting.add(parsed)
                self._news.set()
        while self._waiting.full:
            self._keeper.held_back = True
            self._room.clear()
            await self._room.wait()
            self._keeper.held_back = False
            self._keeper.note_frame()

    def _read(self, frame: str | bytes) -> Message | Malformed | None:
        """Return what a frame says; None, and the traceback in the log, for an internal error. In any thread."""
        try:
            return parse_frame(frame)
        except Exception:
            if self._dropped.admits():
                log.exception("dropped a message: internal error")
            return None

    def _note_read(self, parsed: Message | Malformed | None, size: int) -> None:
        """Note what came in a frame of that size, and answer if it asks for an answer."""
        if parsed is None:
            self._note_dropped()
            return
        if isinstance(parsed, Malformed):
            self._report.invalid()
            self._malformed.say("dropped a malformed message: %s (%d bytes)", parsed.reason, size)
            return
        self._keeper.note_message()
        self._report.message(None if parsed.brings_news else parsed.type)
        if parsed.brings_news:
            return
        if parsed.type == PING:
            self._keeper.say("pong")
        elif parsed.type != PONG:
            log.debug("ignored a message of an unknown type")

    def _note_dropped(self) -> None:
        """Count an internal error about a message, and fetch by polling what it said."""
        self._report.internal_error()
        self._polling.ask()

    async def _settle_logs(self) -> Never:
        """Tell each second of what was dropped and not told of."""
        while True:
            self._settle_log()
            await asyncio.sleep(_SETTLE_SECONDS)

    def _settle_log(self, *, at_once: bool = False) -> None:
        for each in (self._malformed, self._dropped, self._follower):
            each.settle(at_once=at_once)

    # Writing

    async def _write(self, verb: Callable[..., Result], *arguments: object) -> Result:
        """Do something with the database in the one thread that may."""
        self._writing_since = self._clock.monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._writer, partial(verb, *arguments))
        finally:
            self._writing_since = None

    async def _write_patiently(self, verb: Callable[..., Result], *arguments: object) -> Result:
        """Write, also if another program keeps the database for a while. Raises DatabaseError if it is too long."""
        began = self._clock.monotonic()
        while True:
            try:
                return await self._write(verb, *arguments)
            except DatabaseError as error:
                waited = self._clock.monotonic() - began
                if waited > _WRITE_PATIENCE_SECONDS:
                    raise
                # That another program writes for a while is nothing to tell of.
                if waited > _BUSY_UNTOLD_SECONDS or not isinstance(error, DatabaseBusy):
                    log.error("%s; trying again", error.message)  # noqa: TRY400 - the message says it all
                await asyncio.sleep(_WRITE_RETRY_SECONDS)

    async def _apply_batches(self) -> None:
        """Apply what waits, until the service stops and nothing waits any more."""
        began, busy = self._clock.monotonic(), 0.0
        while self._waiting or not self._stopping:
            if not self._waiting:
                self._news.clear()
                await self._news.wait()
            if not self._waiting.makes_a_batch and not self._stopping:
                await asyncio.sleep(BATCH_SECONDS)
            before = self._clock.monotonic()
            await self._write_patiently(self._apply_waiting, asyncio.get_running_loop())
            self._written.set()
            now = self._clock.monotonic()
            busy += now - before
            if now - began >= _OTHERS_WAIT_SECONDS:
                if busy > _LITTLE_BUT_WRITING * (now - began) and not self._stopping:
                    await asyncio.sleep(OTHERS_SECONDS)
                began, busy = self._clock.monotonic(), 0.0

    def _apply_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        """Apply one batch after the other, in the thread that writes, as long as there are any and for one turn."""
        end = self._clock.monotonic() + TURN_SECONDS
        while self._waiting:
            came: list[tuple[Message | Malformed | None, int]] = []

            def read(frame: str, came: list[tuple[Message | Malformed | None, int]] = came) -> Message | None:
                parsed = self._read(frame)
                came.append((parsed, len(frame)))
                return parsed if isinstance(parsed, Message) and parsed.brings_news else None

            batch = self._waiting.batch(read)
            if came:
                loop.call_soon_threadsafe(self._note_all_read, came)
            if batch:
                self._apply(batch, loop)
            loop.call_soon_threadsafe(self._room.set)
            if self._clock.monotonic() >= end:
                return

    def _note_all_read(self, came: Sequence[tuple[Message | Malformed | None, int]]) -> None:
        for parsed, size in came:
            self._note_read(parsed, size)

    def _apply(self, batch: Sequence[Message], loop: asyncio.AbstractEventLoop) -> None:
        """Apply a batch; if an internal error prevents it, apply its halves, down to the message that is dropped."""
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
            if self._dropped.admits():
                log.exception("dropped a message: internal error")
            loop.call_soon_threadsafe(self._note_dropped)
        self._waiting.done(batch)

    async def _checkpoint(self) -> None:
        """Move what was written into the database file now and then, beside the thread that writes.

        SQLite would do it in the middle of a commit, when the log is long, and all that comes would wait for the disk.
        """
        while True:
            await self._written.wait()
            self._written.clear()
            try:
                await asyncio.to_thread(self._log_store.checkpoint)
            except DatabaseError as error:
                log.warning("could not shorten the write-ahead log: %s", error.message)
            await asyncio.sleep(CHECKPOINT_SECONDS)

    def _obey(self, found: LinkSwitch, before: LinkState | None) -> None:
        """Do what other programs have asked for by what they wrote into the state (data-model.md, websocket_state)."""
        lifeline, now = self._lifeline, self._clock.monotonic()
        if self._stopping:
            return
        if found.enabled != lifeline.rules.allowed:
            log.warning("an administrator has switched the WebSocket %s", "on" if found.enabled else "off")
            self._keeper.carry_out(lifeline.new_rules(now, replace(lifeline.rules, allowed=found.enabled)))
            self._poll_if_switched_off()
        elif asks_for_retry(found, before) and (actions := lifeline.retry()):
            log.info("another program has reset the connection: trying it now")
            self._keeper.carry_out(actions)

    def _poll_if_switched_off(self) -> None:
        if self._lifeline.rules.polling_only == DISABLED_BY_ADMIN:
            self._polling.ask()

    def _poll_interval(self) -> timedelta | None:
        """Return how often to poll; None if a connection or a job makes that unnecessary."""
        if not self._lifeline.fallback or self._jobs.include("skills"):
            return None
        return timedelta(minutes=self._settings.poll_minutes)

    async def _give_signs_of_life(self) -> None:
        """Tell the watchdog that this loop turns, and that the thread that writes is not stuck."""
        seconds = self._supervisor.watchdog_seconds
        if seconds is None:
            await asyncio.Event().wait()
            return
        while True:
            since = self._writing_since
            if since is None or self._clock.monotonic() - since < max(seconds, _WRITE_PATIENCE_SECONDS):
                self._supervisor.alive()
            await asyncio.sleep(seconds / 2)

    # The end

    async def _shut_down(self, applying: asyncio.Task[None], workers: Sequence[asyncio.Task[object]]) -> None:
        """Take no more in, write what was received, say goodbye; within STOP_SECONDS."""
        deadline = self._clock.monotonic() + STOP_SECONDS
        self._interrupt()
        self._keeper.stop()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        self._news.set()
        await self._keeper.close("stopping")
        self._lifeline.reason = "stopped"
        _, late = await asyncio.wait({applying}, timeout=max(0.0, deadline - self._clock.monotonic()))
        for each in late:
            each.cancel()
            waiting = counted(len(self._waiting), "message")
            log.error("%s could not be written; the next start fetches what was in them", waiting)
        with suppress(TimeoutError, DatabaseError):
            async with asyncio.timeout(max(0.5, deadline - self._clock.monotonic())):
                await self._report.store()
                await self._jobs.withdraw()
                await self._write(self._store.end, "stopped", self._clock.now())
        self._settle_log(at_once=True)
        # Runs end between two transactions; one that waits for an answer is left to its own.
        while self._runs.at_work and self._clock.monotonic() < deadline:  # noqa: ASYNC110 - threads
            await asyncio.sleep(0.02)
        self._writer.shutdown(wait=False, cancel_futures=True)
