"""Building blocks of plans: functions that return effects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from atom_saas_sync.core.canonical import version_key
from atom_saas_sync.core.plan.sides import Sides
from atom_saas_sync.model import ConflictEntry, SkillVersion
from atom_saas_sync.model.effects import (
    AddServed,
    Admitted,
    DropBase,
    Effect,
    EndVersion,
    Identity,
    Life,
    LogConflict,
    NoteSeen,
    Proof,
    ReadPageAgain,
    ReplaceServed,
    Servable,
    SetBase,
    WriteServed,
)


class Source(Struct, frozen=True):
    """The source of a marketplace version: whether it confirms the skill, and what proves it.

    A version that was not `sent` just now is signed only if it was signed before, or if the version that it `continues`
    was; a version `named` by another program is not signed.
    """

    confirms: bool = True
    sent: bool = True
    named: bool = False
    continues: Identity | None = None

    def proof(self, version: SkillVersion, key: str) -> Proof:
        """Return the proof of a version from this source."""
        if self.named:
            return "none"
        if self.continues is not None:
            return self.continues
        return "sent" if self.sent else identity(version, key)


def identity(version: SkillVersion, key: str) -> Identity:
    """Return the signed part of a version; `key` is its normalized version number."""
    return Identity(key, version.content_digest, version.exec_digest)


SENT = Source()
"""A response of the marketplace."""
STORED = Source(sent=False)
"""A stored text that the marketplace's list still confirms."""
DECIDED = Source(sent=False, confirms=False)
"""Chosen by a user; the marketplace was not queried."""
NAMED = Source(named=True, confirms=False)
"""Claimed by another program."""


def served(
    sides: Sides,
    text: Servable,
    fields: Mapping[str, Any] | None,
    *,
    life: Life,
    changed_at: str | None = None,
) -> WriteServed:
    """Serve `text` from now on; `fields` is the decoded text, if available."""
    local = sides.local
    if local is None:
        return AddServed(sides.skill_id, text, fields, life, changed_at)
    return ReplaceServed(sides.skill_id, text, fields, life, changed_at, local.text, local.known_fields)


def life(sides: Sides, source: Source) -> Life:
    """Return the cache lifetime of a new base."""
    return Life.CONFIRMED if source.confirms or sides.local is None else Life.AS_BEFORE


def life_here(sides: Sides) -> Life:
    """Return the cache lifetime of a local text: local skills do not expire."""
    return Life.ENDLESS if sides.local is None else Life.AS_BEFORE


def restored(base: Admitted, *, text: str) -> list[Effect]:
    """Restore a former base under the local `text`."""
    key = version_key(base.fields)
    kept = None if text == base.text else base.text
    return [SetBase(base.skill_id, base, key, kept, confirmed=False, proof=DECIDED.proof(base, key))]


def based_on(sides: Sides, remote: Admitted, source: Source, *, text: str | None, settles: bool) -> list[Effect]:
    """Make `remote` the base of the local `text`. `settles`: this resolves a conflict."""
    key = version_key(remote.fields)
    kept = None if text == remote.text else remote.text
    effects: list[Effect] = [SetBase(remote.skill_id, remote, key, kept, source.confirms, source.proof(remote, key))]
    base = sides.known.base
    if base is not None and base.content_digest != remote.content_digest:
        effects += ended(sides, "superseded", settles=settles)
    return effects


def without_base(sides: Sides, *, written: bool, settles: bool) -> list[Effect]:
    """Drop the base, and keep it in the history."""
    effects: list[Effect] = [*ended(sides, "deleted", settles=settles)]
    if written:  # a skill that stays without a base is on no page
        effects.append(ReadPageAgain(sides.skill_id))
    return [*effects, DropBase(sides.skill_id)]


def ended(sides: Sides, by: Literal["superseded", "deleted"], *, settles: bool) -> list[EndVersion]:
    """Keep the base in the history, unless it was tampered with: it must not pass for the marketplace's text."""
    base = sides.known.base
    if base is None or sides.base is None or base.forged or sides.is_tampered:
        return []
    digests = base.content_digest, base.exec_digest
    return [EndVersion(sides.skill_id, sides.known.base_bytes, sides.base.known_fields, *digests, by, once=settles)]


def ended_before(version: SkillVersion | None) -> list[EndVersion]:
    """Keep a version in the history that waited in a conflict and never became the base."""
    if version is None:
        return []
    digests = version.content_digest, version.exec_digest
    text = version.text.encode()
    return [EndVersion(version.skill_id, text, version.fields, *digests, "superseded", once=True)]


def logged(skill_id: str, entry: ConflictEntry | None) -> list[LogConflict]:
    """Log a conflict."""
    return [] if entry is None else [LogConflict(skill_id, entry)]


def seen(sides: Sides, remote: SkillVersion, source: Source, entry: ConflictEntry | None) -> list[NoteSeen]:
    """Record a version in an open conflict as seen."""
    if entry is None and sides.known.waiting is None:
        return []
    key = version_key(remote.fields)
    return [NoteSeen(remote.skill_id, remote, key, source.proof(remote, key))]
