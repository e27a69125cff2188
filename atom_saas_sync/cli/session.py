"""Compose the adapters of one run, for commands and for the threads of `watch`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from atom_saas_sync.cli.runtime import RunClock
    from atom_saas_sync.config import Settings
    from atom_saas_sync.core.location import Location
    from atom_saas_sync.marketplace.client import MarketplaceClient
    from atom_saas_sync.usecases.gate.run import RunGate
    from atom_saas_sync.usecases.ports import Lockable, Progress, Store, StoredBudget, StoredRuns
    from atom_saas_sync.usecases.pull_catalogue import CataloguePull, PullOptions
    from atom_saas_sync.usecases.sync_ratings import RatingOptions, RatingSync

SCHEDULER_OFF = "started by a timer, but ENABLE_SCHEDULER is not true: nothing done"
AUTO_SYNC_OFF = "started by a timer, but the Atom backend has switched scheduled syncs off: nothing done"
STOPPED = "the emergency stop is on (`atom-sync jobs start` ends it): nothing done"


class Session(NamedTuple):
    """The adapters that a run needs; the lock of its kind is held."""

    settings: Settings
    store: Store
    runs: StoredRuns
    budget: StoredBudget
    client: MarketplaceClient
    started_by: str


@contextmanager
def budget_of(settings: Settings) -> Iterator[StoredBudget]:
    """Open the request budget that all processes share."""
    from atom_saas_sync.core.marketplace import marketplace_of
    from atom_saas_sync.store import engine_at

    budget = engine_at(settings.database).request_budget(
        per_minute=settings.rate_limit_per_minute,
        per_hour=settings.rate_limit_per_hour,
        marketplace=marketplace_of(settings.api_url),
    )
    try:
        yield budget
    finally:
        budget.close()


@contextmanager
def open_session(
    settings: Settings,
    store: Store,
    kind: str,
    *,
    lock: str,
    clock: RunClock,
    wait: float,
    command: str,
    started_by: str,
) -> Iterator[Session]:
    """Take the lock, waiting up to `wait` seconds, and open the adapters.

    Raises WrongMarketplace, and Locked, which is counted.
    """
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.errors import Locked
    from atom_saas_sync.model import TIMER
    from atom_saas_sync.times import format_time
    from atom_saas_sync.usecases.binding import runs_for

    runs = runs_for(settings.api_url, store)
    with ExitStack() as stack:
        try:
            stack.enter_context(
                store.exclusive(
                    lock,
                    wait_seconds=wait,
                    may_wait=command.startswith("sync"),
                    command=command,
                    now=lambda: format_time(clock.now()),
                    sleep=clock.sleep,
                )
            )
        except Locked:
            # When several hosts share a database, all timers but one find the lock taken. That is not an error.
            if started_by != TIMER or isinstance(store.location, Path):
                runs.count_locked_out(kind)
            raise
        budget = stack.enter_context(budget_of(settings))
        client = stack.enter_context(runtime.marketplace_client(settings, budget, clock))
        yield Session(settings, store, runs, budget, client, started_by)


@contextmanager
def all_runs_locked(database: Lockable, *, command: str, clock: RunClock) -> Iterator[None]:
    """Keep every other run, and `watch`, off the database during the block. Raises Locked."""
    from atom_saas_sync.model import LOCKED_KINDS, WATCH_LOCK
    from atom_saas_sync.times import format_time

    with ExitStack() as stack:
        for kind in (WATCH_LOCK, *LOCKED_KINDS):
            lock = database.exclusive(kind, command=command, now=lambda: format_time(clock.now()), sleep=clock.sleep)
            stack.enter_context(lock)
        yield


@contextmanager
def daily_run(
    database: Location, lockable: Lockable, kind: str, *, timer: str | None, by: str
) -> Iterator[dict[str, int] | None]:
    """Record the block as a run, as `noted_run` does; None if another host does the same or has done it recently.

    Both matter only if a `timer`, by its name, has started it. A file belongs to one host.
    """
    with ExitStack() as stack:
        if timer and not isinstance(database, Path) and not stack.enter_context(_turn(database, lockable, kind)):
            yield None
            return
        yield stack.enter_context(noted_run(database, kind, started_by=timer or by))


@contextmanager
def _turn(database: Location, lockable: Lockable, kind: str) -> Iterator[bool]:
    """Keep other hosts' timers off during the block; yield whether none of them has done this within half a day."""
    from datetime import UTC, datetime, timedelta
    from time import sleep

    from atom_saas_sync.errors import Locked
    from atom_saas_sync.store import open_store
    from atom_saas_sync.times import format_time
    from atom_saas_sync.usecases.schedule import is_fresh

    with ExitStack() as stack:
        try:
            stack.enter_context(
                lockable.exclusive(kind, command=kind, now=lambda: format_time(datetime.now(UTC)), sleep=sleep)
            )
        except Locked:
            yield False
            return
        with open_store(database, create=False) as store:
            last = store.runs().last_success_of_fleet(kind)
        yield not is_fresh(last, timedelta(days=1), datetime.now(UTC))


