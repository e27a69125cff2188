"""`watch`: composes the real-time service of usecases/watch/."""

from __future__ import annotations

import gc
import signal
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from atom_saas_sync.cli.output import note
from atom_saas_sync.cli.timely_end import TimelyEnd
from atom_saas_sync.cli.watch_gate import GateWork
from atom_saas_sync.errors import AtomSyncError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from atom_saas_sync.cli.notify import Notifier
    from atom_saas_sync.cli.output import GlobalOptions
    from atom_saas_sync.cli.runtime import RunClock
    from atom_saas_sync.cli.session import Session
    from atom_saas_sync.config import Settings
    from atom_saas_sync.marketplace.websocket import WebSocketConnection
    from atom_saas_sync.model import RunReport
    from atom_saas_sync.usecases.ports import Lockable, Store, StoreUpkeep
    from atom_saas_sync.usecases.watch.jobs import Job
    from atom_saas_sync.usecases.watch.service import Watch, WatchSettings

_LOCK_WAIT_SECONDS = 900.0
_BUSY_SECONDS = 1.0  # shorter than elsewhere: the service retries on its own, and must be able to stop in the meantime
_HUNG_SECONDS = 8.0
_MINUTES_OF_A_DAY = 1440
# Decoded batches contain no cyclic garbage, and collecting every 700 objects took a tenth of the time. Instead, garbage
# is collected after each connection and run: these leave few cyclic objects, but with megabytes in buffers, and it
# would take days until 50,000 more objects trigger a collection.
_OBJECTS_BEFORE_COLLECTION = 50_000
_M_ARENA_MAX = -8  # malloc.h
_SCHEDULE = "schedule"
"""The name in the audit trail for who started the periodic jobs."""


