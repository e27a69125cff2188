"""Effects: what a plan does to the database, one value for each statement.

An effect is complete: it holds the texts that it writes, and whoever carries it out decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from atom_saas_sync.model.conflicts import ConflictEntry
from atom_saas_sync.model.skills import SkillVersion


class Identity(NamedTuple):
    """What a signature covers of one version of a skill."""

    version: str
    content_digest: bytes
    exec_digest: bytes


Proof = Literal["sent", "none"] | Identity
"""When a version is signed: always, because the marketplace has just sent it; never; or if this version was signed."""


class Life(Enum):
    """How long a served skill lives: a day from now, as before, or without end."""

    CONFIRMED = "confirmed"
    AS_BEFORE = "as before"
    ENDLESS = "endless"


class Effect(Struct, frozen=True):
    """Something that a plan does to one skill."""

    skill_id: str


class WriteServed(Effect, frozen=True):
    """Serve this text.

    `fields` is the text decoded, if the planner had it. `replaced` is the text served until now, None if there was no
    row, and `replaced_fields` the same decoded. `changed_at` is when it was last changed; None means now.
    """

    text: str
    fields: Mapping[str, Any] | None
    replaced: str | None
    replaced_fields: Mapping[str, Any] | None
    life: Life
    changed_at: str | None = None


class RefreshFigures(Effect, frozen=True):
    """Serve this text, in which only volatile fields are new."""

    text: str


class RemoveServed(Effect, frozen=True):
    """Serve this skill no longer."""


class SetBase(Effect, frozen=True):
    """Make this version the base. `kept_text` is its text, unless that is the text that is served.

    `confirmed` says that the marketplace has the skill now.
    """

    version: SkillVersion
    version_key: str
    kept_text: str | None
    confirmed: bool
    proof: Proof


class KeepBase(Effect, frozen=True):
    """Keep the base's text, which was served until now, apart from an edit."""

    text: str


class RefreshBase(Effect, frozen=True):
    """Store volatile fields in the base's text, which is kept apart from what is served."""

    text: str


class DropBase(Effect, frozen=True):
    """Forget the base: the skill is not the marketplace's."""


class MarkDeleted(Effect, frozen=True):
    """Note that the marketplace has deleted the skill, while an edited copy waits for a person."""


class UnmarkDeleted(Effect, frozen=True):
    """Note that the marketplace has the skill again."""


class ReadAgain(Effect, frozen=True):
    """Let the next walk read the skill even if its bytes are those of last time."""


class ReadPageAgain(Effect, frozen=True):
    """Let the next walk read the skill's page whole."""


class NoteSeen(Effect, frozen=True):
    """Remember a version of the marketplace that waits in a conflict."""

    version: SkillVersion
    version_key: str
    proof: Proof


class EndVersion(Effect, frozen=True):
    """Keep a version of the marketplace in the history: it ends here.

    `fields` is the text decoded, if the planner had it. `once` keeps it from coming twice in a row, where a resolution
    that was undone is made again.
    """

    text: bytes
    fields: Mapping[str, Any] | None
    content_digest: bytes
    exec_digest: bytes
    ended_by: Literal["superseded", "deleted"]
    once: bool


class LogConflict(Effect, frozen=True):
    """Log a conflict, or the new state of the one that waits."""

    entry: ConflictEntry


class NoteRepublished(Effect, frozen=True):
    """Count that the same version came with other code."""
