"""Effects: the changes of a plan to the database, one value per statement.

An effect is complete: it contains the texts to write, and the store decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NewType

from msgspec import Struct

from atom_saas_sync.model.conflicts import ConflictEntry
from atom_saas_sync.model.skills import SkillVersion

if TYPE_CHECKING:

    class Admitted(SkillVersion, frozen=True):
        """A version that the gate's verdict or a user admitted; only core/gate/admission.py makes it.

        It exists for the type checker alone, and costs nothing. (mypy crashes on a NewType of a Struct.)
        """
else:
    Admitted = SkillVersion

Servable = NewType("Servable", str)
"""The text of an admitted version, or one that was written or chosen here. Only core/gate/admission.py makes it."""


class Identity(NamedTuple):
    """The part of a skill's version that a signature covers."""

    version: str
    content_digest: bytes
    exec_digest: bytes


Proof = Literal["sent", "none"] | Identity
"""When a version is signed: always (just sent by the marketplace), never, or only if this version was signed."""


class Life(Enum):
    """The lifetime of a served skill: a day from now, unchanged, or unlimited."""

    CONFIRMED = "confirmed"
    AS_BEFORE = "as before"
    ENDLESS = "endless"


class Effect(Struct, frozen=True):
    """A change to one skill."""

    skill_id: str


class WriteServed(Effect, frozen=True):
    """Serve this text.

    `fields` is the text decoded, if the planner had it. `changed_at` is when it was last changed; None means now.
    """

    text: Servable
    fields: Mapping[str, Any] | None
    life: Life
    changed_at: str | None


class AddServed(WriteServed, frozen=True):
    """Serve this text; nothing was served before."""


class ReplaceServed(WriteServed, frozen=True):
    """Serve this text instead of `replaced`; `replaced_fields` is the latter decoded, if available."""

    replaced: str
    replaced_fields: Mapping[str, Any] | None


class RefreshFigures(Effect, frozen=True):
    """Serve this text; only its volatile fields have changed."""

    text: Servable


class RemoveServed(Effect, frozen=True):
    """Stop serving this skill."""


class SetBase(Effect, frozen=True):
    """Make this version the base. `kept_text` is its text, unless that is the text that is served.

    `confirmed` says that the marketplace has the skill now. `by` is who admitted it, None if a policy did. `page` is
    its page in the list, if the caller of `apply` does not know it.
    """

    version: Admitted
    version_key: str
    kept_text: str | None
    confirmed: bool
    proof: Proof
    by: str | None = None
    page: int | None = None


class KeepBase(Effect, frozen=True):
    """Store the base's text separately from an edit; until now, it was the served text."""

    text: str


class RefreshBase(Effect, frozen=True):
    """Update volatile fields in the base's separately stored text."""

    text: str


class DropBase(Effect, frozen=True):
    """Drop the base: the skill is no longer the marketplace's."""


class MarkDeleted(Effect, frozen=True):
    """Record that the marketplace deleted the skill, while an edited copy awaits a decision."""


class UnmarkDeleted(Effect, frozen=True):
    """Record that the marketplace has the skill again."""


class ReadAgain(Effect, frozen=True):
    """Make the next walk read the skill even if its bytes are unchanged."""


class ReadPageAgain(Effect, frozen=True):
    """Make the next walk read the skill's page in full."""


class NoteSeen(Effect, frozen=True):
    """Record a marketplace version in an open conflict as seen."""

    version: SkillVersion
    version_key: str
    proof: Proof


class EndVersion(Effect, frozen=True):
    """Store a replaced or removed marketplace version in the history.

    `fields` is the text decoded, if the planner had it. With `once`, it is not stored twice in a row if a
    resolution is undone and made again.
    """

    text: bytes
    fields: Mapping[str, Any] | None
    content_digest: bytes
    exec_digest: bytes
    ended_by: Literal["superseded", "deleted"]
    once: bool


class LogConflict(Effect, frozen=True):
    """Log a conflict, or update the open one."""

    entry: ConflictEntry


class NoteRepublished(Effect, frozen=True):
    """Count a republished version: same number, different code."""


class PutOffer(Effect, frozen=True):
    """Store a held or refused version, replacing the previous offer.

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
    """Remove the waiting version.

    `never_served`: it differs from the served one, and the history keeps it as never served.
    """

    never_served: bool


class Quarantine(Effect, frozen=True):
    """Store the served text as evidence, and the base's if different."""

    text: str
    base_text: str | None
    content_digest: bytes
    reason: Literal["quarantined", "revoked", "denied"]
    by: str
    note: str | None
    served_source: Literal["marketplace", "edited", "local"]


class Release(Effect, frozen=True):
    """Take a skill out of quarantine."""
