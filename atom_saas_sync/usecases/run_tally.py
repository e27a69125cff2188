"""The result of a run so far, and how it ends."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field

from atom_saas_sync.characters import short_id
from atom_saas_sync.core.gate.verdicts import verdicts_of
from atom_saas_sync.errors import AtomSyncError, MarketplaceError
from atom_saas_sync.model import (
    Action,
    CatalogueCounts,
    ErrorInfo,
    InvalidItem,
    Outcome,
    RunReport,
    RunStatus,
    WalkProof,
)
from atom_saas_sync.model.conflicts import ConflictEntry
from atom_saas_sync.model.effects import LogConflict, NoteRepublished, SetBase

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import Statistics


log = logging.getLogger(__name__)

NEEDS_PERSON = 4
_ITEMS_INVALID = 65
PAGES_MISSING = 69
_COUNTED = {Outcome.ADDED, Outcome.UPDATED, Outcome.DELETED}
_NO_FAILURE = {"conflicts_open", "updates_tripped", "updates_waiting", "clock"}
"""Reasons of a run that has completed."""
LOGGED = 10
"""How many items of a kind are logged by name; the others are only counted."""


class Done(Struct):
    """What actions do, to be counted once they are committed; without the texts that they write, megabytes of them.

    `held` tells of each skill whether its newest version waits; skills that are neither held nor get a base are absent.
    """

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    republished: list[str] = field(default_factory=list)
    conflicts: list[tuple[str, ConflictEntry]] = field(default_factory=list)
    held: dict[str, bool] = field(default_factory=dict)
    plan: list[Action] = field(default_factory=list)

    def add(self, actions: Sequence[Action], *, plan: bool) -> None:
        """Add what these do; with `plan` keep them, too, except those that do nothing."""
        self.verdicts += verdicts_of(actions)
        for action in actions:
            kinds = set(map(type, action.effects))
            skill_id, outcome, entry = action.skill_id, action.outcome, None
            self.outcomes[outcome] += 1
            if NoteRepublished in kinds:
                self.republished.append(skill_id)
            if LogConflict in kinds and (entry := action.conflict) is not None:
                self.conflicts.append((skill_id, entry))
            if plan and (outcome is not Outcome.UNCHANGED or entry is not None):
                self.plan.append(action)
            if outcome is Outcome.HELD or SetBase in kinds:
                self.held[skill_id] = outcome is Outcome.HELD


class RunTally:
    """Counts, reasons and the error of one run; in a dry run also its plan."""

    def __init__(self, *, dry_run: bool) -> None:
        self._dry_run = dry_run
        self.counts = CatalogueCounts()
        self.proof = WalkProof()
        self.plan: list[Action] = []
        self.listed = 0
        self.waiting: set[str] = set()
        """The skills whose conflict is open."""
        self._held: set[str] = set()
        self.reasons: list[str] = []
        self.error: AtomSyncError | None = None
        self.exit_code = 0

    def note(self, reason: str, exit_code: int) -> None:
        """Record why the run is not a success; the first exit code wins."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        self.exit_code = self.exit_code or exit_code

    def took(self, actions: Sequence[Action]) -> None:
        """Count what was done, or would be done in a dry run."""
        done = Done()
        done.add(actions, plan=self._dry_run)
        self.count(done)

    def count(self, done: Done) -> None:
        """Count what was done, or would be done in a dry run."""
        counts = self.counts
        for outcome in _COUNTED:
            setattr(counts, outcome.value, getattr(counts, outcome.value) + done.outcomes[outcome])
        counts.republished += len(done.republished)
        for skill_id in done.republished:
            log.warning("%s was republished: same version, different code", short_id(skill_id))
        for skill_id, entry in done.conflicts:
            self._count_conflict(skill_id, entry)
        self.plan += done.plan
        for skill_id, is_held in done.held.items():
            if is_held:
                self._held.add(skill_id)
            else:
                self._held.discard(skill_id)  # it was deferred until the end of the walk
        counts.updates_admitted += done.verdicts["admit", "policy"]
        counts.updates_held = len(self._held)
        counts.updates_refused += done.verdicts["refuse", "policy"]

    def note_waiting(self, waiting: Mapping[str, int], *, needs_person: bool, clock_is_wrong: bool, fail: bool) -> None:
        """Note waiting updates; with `fail`, they make the run exit with 4."""
        self.counts.updates_waiting = sum(waiting.values())
        if needs_person:
            self.note("updates_tripped", 0)
        if clock_is_wrong:
            self.note("clock", 0)
        if waiting and fail:
            self.note("updates_waiting", NEEDS_PERSON)

    def _count_conflict(self, skill_id: str, entry: ConflictEntry) -> None:
        self.counts.conflicts_detected += entry.waiting_id is None
        self.counts.conflicts_resolved += entry.resolution is not None
        self.counts.edits_replaced += entry.resolution is not None and entry.resolution.replaces_edit
        if entry.resolution is None:
            self.waiting.add(skill_id)
        else:
            self.waiting.discard(skill_id)
        log.info(
            "conflict on %s: %s, %s, %s",
            short_id(skill_id),
            entry.conflict.type,
            entry.conflict.severity,
            "waits" if entry.resolution is None else f"resolved by {entry.resolution.strategy}",
        )

    def skip_invalid(self, invalid: Sequence[InvalidItem]) -> None:
        """Count invalid items, and log the first ones."""
        for item in invalid[: max(0, LOGGED - self.counts.invalid)]:
            log.warning("skipped an invalid item: %s: %s", short_id(item.skill_id or "(no id)"), item.reason)
        self.counts.invalid += len(invalid)
        if invalid:
            self.note("items_invalid", _ITEMS_INVALID)

    def miss_page(self, number: int, error: MarketplaceError) -> None:
        """Note a page that could not be fetched."""
        message = f"could not fetch page {number}: {error.message}"
        if self.error is None:  # the run's own error, which is reported at its end
            self.error = error
            error.message = message
        else:
            log.info("%s", message)
        self.note(error.kind, PAGES_MISSING)

    def fail(self, error: AtomSyncError) -> None:
        """Note the error that ends the run, or a part of it."""
        self.error = error
        self.note(error.kind, error.exit_code)
        self.exit_code = error.exit_code

    def report(
        self, kind: str, run_id: int | None, statistics: Statistics, *, complete: bool, seconds: float
    ) -> RunReport:
        """Return the report of the run; `replaced_edits` is for the caller to fill."""
        counts = self.counts
        counts.skills_synced = self.listed
        counts.unchanged = max(0, self.listed - counts.added - counts.updated - counts.updates_waiting)
        counts.requests = statistics.requests
        counts.not_modified = statistics.not_modified
        counts.bytes_received = statistics.bytes_received
        kept_something = counts.skills_synced or counts.categories_synced or counts.deleted
        status: RunStatus = "success"
        if set(self.reasons) - _NO_FAILURE:
            status = "partial" if kept_something else "failed"
        error = self.error
        # Report missing pages only if some were read; otherwise the error is enough.
        exit_code = error.exit_code if error and not counts.skills_synced else self.exit_code
        reasons = tuple(self.reasons)
        if counts.conflicts_manual and "conflicts_open" not in reasons:
            reasons = (*reasons, "conflicts_open")
        return RunReport(
            run_id=run_id,
            kind=kind,
            status=status,
            exit_code=exit_code,
            counts=counts,
            proof=self.proof,
            complete=complete,
            dry_run=self._dry_run,
            reasons=reasons,
            error=ErrorInfo(error.kind, error.message, error.hint) if error else None,
            plan=tuple(self.plan),
            duration_seconds=seconds,
        )
