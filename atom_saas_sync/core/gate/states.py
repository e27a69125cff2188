"""The states of `skills verify`: whether the served text is the admitted one."""

from __future__ import annotations

from hashlib import sha256
from typing import Literal, get_args

from atom_saas_sync.core.canonical import content_digest, decode_object, exec_digest
from atom_saas_sync.core.gate.stored import ServedSkill

State = Literal["ok", "edited", "stale", "held", "tampered", "quarantined", "revoked", "unknown"]

STATES: tuple[State, ...] = get_args(State)

GOOD: frozenset[State] = frozenset({"ok", "stale", "held"})
"""States in which a skill may be used; also `edited`, unless strict."""


def state_of(skill: ServedSkill, *, is_revoked: bool, full: bool) -> State:
    """Return the state of a cached skill: bans first, then whether the text is the admitted one.

    If the digest of the stored bytes equals that of the received ones, that is enough; with `full`, both digests are
    recomputed.
    """
    if is_revoked:
        return "revoked"
    if skill.is_quarantined:
        return "quarantined"
    if skill.content_digest is None:
        return "edited"
    base_text = skill.text if skill.base_text is None else skill.base_text
    if skill.is_forged or not _is_admitted(base_text, skill, full=full):
        return "tampered"
    return "edited" if base_text != skill.text else _of_untouched(skill)


def _of_untouched(skill: ServedSkill) -> State:
    if skill.stale:
        return "stale"
    return "held" if skill.is_waiting else "ok"


def is_good(state: State, *, strict: bool) -> bool:
    """Tell whether a state is a success of `skills verify`."""
    return state in GOOD or (state == "edited" and not strict)


def _is_admitted(text: bytes, skill: ServedSkill, *, full: bool) -> bool:
    """Tell whether a text is the version that was admitted."""
    if not full and sha256(text).digest() == skill.wire_digest:
        return True
    fields = decode_object(text)
    if fields is None or content_digest(fields) != skill.content_digest:
        return False
    return not full or exec_digest(fields) == skill.exec_digest