def watch(
    ctx: typer.Context,
    jobs: Annotated[
        bool,
        typer.Option(
            "--jobs", help="Also run the periodic jobs, if ENABLE_SCHEDULER is true; for containers without timers."
        ),
    ] = False,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Stand by while another `watch` uses the database; take over when it ends."),
    ] = False,
) -> None:
    """Follow the marketplace in real time until stopped."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.config import require_token

    options = replace(ctx.obj, usual_level="info")  # a service has no other output than its log
    settings = runtime.load(options)
    supervisor = runtime.supervisor()
    if not settings.enabled:
        supervisor.ready()
        note("ATOM_SAAS_ENABLED is false: local only, nothing to follow")
        return
    require_token(settings)
    settings = _beside_the_link(settings)
    runtime.check_network(settings)
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION, 20, 20)
    _share_one_heap()
    clock = runtime.RunClock()
    with ExitStack() as stack:
        _Service(options, settings, clock, supervisor, jobs=jobs, waits=wait).run(stack)


def _beside_the_link(settings: Settings) -> Settings:
    """Return the settings with one connection less, for the WebSocket."""
    return settings.but(connections=max(1, settings.connections - settings.ws_enabled))


def _share_one_heap() -> None:
    """Make all threads allocate from one heap.

    By default glibc gives each thread its own, and none reuses what another has freed: up to 60 MiB in a flood.
    """
    import ctypes

    with suppress(AttributeError):  # other C libraries have no mallopt
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


class _Service:
    """The adapters of the service, and the settings, which may change while it runs."""

    def __init__(
        self,
        options: GlobalOptions,
        settings: Settings,
        clock: RunClock,
        supervisor: Notifier,
        *,
        jobs: bool,
        waits: bool = False,
    ) -> None:
        self._options = options
        self._settings = settings
        self._clock = clock
        self._supervisor = supervisor
        self._jobs = jobs
        self._waits = waits
        self._gate = GateWork(settings, clock)

    def run(self, stack: ExitStack) -> None:
        import asyncio

        from atom_saas_sync.model import WATCH_LOCK
        from atom_saas_sync.store import engine_at
        from atom_saas_sync.times import format_time
        from atom_saas_sync.usecases.binding import runs_for

        engine, clock = engine_at(self._settings.database), self._clock
        # One connection for the writer thread; the event loop ensures that nothing else uses it.
        store = stack.enter_context(engine.open(any_thread=True, busy_timeout_seconds=_BUSY_SECONDS))
        stack.enter_context(
            store.exclusive(
                WATCH_LOCK,
                command="watch",
                now=lambda: format_time(clock.now()),
                sleep=self._stand_by,
                wait_seconds=float("inf") if self._waits else 0,
            )
        )
        runs_for(self._settings.api_url, store)
        upkeep = stack.enter_context(engine.upkeep())
        self._gate.require_policy(store)
        stack.callback(self._gate.close)
        asyncio.run(self._run(store, upkeep))

    def _stand_by(self, seconds: float) -> None:
        """Pause while another `watch` works; for systemd this one is up, too."""
        self._supervisor.ready()
        self._supervisor.status("standing by: another watch works on the database")
        self._supervisor.alive()
        self._clock.sleep(seconds)

    async def _run(self, store: Store, upkeep: StoreUpkeep) -> None:
        import asyncio
        import random

        from atom_saas_sync.cli.runtime import signer_of
        from atom_saas_sync.usecases.follow_events import EventFollower
        from atom_saas_sync.usecases.watch.service import Watch

        settings = self._settings
        events = store.events(history_versions=settings.history_versions, signer=signer_of(settings))
        service = Watch(
            settings=_watch_settings(self._settings),
            open_link=self._open_link,
            follower=EventFollower(
                events, strategy=self._settings.conflict_strategy, gate=partial(self._gate.for_messages, store)
            ),
            store=store.watch_state(),
            upkeep=upkeep,
            schedule=store.schedule(),
            poll=self._poll,
            interrupt=self._clock.stop,
            token_changed=self._take_new_token,
            supervisor=self._supervisor,
            clock=self._clock,
            jitter=random.random,
            jobs=self._periodic_jobs(),
            gate=self._gate,
        )
        loop, end = asyncio.get_running_loop(), TimelyEnd(_HUNG_SECONDS)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, service.stop)
            # Python calls this handler even while the event loop is blocked. The loop still gets the signal.
            signal.signal(number, end.begin)
        reading = asyncio.Lock()  # one after the other, so that the last request wins
        tasks: set[asyncio.Task[None]] = set()

        async def reload() -> None:
            async with reading:
                await self._reload(service)

        def told_to_reload() -> None:
            tasks.add(task := asyncio.create_task(reload()))
            task.add_done_callback(tasks.discard)

        loop.add_signal_handler(signal.SIGHUP, told_to_reload)
        await service.run()
        end.done()

    async def _open_link(self, on_frame: Callable[[], None]) -> WebSocketConnection:
        import asyncio

        from atom_saas_sync.config import require_token
        from atom_saas_sync.marketplace.websocket import open_link

        gc.collect()
        await asyncio.to_thread(self._take_new_token)
        settings = self._settings
        return await open_link(
            settings.ws_url, require_token(settings).reveal(), on_frame=on_frame, ca_file=settings.ca_file
        )

    def _take_new_token(self) -> bool:
        """Read the token file again, if the token comes from a file; tell whether the token has changed."""
        import logging

        from atom_saas_sync.config import read_token_file

        settings = self._settings
        origins = {shown.name: shown.origin for shown in settings.shown}
        if settings.token_file is None or origins["ATOM_SAAS_API_TOKEN"] != str(settings.token_file):
            return False
        try:
            token = read_token_file(settings.token_file)
        except ConfigError as error:
            # It may be in the middle of a replacement; keep the old one until there is a new one.
            logging.getLogger(__name__).warning("%s", error.message)
            return False
        if token == settings.api_token:
            return False
        self._use(settings.but(api_token=token))
        return True

    def _use(self, settings: Settings) -> None:
        from atom_saas_sync.cli import runtime

        self._settings = self._gate.settings = settings
        runtime.set_up_logging_for(settings, self._options)

    async def _reload(self, service: Watch) -> None:
        """Reload the configuration (SIGHUP). An invalid one changes nothing."""
        import asyncio
        import logging

        from atom_saas_sync.cli import runtime
        from atom_saas_sync.config import require_token

        log = logging.getLogger(__name__)
        self._supervisor.reloading()
        old = self._settings
        try:
            settings = _beside_the_link(await asyncio.to_thread(runtime.settings_of, self._options))
            require_token(settings)
            await asyncio.to_thread(self._refuse_other_marketplace, settings)
        except AtomSyncError as error:
            log.error("the configuration was not reloaded: %s", error.message.replace("\n", "; "))  # noqa: TRY400 - the message says it all
        else:
            if settings.database != old.database:
                log.warning("the database stays %s until `watch` is restarted", old.database)
            self._use(settings.but(database=old.database))
            link = [(each.ws_url, each.api_token, each.ca_file) for each in (old, settings)]
            service.reload(_watch_settings(settings), self._periodic_jobs(), reconnect=link[0] != link[1])
            log.info("reloaded the configuration")
        self._supervisor.ready()

    def _refuse_other_marketplace(self, settings: Settings) -> None:
        from atom_saas_sync.store import open_store
        from atom_saas_sync.usecases.binding import runs_for

        with open_store(self._settings.database, read_only=True) as store:
            runs_for(settings.api_url, store)

    # Runs, each in its own thread with its own database connections

    def _poll(self) -> RunReport | None:
        return self._pull("watch")

    def _pull(self, started_by: str) -> RunReport | None:
        import logging

        from atom_saas_sync.cli.session import catalogue_pull
        from atom_saas_sync.usecases.pull_catalogue import PullOptions

        log = logging.getLogger(__name__)
        with self._session("skills", started_by) as (session, clock):
            settings = session.settings
            options = PullOptions(
                strategy=settings.conflict_strategy,
                page_size=settings.batch_size,
                min_free_disk_gb=settings.min_free_disk_gb,
            )
            report = catalogue_pull(session, options, clock).run(started_by=started_by)
        counts = report.counts
        if report.status == "success":
            log.info("Sync completed: %d skills, %d categories", counts.skills_synced, counts.categories_synced)
        elif report.error is not None:
            log.error("Sync %s: %s", report.status, report.error.message, extra={"hint": report.error.hint})
        else:
            log.warning("Sync %s: %s", report.status, ", ".join(report.reasons))
        return report

    def _rate(self) -> None:
        import logging

        from atom_saas_sync.cli.session import rating_sync
        from atom_saas_sync.usecases.sync_ratings import RatingOptions

        with self._session("ratings", _SCHEDULE) as (session, clock):
            report = rating_sync(session, RatingOptions(), clock).run(started_by=_SCHEDULE)
        log = logging.getLogger(__name__)
        log.info("Rating sync %s: %d uploaded, %d failed", report.status, report.counts.uploaded, report.counts.failed)
        if report.error is not None:
            log.error("%s", report.error.message, extra={"hint": report.error.hint})

    @contextmanager
    def _session(self, kind: str, started_by: str) -> Iterator[tuple[Session, RunClock]]:
        """Open what a run needs, and its clock: its deadline is the interval, so that no run holds the lock forever.

        Raises RunSkipped if a periodic job has nothing to do, because another host has done it.
        """
        from atom_saas_sync.cli.run_context import skip_if_fresh
        from atom_saas_sync.cli.runtime import RunClock
        from atom_saas_sync.cli.session import open_session
        from atom_saas_sync.store import open_store

        settings = self._settings
        minutes = settings.sync_interval_minutes if kind == "skills" else settings.rating_sync_interval_minutes
        clock, is_job = RunClock(minutes * 60.0), started_by == _SCHEDULE
        try:
            with self._clock.cutting(clock.stop), open_store(settings.database) as store:
                if is_job:
                    skip_if_fresh(store.runs(), settings, kind, clock.now())
                with open_session(
                    settings,
                    store,
                    kind,
                    lock=kind,
                    clock=clock,
                    wait=_LOCK_WAIT_SECONDS,
                    command="watch",
                    started_by=started_by,
                ) as session:
                    if is_job:  # it may have waited for the very host that did it
                        skip_if_fresh(session.runs, settings, kind, clock.now())
                    yield session, clock
        finally:
            gc.collect()

    def _periodic_jobs(self) -> tuple[Job, ...]:
        """Return the jobs to run, with the guide's names and log lines."""
        import logging

        from atom_saas_sync.usecases.watch.jobs import Job

        log = logging.getLogger(__name__)
        if not self._jobs:
            return ()
        settings = self._settings
        if not settings.scheduler_enabled:
            log.warning("--jobs was given, but ENABLE_SCHEDULER is not true: no periodic job will run")
            return ()
        skills, ratings = settings.sync_interval_minutes, settings.rating_sync_interval_minutes
        jobs = (
            Job("skill-sync-atom-saas", "Skill Sync with Atom SaaS", "skills", skills, lambda: self._pull(_SCHEDULE)),
            Job("rating-sync-atom-saas", "Rating Sync with Atom SaaS", "ratings", ratings, self._rate),
            Job(
                "cache-purge-atom-saas",
                "Purge of Expired Entries",
                "purge",
                _MINUTES_OF_A_DAY,
                lambda: _purge(self._settings),
            ),
            Job(
                "database-backup-atom-saas",
                "Backup of the Database",
                "backup",
                _MINUTES_OF_A_DAY,
                lambda: _back_up(self._settings),
            ),
        )
        log.info("Initialized skill sync with %d minute interval", skills)
        log.info("Initialized rating sync with %d minute interval", ratings)
        for job in jobs:
            log.info("Scheduled job %s every %d minutes", job.id, job.minutes)
        return tuple(Job(job.id, job.name, job.kind, job.minutes, partial(_unless_done, job)) for job in jobs)


