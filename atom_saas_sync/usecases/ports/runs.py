"""The audit trail of runs, and the emergency stop."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from atom_saas_sync.core.run_log import LoggedRun
from atom_saas_sync.model import Counts, Report


class Progress(Protocol):
    """Receives the progress of the run."""

    def advance(self, done: int, total: int | None) -> None:
        """`done` of `total` skills were processed."""


class RunLog(Protocol):
    """The audit trail as a run writes it. The caller holds the lock of the run's kind."""

    def begin(self, kind: str, *, started_by: str, now: datetime) -> int:
        """Store that a run of this process has begun; return its id.

        A run of the same kind that never ended was killed: it becomes a failed one. Runs of more than 90 days ago are
        forgotten.
        """

    def finish(self, report: Report[Counts], *, now: datetime, requests: dict[tuple[str, str], int]) -> None:
        """Store how a run ended, with its counts and error, and add to the counters.

        The state that the Atom backend reads follows runs of the skills alone. A successful one ends the approval of
        deletions.
        """

    def bind(self, now: datetime) -> None:
        """Store which marketplace the database belongs to. One that is stored already stays."""

    def reached_marketplace(self, now: datetime, skew_seconds: float | None) -> None:
        """Store that the marketplace has answered, and, if known, how far its clock is ahead of ours."""


class StoredRuns(RunLog, Protocol):
    """The audit trail as commands see it, and the emergency stop."""

    def count_locked_out(self, kind: str) -> None:
        """Count a run that found another one of its kind running."""

    def marketplace(self) -> str | None:
        """Return which marketplace the database belongs to; None until it has answered for the first time."""

    def scheduling_stopped(self) -> bool:
        """Tell whether the emergency stop is on."""

    def auto_sync_is_off(self) -> bool:
        """Tell whether the Atom backend has switched scheduled syncs off in the database."""

    def stop_scheduling(self, *, actor: str, now: datetime) -> None:
        """Turn the emergency stop on, and write that into the audit log."""

    def resume_scheduling(self, *, actor: str, now: datetime) -> None:
        """Turn the emergency stop off, and write that into the audit log."""

    def last_scheduled_success(self, kind: str) -> datetime | None:
        """Return when the last successful run of a kind that a timer started began."""

    def run_of_process(self, pid: int, *, since: datetime) -> int | None:
        """Return the last run that a process has begun since a moment."""


class StoredRunHistory(Protocol):
    """The audit trail as it is shown."""

    def list_runs(self, kind: str | None, *, limit: int | None = None) -> list[LoggedRun]:
        """Return the runs of a kind, or of all, the newest first; kind `watch` means the runs that `watch` started.

        A run whose process was killed has failed, even if nothing has noted it yet.
        """

    def count(self, kind: str | None) -> int:
        """Return how many runs `list_runs` has without a limit."""

    def run(self, run_id: int) -> LoggedRun | None:
        """Return one run, None if there is none."""
