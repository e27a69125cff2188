"""Effects: what a plan does to the database, one value for each statement.

An effect is complete: it holds the texts that it writes, and whoever carries it out decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
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

    `fields` is the text decoded, if the planner had it. `changed_at` is when it was last changed; None means now.
    """

    text: str
    fields: Mapping[str, Any] | None
    life: Life
    changed_at: str | None


class AddServed(WriteServed, frozen=True):
    """Serve this text, where nothing was served."""


class ReplaceServed(WriteServed, frozen=True):
    """Serve this text in place of `replaced`; `replaced_fields` is that decoded, if the planner had it."""

    replaced: str
    replaced_fields: Mapping[str, Any] | None


class RefreshFigures(Effect, frozen=True):
    """Serve this text, in which only volatile fields are new."""

    text: str


class RemoveServed(Effect, frozen=True):
    """Serve this skill no longer."""


class SetBase(Effect, frozen=True):
    """Make this version the base. `kept_text` is its text, unless that is the text that is served.

    `confirmed` says that the marketplace has the skill now. `by` is who admitted it, None if a policy did. `page` is
    where the list showed it, if whoever carries the plan out does not know.
    """

    version: SkillVersion
    version_key: str
    kept_text: str | None
    confirmed: bool
    proof: Proof
    by: str | None = None
    page: int | None = None


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


class PutOffer(Effect, frozen=True):
    """Let a version wait, or remember that it is refused, in place of what waited.

    `first_seen_at` is when this machine first saw its digest, None: now. `page` is as in SetBase.
    """

    version: SkillVersion
    version_key: str
    kind: Literal["hold", "refuse"]
    reason: str
    due_at: datetime | None
    first_seen_at: datetime | None
    abnormal: bool
    note: str | None
    proof: Proof
    page: int | None = None


class DropOffer(Effect, frozen=True):
    """Let nothing wait. `never_served`: what waited is not what is served now, and the history keeps it as such."""

    never_served: bool


class Quarantine(Effect, frozen=True):
    """Keep what was served as evidence: its text, and the base's if that is another."""

    text: str
    base_text: str | None
    content_digest: bytes
    reason: Literal["quarantined", "revoked", "denied"]
    by: str
    note: str | None
    served_source: Literal["marketplace", "edited", "local"]


class Release(Effect, frozen=True):
    """Take a skill out of quarantine."""
