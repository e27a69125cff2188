"""The audit trail of runs, and the emergency stop."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from atom_saas_sync.core.run_log import LoggedRun
from atom_saas_sync.errors import AtomSyncError
from atom_saas_sync.model import Counts, Report


class Progress(Protocol):
    """Receives the progress of the run."""

    def advance(self, done: int, total: int | None) -> None:
        """`done` of `total` skills were processed."""


class RunLog(Protocol):
    """The audit trail, as written by a run. The caller holds the lock of the run's kind."""

    def begin(self, kind: str, *, started_by: str, now: datetime) -> int:
        """Record the start of a run of this process; return its id.

        An earlier run of this kind that never ended was killed; it is marked as failed. Runs older than 90 days are
        deleted.
        """

    def finish(self, report: Report[Counts], *, now: datetime, requests: dict[tuple[str, str], int]) -> None:
        """Record the end of a run, with its counts and error, and add to the counters.

        Only runs of the skills update the state that the Atom backend reads. A successful one ends the approval of
        deletions.
        """

    def bind(self, now: datetime) -> None:
        """Store which marketplace the database belongs to, unless one is already stored."""

    def reached_marketplace(self, now: datetime, skew_seconds: float | None) -> None:
        """Record that the marketplace responded and, if known, how far its clock is ahead of ours."""


class StoredRuns(RunLog, Protocol):
    """The audit trail as commands see it, and the emergency stop."""

    def note(
        self,
        kind: str,
        *,
        started_by: str,
        began: datetime,
        now: datetime,
        counts: dict[str, int],
        error: AtomSyncError | None,
    ) -> None:
        """Store a finished run that is no sync, such as a backup: it affects no counter and no state."""

    def count_locked_out(self, kind: str) -> None:
        """Count a run that did not start because another one of its kind was running."""

    def marketplace(self) -> str | None:
        """Return which marketplace the database belongs to; None until its first response."""

    def scheduling_stopped(self) -> bool:
        """Tell whether the emergency stop is on."""

    def auto_sync_is_off(self) -> bool:
        """Tell whether the Atom backend has switched scheduled syncs off in the database."""

    def stop_scheduling(self, *, actor: str, now: datetime) -> None:
        """Turn the emergency stop on, and record that in the audit log."""

    def resume_scheduling(self, *, actor: str, now: datetime) -> None:
        """Turn the emergency stop off, and record that in the audit log."""

    def last_scheduled_success(self, kind: str) -> datetime | None:
        """Return when the last successful run of a kind that a timer of this host started began."""

    def last_success_of_fleet(self, kind: str) -> datetime | None:
        """Return when the last successful run of a kind began, on any host that shares the database, by anybody.

        None where hosts do not share one: timers of one host need not look at each other.
        """

    def run_of_process(self, pid: int, *, since: datetime) -> int | None:
        """Return the last run that a process has started since `moment`."""


class StoredRunHistory(Protocol):
    """The audit trail as it is shown."""

    def list_runs(self, kind: str | None, *, limit: int | None = None) -> list[LoggedRun]:
        """Return the runs of one kind, or of all, newest first; `watch` means the runs started by `watch`.

        A run whose process was killed counts as failed, even if that is not recorded yet.
        """

    def count(self, kind: str | None) -> int:
        """Return the number of runs that `list_runs` returns without a limit."""

    def run(self, run_id: int) -> LoggedRun | None:
        """Return one run, None if there is none."""
