"""Plans for skills."""

from __future__ import annotations

from enum import Enum
from typing import Literal

from msgspec import Struct

from atom_saas_sync.model.conflicts import ConflictEntry
from atom_saas_sync.model.effects import (
    Effect,
    LogConflict,
    NoteRepublished,
    NoteSeen,
    PutOffer,
    RemoveServed,
    SetBase,
    WriteServed,
)
from atom_saas_sync.model.skills import SkillVersion


class Outcome(Enum):
    """What happened to a skill in the cache, as counted in a run's report."""

    ADDED = "added"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DELETED = "deleted"
    HELD = "held"
    REFUSED = "refused"
    """A newly offered version is held or refused; the served one stays."""


class Action(Struct, frozen=True):
    """The plan for one skill. A plan is data: `--dry-run` prints it, the store applies its effects.

    `remote` is the marketplace's version, if there is one.
    """

    skill_id: str
    outcome: Outcome
    effects: tuple[Effect, ...] = ()
    remote: SkillVersion | None = None

    @property
    def cache(self) -> Literal["keep", "write", "remove"]:
        """Return the effect on the cached row."""
        if any(isinstance(each, WriteServed) for each in self.effects):
            return "write"
        return "remove" if any(isinstance(each, RemoveServed) for each in self.effects) else "keep"

    @property
    def conflict(self) -> ConflictEntry | None:
        """Return the entry for the conflict log."""
        return next((each.entry for each in self.effects if isinstance(each, LogConflict)), None)

    @property
    def republished(self) -> bool:
        """Tell whether the version was republished with different code."""
        return any(isinstance(each, NoteRepublished) for each in self.effects)

    @property
    def sets_base(self) -> bool:
        """Tell whether the base changes to another version, or to different bytes of the same."""
        return any(isinstance(each, SetBase) for each in self.effects)

    @property
    def is_stored(self) -> bool:
        """Tell whether this stores the marketplace's version, as the base or as an offer."""
        return any(isinstance(each, SetBase | PutOffer) for each in self.effects)

    @property
    def not_admitted_because(self) -> str | None:
        """Return why the marketplace's version is held or refused."""
        return next((each.reason for each in self.effects if isinstance(each, PutOffer)), None)

    @property
    def admitted_by(self) -> str | None:
        """Return the user who admitted the new base; None if the policy did."""
        return next((each.by for each in self.effects if isinstance(each, SetBase)), None)

    @property
    def does_something(self) -> bool:
        """Tell whether this does more than record a version."""
        return self.outcome is not Outcome.UNCHANGED or any(not isinstance(each, NoteSeen) for each in self.effects)