@contextmanager
def noted_run(database: Location, kind: str, *, started_by: str) -> Iterator[dict[str, int]]:
    """Record the block as a run of that kind, with the counts that it puts into the dictionary.

    If that fails, only a warning is printed: the work itself is done.
    """
    from datetime import UTC, datetime

    from atom_saas_sync.cli.output import note
    from atom_saas_sync.errors import AtomSyncError, DatabaseError
    from atom_saas_sync.store import open_store

    began, counts = datetime.now(UTC), dict[str, int]()

    def write(error: AtomSyncError | None) -> None:
        try:
            with open_store(database, create=False) as store:
                store.runs().note(
                    kind, started_by=started_by, began=began, now=datetime.now(UTC), counts=counts, error=error
                )
        except DatabaseError as failure:
            note(f"warning: this {kind} was not recorded as a run: {failure.message}")

    try:
        yield counts
    except AtomSyncError as error:
        write(error)
        raise
    write(None)


def catalogue_pull(
    session: Session, options: PullOptions, clock: RunClock, *, progress: Progress | None = None
) -> CataloguePull:
    """Compose one polling sync."""
    from atom_saas_sync.cli.runtime import signer_of
    from atom_saas_sync.logs import set_run_id
    from atom_saas_sync.usecases.pull_catalogue import CataloguePull

    settings = session.settings
    return CataloguePull(
        gate=_run_gate(session, options, clock) if options.skills else None,
        marketplace=session.client,
        catalogue=session.store.catalogue(history_versions=settings.history_versions, signer=signer_of(settings)),
        runs=session.runs,
        clock=clock,
        options=options,
        check=clock.check,
        connections=settings.connections,
        progress=progress,
        on_start=set_run_id,
    )


def _run_gate(session: Session, options: PullOptions, clock: RunClock) -> RunGate:
    """Load the gate of one run. Raises ConfigError before anything is written, and UsageError."""
    from atom_saas_sync.cli.gate_session import gate_desk
    from atom_saas_sync.usecases.gate.run import RunGate

    desk = gate_desk(session.settings, session.store, for_user=False, check=clock.check)
    return RunGate(desk, clock.now(), dry_run=options.dry_run, adopting=options.adopting)


def rating_sync(
    session: Session, options: RatingOptions, clock: RunClock, *, progress: Progress | None = None
) -> RatingSync:
    """Compose one sync of ratings."""
    from atom_saas_sync.config import require_token
    from atom_saas_sync.core.outgoing import user_hasher
    from atom_saas_sync.logs import set_run_id
    from atom_saas_sync.usecases.sync_ratings import RatingSync

    settings = session.settings
    return RatingSync(
        marketplace=session.client,
        ratings=session.store.ratings(),
        runs=session.runs,
        budget=session.budget,
        clock=clock,
        options=options,
        check=clock.check,
        sent_user=user_hasher(require_token(settings).reveal()) if settings.hash_user_ids else str,
        workers=settings.connections,
        progress=progress,
        on_start=set_run_id,
    )
