"""Plans for resolving a conflict manually, and for undoing that."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from atom_saas_sync.core.canonical import decode_object, stored_version, version_from_fields
from atom_saas_sync.core.gate.admission import chosen_here, written_here
from atom_saas_sync.core.merge import follow_volatile
from atom_saas_sync.core.plan.conflicts import conflict_with
from atom_saas_sync.core.plan.deletions import settled_deletion
from atom_saas_sync.core.plan.listed import kept_base, settled
from atom_saas_sync.core.plan.sides import Sides, base_of
from atom_saas_sync.core.plan.steps import DECIDED, life_here, logged, restored, served, without_base
from atom_saas_sync.model import (
    Action,
    ConflictEntry,
    LoggedConflict,
    Outcome,
    Resolution,
    SkillState,
    SkillVersion,
)
from atom_saas_sync.model.effects import Effect, Life, MarkDeleted


def plan_resolution(known: SkillState, result: SkillVersion | None, strategy: str, now: datetime) -> Action:
    """Plan a manual resolution of the open conflict: serve `result`; None removes the skill.

    The base becomes the remote version that was compared. Raises ValueError if no conflict is open, the row is gone, or
    a skill is to be removed that the marketplace has.
    """
    sides, waiting = Sides(known), known.waiting
    if waiting is None or known.local_text is None:
        raise ValueError("there is nothing to resolve")
    if waiting.remote_text is None:
        return settled_deletion(sides, Resolution(strategy, None if result is None else result.text))
    remote = sides.waiting_version
    if remote is None or result is None:
        raise ValueError("a skill that the marketplace has can't be resolved to nothing")
    return settled(sides, remote, result, strategy, now, DECIDED)


def plan_undo(known: SkillState, logged_conflict: LoggedConflict) -> Action:
    """Plan to undo a resolution: restore local text and base, and reopen the conflict.

    The remote side is the marketplace's current version. If both sides differ only by the local change, no conflict is
    opened. If the marketplace has deleted the skill, that is recorded again.
    """
    sides, skill_id = Sides(known), known.skill_id
    stored = None if logged_conflict.base_text is None else stored_version(skill_id, logged_conflict.base_text)
    base = None if stored is None else chosen_here(stored)
    remote = None
    if known.base is not None and not known.base.deleted:
        remote = sides.base_version
    text = _with_volatile(logged_conflict, remote)
    if remote is None and base is None:  # a local skill, as before
        return _put_back(sides, text, life_here(sides), without_base(sides, written=True, settles=False))
    if remote is not None and base is not None and remote.content_digest == base.content_digest:
        # The marketplace reverted to the base: only a local edit is left.
        return _put_back(sides, text, life_here(sides), kept_base(sides, text))
    before = SkillState(skill_id, logged_conflict.local_text, base=None if base is None else base_of(base))
    log = logged(skill_id, ConflictEntry(conflict_with(Sides(before), remote), None, logged_conflict.id))
    if base is None:
        return _put_back(sides, text, life_here(sides), [*without_base(sides, written=True, settles=True), *log])
    effects: list[Effect] = [*restored(base, text=text), *log]
    if remote is None:
        effects.append(MarkDeleted(skill_id))
    lives = Life.CONFIRMED if sides.local is None else Life.AS_BEFORE
    return replace(_put_back(sides, text, lives, effects), remote=base)


def _put_back(sides: Sides, text: str, lives: Life, effects: Sequence[Effect]) -> Action:
    return Action(sides.skill_id, Outcome.UPDATED, (served(sides, written_here(text), None, life=lives), *effects))


def _with_volatile(logged_conflict: LoggedConflict, remote: SkillVersion | None) -> str:
    """Return the former local text with the current volatile fields."""
    text = logged_conflict.local_text
    assert text is not None
    local = decode_object(text)
    if local is None or remote is None:
        return text
    return version_from_fields(logged_conflict.skill_id, follow_volatile(local, remote.fields)).text
