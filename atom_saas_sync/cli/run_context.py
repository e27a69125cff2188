"""Whether a sync may run now, and its context: who started it, its deadline, its lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from atom_saas_sync.cli.output import GlobalOptions, note
from atom_saas_sync.errors import AtomSyncError, Locked
from atom_saas_sync.model import ErrorInfo, RunStatus

if TYPE_CHECKING:
    from datetime import datetime

    from atom_saas_sync.cli.runtime import RunClock
    from atom_saas_sync.cli.session import Session
    from atom_saas_sync.config import Settings
    from atom_saas_sync.core.location import Location
    from atom_saas_sync.usecases.ports import StoredRuns


class RunContext(NamedTuple):
    """Who started the run, how long it waits for the lock, and the clock with its signals and deadline."""

    scheduled: bool
    started_by: str | None
    wait: float
    clock: RunClock
    names_host: bool = True


def run_context(deadline: float | None, *, scheduled: bool, started_by: str | None, wait: float) -> RunContext:
    """Return the context that these options describe."""
    from atom_saas_sync.cli import runtime

    return RunContext(scheduled, started_by, wait, runtime.RunClock(deadline))


class RunSkipped(Exception):
    """The run is skipped: the reason as a stable word, and the error, if any."""

    def __init__(self, status: RunStatus, reason: str, error: AtomSyncError | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.exit_code = error.exit_code if error else 0
        self.error = ErrorInfo(error.kind, error.message, error.hint) if error else None


@contextmanager
def session_for(options: GlobalOptions, when: RunContext, kind: str, *, lock: str, dry_run: bool) -> Iterator[Session]:
    """Compose the adapters and take the lock. Raises RunSkipped if nothing is to be run."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.cli.session import SCHEDULER_OFF, open_session
    from atom_saas_sync.config import require_token
    from atom_saas_sync.model import TIMER
    from atom_saas_sync.store import open_store

    # Nobody reads a timer's output, and cron would mail it each time.
    settings = runtime.load(options, names_host=when.names_host and not when.scheduled and not when.started_by)
    if not settings.enabled:
        raise _skip("disabled", "ATOM_SAAS_ENABLED is false: local only, nothing to do")
    require_token(settings)
    if when.scheduled and not settings.scheduler_enabled:
        raise _skip("scheduler_off", SCHEDULER_OFF)
    with ExitStack() as stack:
        if dry_run:
            settings = settings.but(database=stack.enter_context(_for_a_dry_run(settings.database)))
        store = stack.enter_context(open_store(settings.database, adopt=not when.scheduled))
        runs = store.runs()
        if when.scheduled:
            _skip_unless_due(runs, settings, kind, when.clock.now())
        stack.enter_context(when.clock.caught())
        try:
            session = stack.enter_context(
                open_session(
                    settings,
                    store,
                    kind,
                    lock=lock,
                    clock=when.clock,
                    wait=when.wait,
                    command=f"sync {kind}",
                    started_by=when.started_by or (TIMER if when.scheduled else runtime.current_user()),
                )
            )
        except Locked as error:
            if when.scheduled and not isinstance(settings.database, Path):  # another host does the work
                raise RunSkipped("skipped", "fresh") from error
            raise RunSkipped("locked", "locked", error) from error
        if when.scheduled:
            skip_if_fresh(runs, settings, kind, when.clock.now())  # it may have waited for the very host that did it
        yield session


@contextmanager
def _for_a_dry_run(location: Location) -> Iterator[Location]:
    """Return the database of a dry run, which is never created or upgraded: a temporary one if necessary."""
    from atom_saas_sync.cli.runtime import temporary_directory
    from atom_saas_sync.store import engine_at

    engine = engine_at(location)
    if engine.is_current():
        yield location
        return
    with temporary_directory() as directory:
        yield engine.scratch_copy(directory)


def _skip_unless_due(runs: StoredRuns, settings: Settings, kind: str, now: datetime) -> None:
    from atom_saas_sync.cli.session import AUTO_SYNC_OFF, STOPPED

    if runs.scheduling_stopped():
        raise _skip("stopped", STOPPED)
    if runs.auto_sync_is_off():
        raise _skip("scheduler_off", AUTO_SYNC_OFF)
    if not _is_due(runs, settings, kind, now):
        raise RunSkipped("skipped", "not_due")
    skip_if_fresh(runs, settings, kind, now)


def _is_due(runs: StoredRuns, settings: Settings, kind: str, now: datetime) -> bool:
    import logging
    from datetime import timedelta

    from atom_saas_sync.times import format_time
    from atom_saas_sync.usecases.schedule import scheduled_run_is_due

    minutes = _minutes(settings, kind)
    last = runs.last_scheduled_success(kind)
    due = scheduled_run_is_due(last, timedelta(minutes=minutes), now)
    if not due and last is not None:
        # Logged, not printed: cron would mail it each time.
        logging.getLogger(__name__).info(
            "not due: the last scheduled %s sync began at %s, and one is due every %d minutes",
            kind,
            format_time(last),
            minutes,
        )
    return due


def skip_if_fresh(runs: StoredRuns, settings: Settings, kind: str, now: datetime) -> None:
    """Skip what some host has done so recently that the fleet does not need it again."""
    from datetime import timedelta

    from atom_saas_sync.usecases.schedule import is_fresh

    if is_fresh(runs.last_success_of_fleet(kind), timedelta(minutes=_minutes(settings, kind)), now):
        raise RunSkipped("skipped", "fresh")


def _minutes(settings: Settings, kind: str) -> int:
    return settings.rating_sync_interval_minutes if kind == "ratings" else settings.sync_interval_minutes


def _skip(reason: str, why: str) -> RunSkipped:
    note(why)
    return RunSkipped("skipped", reason)
