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
    """Local and remote both differ from the base, and from each other (data-model.md, rules 1 and 2).

    `local_text` is None only where a waiting conflict closes because another program deleted the row.
    """

    type: ConflictType
    severity: Severity
    local_text: str | None
    remote_text: str | None
    base_text: str | None


class Resolution(Struct, frozen=True):
    """How a conflict ended: the strategy's name and the text that the cache holds now, None if it is deleted.

    The strategy `converged` is no one's choice: the two sides became equal. `replaces_edit` tells that a sync, not a
    person, has put the marketplace's version in the place of what was written here.
    """

    strategy: str
    result_text: str | None
    replaces_edit: bool = False


class ConflictEntry(Struct, frozen=True):
    """A line for the conflict log: new, or the new state of the one that waits under `waiting_id`."""

    conflict: Conflict
    resolution: Resolution | None
    waiting_id: int | None = None


class LoggedConflict(Struct, frozen=True):
    """A conflict as the log has it, with its three versions, and what the cache holds now."""

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
    """Which conflicts are asked for: waiting ones or resolved ones; each other condition that is given must hold."""

    severity: str | None = None
    type: str | None = None
    skill_id: str | None = None
    resolved: bool = False
