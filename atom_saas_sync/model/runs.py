"""Runs: reports and audit trail entries."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct, field
from msgspec.structs import asdict

from atom_saas_sync.model.plans import Action
from atom_saas_sync.model.ratings import Rating

RunStatus = Literal["success", "partial", "failed", "skipped", "locked"]

TIMER = "timer"
"""The name of timers in the audit trail."""

LOCKED_KINDS = ("skills", "ratings")
"""The kinds of runs that have a lock; categories share that of the skills."""

WATCH_LOCK = "watch"
"""The kind of the lock that `watch` holds while it runs."""


class ErrorInfo(Struct, frozen=True):
    """An error in a report; `type` is a value of the metric's label `error`, or `config`."""

    type: str
    message: str
    hint: str | None = None


class CatalogueCounts(Struct):
    """The figures of one catalogue run (docs/API_DOCUMENTATION.md)."""

    skills_synced: int = 0
    categories_synced: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    invalid: int = 0
    refused: int = 0
    conflicts_detected: int = 0
    conflicts_resolved: int = 0
    conflicts_manual: int = 0
    edits_replaced: int = 0
    republished: int = 0
    tampered: int = 0
    categories_changed: int = 0
    updates_admitted: int = 0
    updates_held: int = 0
    updates_refused: int = 0
    updates_waiting: int = 0
    requests: int = 0
    not_modified: int = 0
    bytes_received: int = 0

    def uncounted(self) -> Mapping[tuple[str, str], int]:
        """Return items by (type, action) that the run's transactions have not counted yet."""
        return {
            ("skill", "unchanged"): self.unchanged,
            ("skill", "invalid"): self.invalid,
            ("category", "updated"): self.categories_changed,
            ("category", "unchanged"): max(0, self.categories_synced - self.categories_changed),
        }


class WalkProof(Struct, frozen=True):
    """A run's proof of completeness (docs/ATOM_SAAS_SYNC_ARCHITECTURE.md)."""

    walks: int = 0
    pages_read: int = 0
    distinct_ids: int = 0
    total_before: int | None = None
    total_after: int | None = None
    confirmations: int = 0


class RatingCounts(Struct):
    """The figures of one run for ratings (docs/API_DOCUMENTATION.md)."""

    uploaded: int = 0
    updated_local: int = 0
    failed: int = 0
    skipped: int = 0
    pending: int = 0
    looked_at: int = 0
    requests: int = 0

    def uncounted(self) -> Mapping[tuple[str, str], int]:
        """Return nothing: ratings are counted one by one, as they are settled."""
        return {}


Counts = TypeVar("Counts", CatalogueCounts, RatingCounts)


class Report(Struct, Generic[Counts], frozen=True):
    """How a run of any kind ended."""

    run_id: int | None
    kind: str
    status: RunStatus
    exit_code: int
    counts: Counts
    dry_run: bool = False
    duration_seconds: float = 0.0
    reasons: tuple[str, ...] = ()
    error: ErrorInfo | None = None

    def proven(self) -> Mapping[str, Any]:
        """Return the proof of completeness for the audit trail."""
        return {}


class RunReport(Report[CatalogueCounts], frozen=True):
    """The result of a catalogue run; `replaced_edits` are conflicts in which a strategy replaced a local edit."""

    proof: WalkProof = field(default_factory=WalkProof)
    complete: bool = False
    plan: tuple[Action, ...] = ()
    replaced_edits: tuple[int, ...] = ()

    def proven(self) -> Mapping[str, Any]:
        """Return the figures of the walks."""
        return asdict(self.proof)


class RatingReport(Report[RatingCounts], frozen=True):
    """The result of a run for ratings."""

    plan: tuple[Rating, ...] = ()


class PastRun(Struct, frozen=True):
    """One run in the audit trail; `status` is `running` while it is in progress.

    `refused` counts deletions above the limit, `invalid` items that could not be stored.
    """

    id: int
    kind: str
    started_at: datetime | None
    finished_at: datetime | None
    duration_seconds: float | None
    status: str
    started_by: str
    reasons: tuple[str, ...]
    error_type: str | None
    error_message: str | None
    refused: int = 0
    invalid: int = 0
