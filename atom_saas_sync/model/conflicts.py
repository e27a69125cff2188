"""Conflicts between local edits and the marketplace, and how they end."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

Strategy = Literal["remote_wins", "local_wins", "merge", "manual"]
Severity = Literal["CRITICAL", "HIGH", "MEDIUM", "LOW"]
ConflictType = Literal["VERSION_MISMATCH", "CONTENT_MISMATCH", "DEPENDENCY_CONFLICT", "DELETION_CONFLICT", "OTHER"]
STRATEGIES: tuple[Strategy, ...] = ("remote_wins", "local_wins", "merge", "manual")
SEVERITIES: tuple[Severity, ...] = ("CRITICAL", "HIGH", "MEDIUM", "LOW")

CONFLICT_TYPES: tuple[ConflictType, ...] = (
    "VERSION_MISMATCH",
    "CONTENT_MISMATCH",
    "DEPENDENCY_CONFLICT",
    "DELETION_CONFLICT",
    "OTHER",
)


class Conflict(Struct, frozen=True):
    """Local and remote both differ from the base, and from each other (docs/CONFLICTS.md).

    `local_text` is None only if an open conflict closes because another program deleted the row.
    """

    type: ConflictType
    severity: Severity
    local_text: str | None
    remote_text: str | None
    base_text: str | None


class Resolution(Struct, frozen=True):
    """How a conflict ended: the strategy and the text that is served now, None if the skill is deleted.

    `converged` means that the two sides became equal. `replaces_edit`: a sync, not a user, replaced a local edit by the
    marketplace's version.
    """

    strategy: str
    result_text: str | None
    replaces_edit: bool = False


class ConflictEntry(Struct, frozen=True):
    """An entry for the conflict log: new, or the new state of the open one with the id `waiting_id`."""

    conflict: Conflict
    resolution: Resolution | None
    waiting_id: int | None = None


class LoggedConflict(Struct, frozen=True):
    """A conflict in the log, with its three versions, and the current cached text."""

    id: int
    skill_id: str
    type: ConflictType
    severity: Severity
    local_text: str | None
    remote_text: str | None
    base_text: str | None
    resolved: bool
    strategy: str | None
    result_text: str | None
    resolved_at: datetime | None
    resolved_by: str | None
    undone_at: datetime | None
    undone_by: str | None
    created_at: datetime | None
    updated_at: datetime | None
    cached_text: str | None
    cached_at: str | None


class ConflictFilter(Struct, frozen=True):
    """A filter for conflicts: open or resolved ones; all given conditions must match."""

    severity: str | None = None
    type: str | None = None
    skill_id: str | None = None
    resolved: bool = False
