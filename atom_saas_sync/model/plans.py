"""What a plan says of a skill."""

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
    """A version that was not offered before waits, or must not be served: what is served stays."""


class Action(Struct, frozen=True):
    """What a plan says of one skill. A plan is data: `--dry-run` prints it, the store carries out its effects.

    `remote` is the marketplace's version that the plan is about, if there is one.
    """

    skill_id: str
    outcome: Outcome
    effects: tuple[Effect, ...] = ()
    remote: SkillVersion | None = None

    @property
    def cache(self) -> Literal["keep", "write", "remove"]:
        """Return what is done to the cached row."""
        if any(isinstance(each, WriteServed) for each in self.effects):
            return "write"
        return "remove" if any(isinstance(each, RemoveServed) for each in self.effects) else "keep"

    @property
    def conflict(self) -> ConflictEntry | None:
        """Return what is written into the conflict log."""
        return next((each.entry for each in self.effects if isinstance(each, LogConflict)), None)

    @property
    def republished(self) -> bool:
        """Tell whether the same version came with other code."""
        return any(isinstance(each, NoteRepublished) for each in self.effects)

    @property
    def sets_base(self) -> bool:
        """Tell whether the base becomes another version, or the same in other bytes."""
        return any(isinstance(each, SetBase) for each in self.effects)

    @property
    def is_stored(self) -> bool:
        """Tell whether the marketplace's version is stored by this: as the base, or as an offer."""
        return any(isinstance(each, SetBase | PutOffer) for each in self.effects)

    @property
    def not_admitted_because(self) -> str | None:
        """Return why the marketplace's version waits or is refused."""
        return next((each.reason for each in self.effects if isinstance(each, PutOffer)), None)

    @property
    def admitted_by(self) -> str | None:
        """Return the person who admitted what becomes the base; None if nobody but the policy did."""
        return next((each.by for each in self.effects if isinstance(each, SetBase)), None)

    @property
    def does_something(self) -> bool:
        """Tell whether more happens than that a version is remembered."""
        return self.outcome is not Outcome.UNCHANGED or any(not isinstance(each, NoteSeen) for each in self.effects)
