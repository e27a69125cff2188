"""What `skills verify` says of a skill: whether what is served is what was admitted."""

from __future__ import annotations

from hashlib import sha256
from typing import Literal, get_args

from atom_saas_sync.core.canonical import content_digest, decode_object, exec_digest
from atom_saas_sync.core.gate.stored import ServedSkill

State = Literal["ok", "edited", "stale", "held", "tampered", "quarantined", "revoked", "unknown"]

STATES: tuple[State, ...] = get_args(State)

GOOD: frozenset[State] = frozenset({"ok", "stale", "held"})
"""States of what may be used; `edited` is one more, unless it is strict."""


def state_of(skill: ServedSkill, *, is_revoked: bool, full: bool) -> State:
    """Return the state of a cached skill: whatever keeps it out first, then whether it is what was admitted.

    The digest of the stored bytes is enough where it is that of what came; with `full` both digests are computed anew.
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