def _unless_done(job: Job) -> None:
    """Do a periodic job unless another host has done it recently."""
    import logging

    from atom_saas_sync.cli.run_context import RunSkipped

    try:
        job.run()
    except RunSkipped:
        logging.getLogger(__name__).info("%s: another host has done it recently: nothing done", job.name)


@contextmanager
def _daily(settings: Settings, lockable: Lockable, kind: str) -> Iterator[dict[str, int]]:
    """Record the block as a run. Raises RunSkipped if another host does the same or has done it recently."""
    from atom_saas_sync.cli.run_context import RunSkipped
    from atom_saas_sync.cli.session import daily_run

    with daily_run(settings.database, lockable, kind, timer=_SCHEDULE, by=_SCHEDULE) as counts:
        if counts is None:
            raise RunSkipped("skipped", "fresh")
        yield counts


def _purge(settings: Settings) -> None:
    import logging
    from datetime import UTC, datetime

    from atom_saas_sync.store import open_store
    from atom_saas_sync.usecases.purge_cache import PurgeOptions, purge_cache

    options = PurgeOptions(strict=settings.cache_strict_ttl)
    with open_store(settings.database) as store, _daily(settings, store, "purge") as counts:
        purged = purge_cache(store.lifetime(), options, actor=_SCHEDULE, now=datetime.now(UTC))
        counts.update(purged.counts)
    logging.getLogger(__name__).info(
        "Purge completed: %d skills, %d categories removed",
        len(purged.removed.skills),
        len(purged.removed.categories),
    )


def _back_up(settings: Settings) -> None:
    import logging
    from datetime import UTC, datetime

    from atom_saas_sync.core.backups import BACKUPS_KEPT
    from atom_saas_sync.store import engine_at

    copies = engine_at(settings.database).copies()
    with _daily(settings, copies, "backup") as counts:
        written, removed = copies.back_up_and_tidy(keep=BACKUPS_KEPT, now=datetime.now(UTC))
        counts.update(size_bytes=written.stat().st_size, removed=len(removed))
    logging.getLogger(__name__).info("Backup completed: %s, %d older ones removed", written, len(removed))


def _watch_settings(settings: Settings) -> WatchSettings:
    from atom_saas_sync.config import without_query
    from atom_saas_sync.core.connection import ConnectionRules
    from atom_saas_sync.usecases.watch.service import WatchSettings

    return WatchSettings(
        rules=ConnectionRules(
            enabled=settings.ws_enabled,
            heartbeat_seconds=settings.ws_heartbeat_seconds,
            attempts=settings.ws_reconnect_attempts,
        ),
        shown_url=without_query(settings.ws_url),
        strategy=settings.conflict_strategy,
        poll_minutes=settings.sync_interval_minutes,
    )
