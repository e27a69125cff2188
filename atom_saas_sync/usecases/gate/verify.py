"""`skills verify`: check that what is served is what was admitted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from msgspec import Struct

from atom_saas_sync.core.canonical import decode_object, version_key
from atom_saas_sync.core.gate.states import State, is_good, state_of
from atom_saas_sync.core.gate.stored import ServedSkill
from atom_saas_sync.core.gate.types import Revocation, Revocations

if TYPE_CHECKING:  # `skills verify ID` must be as fast as `status`
    from atom_saas_sync.usecases.ports.verifying import ServedSnapshot, StoredServing


class VerifiedSkill(Struct, frozen=True, gc=False):
    """The result for one skill; digests are those of the admitted marketplace version.

    Without `gc`, like `ServedSkill`.
    """

    skill_id: str
    state: State
    version: str | None = None
    content_digest: bytes | None = None
    exec_digest: bytes | None = None
    admitted_at: str | None = None
    admitted_by: str | None = None


class Verified(Struct, frozen=True):
    """The results by id, and the number in each state; `success` if all may be used."""

    skills: tuple[VerifiedSkill, ...]
    states: Mapping[State, int]
    success: bool


def verify(
    store: StoredServing,
    skill_ids: Sequence[str] | None,
    *,
    listed: Sequence[Revocation] = (),
    strict: bool = False,
    full: bool = False,
) -> Verified:
    """Verify these skills, or all that is served.

    `listed` are the current revocations of the file, besides those in the database. With `strict`, an edited skill is a
    failure; with `full`, every digest is recomputed.
    """
    with store.snapshot() as snapshot:
        revocations = Revocations((*snapshot.revocations().entries, *listed))
        hit = set(snapshot.revoked_skills(revocations)) if revocations.entries else set()
        found = [_verified(each, state_of(each, is_revoked=each.skill_id in hit, full=full))
                 for each in snapshot.served(skill_ids)]  # fmt: skip
        if missing := set(skill_ids or ()).difference(skill.skill_id for skill in found):
            found += _not_served(snapshot, sorted(missing), revocations)
    found.sort(key=attrgetter("skill_id"))
    states = Counter(each.state for each in found)
    return Verified(tuple(found), states, all(is_good(state, strict=strict) for state in states))


def _verified(skill: ServedSkill, state: State) -> VerifiedSkill:
    is_local = skill.content_digest is None or (skill.base_text is not None and skill.base_text != skill.text)
    version = skill.version or None
    if is_local:
        stored = (decode_object(skill.text) or {}).get("version")
        version = stored if isinstance(stored, str) else None
    return VerifiedSkill(
        skill.skill_id,
        state,
        version,
        skill.content_digest,
        skill.exec_digest,
        skill.admitted_at,
        skill.admitted_by,
    )


def _not_served(
    snapshot: ServedSnapshot, skill_ids: Sequence[str], revocations: Revocations
) -> Iterator[VerifiedSkill]:
    """Yield the results for skills that are not in the cache."""
    from atom_saas_sync.core.gate.names import publisher_of
    from atom_saas_sync.core.gate.revocations import revoked

    quarantined = snapshot.quarantined(skill_ids)
    for skill_id in skill_ids:
        kept = quarantined.get(skill_id)
        fields = None if kept is None else decode_object(kept.base_text or kept.text)
        digest = b"" if kept is None else kept.content_digest
        if revoked(revocations, skill_id, version_key(fields or {}), digest, publisher_of(fields)):
            yield VerifiedSkill(skill_id, "revoked")
        else:
            yield VerifiedSkill(skill_id, "unknown" if kept is None else "quarantined")
