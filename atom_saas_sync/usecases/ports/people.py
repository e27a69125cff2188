"""What users do to skills and conflicts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from atom_saas_sync.model import Action, ConflictFilter, LoggedConflict, SkillVersion
from atom_saas_sync.usecases.ports.catalogue import KnownSkills, Storing
from atom_saas_sync.usecases.ports.gate import GateBatch


class EditBatch(KnownSkills, Protocol):
    """One transaction for the actions of a user."""

    @property
    def gate(self) -> GateBatch:
        """Return the gate's verbs in this transaction."""

    def apply(self, actions: Sequence[Action], now: datetime, *, actor: str) -> None:
        """Apply actions, as in a catalogue run; `actor` is the user who resolves conflicts."""

    def note(self, actor: str, action: str, subject: str, now: datetime, **details: object) -> None:
        """Record a user's action in the audit log."""

    def keep_local(self, versions: Sequence[SkillVersion], now: datetime, *, ended_by: str) -> None:
        """Keep local texts in the history that are now `superseded` or `deleted`.

        They are counted separately from the marketplace's versions, so neither displaces the other.
        """


class EditableCatalogue(KnownSkills, Storing, Protocol):
    """What editing needs from the store."""

    def batch(self) -> AbstractContextManager[EditBatch]:
        """Open the transaction of one edit."""

    def look_at_deleted_edits(self, skill_id: str) -> None:
        """Record that a user has seen the versions of a skill, including edits that another program deleted.

        Takes no lock if there are none.
        """


class Resolutions(EditBatch, Protocol):
    """One transaction in which a user resolves conflicts. It confirms no skill, because nothing was fetched."""

    def conflict(self, conflict_id: int) -> LoggedConflict | None:
        """Return one conflict with its versions and the current local version."""

    def open_ids(self, wanted: ConflictFilter) -> Sequence[int]:
        """Return, sorted, the ids of the open conflicts that match; `resolved` of the filter is ignored."""

    def mark_undone(self, conflict_id: int, actor: str, now: datetime) -> None:
        """Record who undid a resolution."""


class StoredConflicts(Protocol):
    """What resolving conflicts needs from the store."""

    def conflict(self, conflict_id: int) -> LoggedConflict | None:
        """Return one conflict with its versions and the current local version."""

    def resolving(self) -> AbstractContextManager[Resolutions]:
        """Open the transaction in which decisions are made and applied: all of them, or none."""


class ListedConflicts(StoredConflicts, Protocol):
    """The conflict log for lists."""

    def list_conflicts(
        self, wanted: ConflictFilter, *, limit: int | None = None, offset: int = 0
    ) -> list[LoggedConflict]:
        """Return the conflicts that match, without their texts, after skipping `offset` of them.

        Open ones: the most severe first, then the oldest. Resolved ones: the last resolved first.
        """

    def note_seen(self, ids: Sequence[int]) -> None:
        """Record that a user has seen these conflicts; writes nothing if that is already recorded."""

    def count(self, wanted: ConflictFilter) -> int:
        """Return the number of matching conflicts."""
