"""What a plan says of a skill."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from msgspec import Struct

from atom_saas_sync.model.conflicts import ConflictEntry
from atom_saas_sync.model.skills import SkillVersion


class Outcome(Enum):
    """What happened to a skill in the cache, as counted in a run's report."""

    ADDED = "added"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DELETED = "deleted"


class CacheChange(Enum):
    """What is done to the row of skill_cache."""

    KEEP = "keep"
    WRITE = "write"
    REMOVE = "remove"


class BaseChange(Enum):
    """What is done to the base: nothing, take the remote version, forget it, note or unnote that it is deleted.

    RESTORE puts a former base back when a resolution is undone.
    """

    KEEP = "keep"
    ADVANCE = "advance"
    RESTORE = "restore"
    DROP = "drop"
    MARK_DELETED = "mark_deleted"
    UNMARK_DELETED = "unmark_deleted"


class Action(Struct, frozen=True):
    """What a plan says of one skill. A plan is data: `--dry-run` prints it, the store carries it out.

    `changed_at` is when the local side was last changed, where the row's own time must go on saying so because only
    volatile fields are refreshed. `passed_over` is a version that the marketplace sent and replaced while a conflict
    waited: it never became the base, and belongs to the history. `before` is the decoded skill that `text` replaces, if
    the planner had it.
    """

    skill_id: str
    outcome: Outcome
    cache: CacheChange = CacheChange.KEEP
    text: str | None = None
    base: BaseChange = BaseChange.KEEP
    remote: SkillVersion | None = None
    conflict: ConflictEntry | None = None
    republished: bool = False
    changed_at: str | None = None
    passed_over: SkillVersion | None = None
    before: Mapping[str, Any] | None = None
