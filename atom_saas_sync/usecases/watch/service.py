"""The services of `watch`, which start together and are shut down in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from atom_saas_sync.core.connection import ConnectionRules, ConnectionState
from atom_saas_sync.errors import DatabaseBusy, DatabaseError
from atom_saas_sync.model import ConnectionSwitch, ReportedConnection, RunReport, Strategy
from atom_saas_sync.usecases.follow_events import EventFollower
from atom_saas_sync.usecases.watch.applying import Applying
from atom_saas_sync.usecases.watch.background import BackgroundRuns
from atom_saas_sync.usecases.watch.backlog import Backlog
from atom_saas_sync.usecases.watch.connection import ConnectionKeeper
from atom_saas_sync.usecases.watch.edges import Clock, Connection, Service, Supervisor
from atom_saas_sync.usecases.watch.gate import GateWatch, GateWork
from atom_saas_sync.usecases.watch.inbox import Inbox
from atom_saas_sync.usecases.watch.jobs import Job, PeriodicJobs
from atom_saas_sync.usecases.watch.polling import Polling
from atom_saas_sync.usecases.watch.reporting import ConnectionReport
from atom_saas_sync.usecases.watch.upkeep import LeftOutLines, Upkeep, Watchdog
from atom_saas_sync.usecases.watch.writer import Writer

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import JobStore, StateStore, StoreUpkeep

log = logging.getLogger(__name__)

STOP_SECONDS = 3.5
"""Together with a last attempt to write and the end of the process, less than five seconds."""

LAST_ATTEMPT_SECONDS = 1.0
"""How long an attempt to write lasts that begins just before; the store waits as long for other writers."""

STATE_SECONDS = 1.0
"""The part reserved for storing the state: a `watch` that did not record its stop counts as killed."""

_RETRY_SECONDS = 0.05


class WatchSettings(Struct, frozen=True):
    """The settings that the service depends on."""

    rules: ConnectionRules
    shown_url: str
    strategy: Strategy
    poll_minutes: int


class Watch:
    """The service. `run` returns after `stop`, and raises DatabaseError if writing fails for too long.

    `poll` makes one polling run in the calling thread; None if it could not because it was stopped or locked out.
    `interrupt` ends running polls. `token_changed` tells whether the token differs from the one used last.
    """

    def __init__(
        self,
        *,
        settings: WatchSettings,
        open_link: Callable[[Callable[[], None]], Awaitable[Connection]],
        follower: EventFollower,
        store: StateStore,
        upkeep: StoreUpkeep,
        schedule: JobStore,
        poll: Callable[[], RunReport | None],
        interrupt: Callable[[], None],
        token_changed: Callable[[], bool],
        supervisor: Supervisor,
        clock: Clock,
        jitter: Callable[[], float],
        jobs: Sequence[Job] = (),
        gate: GateWork | None = None,
    ) -> None:
        self._settings = settings
        self._follower = follower
        self._store = store
        self._interrupt = interrupt
        self._supervisor = supervisor
        self._clock = clock
        self._stop = asyncio.Event()
        self._machine = machine = ConnectionState(settings.rules, jitter)
        self._writer = writer = Writer(clock)
        write = writer.write
        self._report = report = ConnectionReport(
            machine,
            shown_url=settings.shown_url,
            store=store,
            write=write,
            supervisor=supervisor,
            clock=clock,
            found=self._obey,
        )
        self._runs = runs = BackgroundRuns(report.internal_error)
        ask = writer.write_patiently
        self._jobs = PeriodicJobs(jobs, schedule=schedule, write=write, ask=ask, runs=runs, clock=clock, jitter=jitter)
        self._polling = Polling(
            poll, interval=self._poll_interval, store=store, schedule=schedule, ask=ask, runs=runs, clock=clock
        )
        backlog = Backlog()
        inbox = Inbox(backlog, report=report, heard=self._heard, fetch=self._polling.ask)
        self._connection = ConnectionKeeper(
            machine,
            open_link=open_link,
            inbox=inbox,
            catch_up=self._polling.ask,
            token_changed=token_changed,
            report=report,
            clock=clock,
        )
        self._applying = Applying(backlog, inbox=inbox, follower=follower, writer=writer, upkeep=upkeep, clock=clock)
        self._upkeep = Upkeep(upkeep, self._applying.written)
        self._watchdog = Watchdog(supervisor, writer)
        self._left_out = LeftOutLines(inbox, follower)
        self._gate = () if gate is None else (GateWatch(gate, runs, follower.take_unconfirmed, clock),)

    async def run(self) -> None:
        """Run until `stop` is called."""
        begin = self._store.begin, self._settings.shown_url, self._clock.now()
        self._connection.begin(self._settings.rules, await self._writer.write_patiently(*begin))
        failure = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._applying.run())
                group.create_task(self._serve())
        except BaseExceptionGroup as failures:
            failure = _first(failures)
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """End the service; no received message is lost. Call it in the event loop."""
        self._stop.set()

    def reload(self, settings: WatchSettings, jobs: Sequence[Job], *, reconnect: bool) -> None:
        """Apply new settings; `reconnect` if the connection depends on what has changed."""
        self._settings = settings
        self._report.shown_url = settings.shown_url
        self._follower.strategy = settings.strategy
        self._connection.new_rules(settings.rules, reconnect=reconnect)
        self._jobs.replace(jobs)

    async def _serve(self) -> None:
        """Run every service except the one that applies messages, until `stop` or an error; then end all of them."""
        services: tuple[Service, ...] = (
            self._connection,
            self._report,
            self._polling,
            self._jobs,
            self._upkeep,
            self._watchdog,
            self._left_out,
            *self._gate,
        )
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(service.run()) for service in services]
                await self._stop.wait()
                # First of all: until the services have ended, a flood would fill the queue that is to be written.
                self._connection.stop()
                for task in tasks:
                    task.cancel()
        finally:
            await self._shut_down()

    async def _shut_down(self) -> None:
        """Stop receiving, write what was received, and close the connection, within STOP_SECONDS."""
        deadline = self._clock.monotonic() + STOP_SECONDS
        self._supervisor.stopping()
        self._interrupt()
        self._connection.stop()
        await self._connection.close()
        await self._applying.finish(deadline - STATE_SECONDS - self._clock.monotonic())
        try:
            async with asyncio.timeout(max(STATE_SECONDS, deadline + LAST_ATTEMPT_SECONDS - self._clock.monotonic())):
                await self._report.store()
                await self._store_end(deadline)
        except (TimeoutError, DatabaseError) as error:
            reason = error.message if isinstance(error, DatabaseError) else "the database did not answer in time"
            log.error("could not store that `watch` was stopped, so it will seem killed: %s", reason)  # noqa: TRY400 - the message says it all
        self._left_out.log_suppressed(at_once=True)
        # Runs end between two transactions; one that waits for a response is abandoned.
        while self._runs.at_work and self._clock.monotonic() < deadline:  # noqa: ASYNC110 - threads
            await asyncio.sleep(0.02)
        self._writer.close()

    async def _store_end(self, deadline: float) -> None:
        """Store that it was stopped; while another program has the database locked, try again until `deadline`."""
        while True:
            try:
                await self._jobs.withdraw()
                return await self._writer.write(self._store.end, "stopped", self._clock.now())
            except DatabaseBusy:
                if self._clock.monotonic() >= deadline:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)

    # Set here, because the inbox and the report are created before the connection.

    def _heard(self, kind: str) -> None:
        self._connection.heard(kind)

    def _obey(self, found: ConnectionSwitch, before: ReportedConnection | None) -> None:
        self._connection.obey(found, before)

    def _poll_interval(self) -> timedelta | None:
        """Return the polling interval; None if a connection or a job makes polling unnecessary."""
        if not self._machine.fallback or self._jobs.include("skills"):
            return None
        return timedelta(minutes=self._settings.poll_minutes)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error, which ended the other services."""
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
