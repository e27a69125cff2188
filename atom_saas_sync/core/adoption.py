"""Carry out a resolution that another program, such as the Atom backend, wrote into the conflict log."""

from __future__ import annotations

from atom_saas_sync.core.canonical import stored_version, version_from_fields
from atom_saas_sync.core.gate.admission import chosen_here, written_here
from atom_saas_sync.core.incoming.skills import read_skill
from atom_saas_sync.core.plan.sides import Sides
from atom_saas_sync.core.plan.steps import NAMED, based_on, life_here, served, without_base
from atom_saas_sync.model import Action, InvalidItem, LoggedConflict, Outcome, SkillState, SkillVersion
from atom_saas_sync.model.effects import Admitted, Effect, RemoveServed


def plan_adoption(known: SkillState, logged: LoggedConflict) -> Action | None:
    """Plan a resolution that another program wrote; None if there is nothing to do.

    The base becomes the remote version of the row. The cache gets the result only if it still holds the local version
    of the row; a result that is not this skill is ignored. With `remote_wins`, a skill that the marketplace deleted is
    removed; otherwise it stays without a base.
    """
    if known.local_text is None or (known.waiting is not None and known.waiting.id > logged.id):
        return None
    sides = Sides(known)
    untouched = _is_version(known, logged.local_text)
    result = _result(logged) if untouched else None
    if logged.remote_text is None:
        if logged.strategy == "remote_wins" and untouched:
            effects = RemoveServed(known.skill_id), *without_base(sides, written=False, settles=False)
            return Action(known.skill_id, Outcome.DELETED, effects)
        return _write(sides, result, None)
    stored = stored_version(known.skill_id, logged.remote_text)
    if stored is None:
        return None
    remote = chosen_here(stored)
    if result is not None and result.content_digest == remote.content_digest:
        result = remote
    return _write(sides, result, remote)


def _write(sides: Sides, result: SkillVersion | None, remote: Admitted | None) -> Action:
    known = sides.known
    assert known.local_text is not None
    text = known.local_text if result is None or _is_version(known, result.text) else result.text
    written = text != known.local_text
    effects: list[Effect] = [served(sides, written_here(text), None, life=life_here(sides))] if written else []
    if remote is None:
        effects += without_base(sides, written=written, settles=False)
    else:
        effects += based_on(sides, remote, NAMED, text=text, settles=False)
    return Action(known.skill_id, Outcome.UPDATED if written else Outcome.UNCHANGED, tuple(effects), remote)


def _is_version(known: SkillState, text: str | None) -> bool:
    """Tell whether the cache holds this version, apart from volatile fields."""
    here = None if known.local_text is None else stored_version(known.skill_id, known.local_text)
    there = None if text is None else stored_version(known.skill_id, text)
    if here is None or there is None:
        return text is not None and known.local_text == text
    return here.content_digest == there.content_digest


def _result(logged: LoggedConflict) -> SkillVersion | None:
    if logged.result_text is None:
        return None
    skill = read_skill(logged.result_text.encode(errors="replace"))
    if isinstance(skill, InvalidItem) or skill.skill_id != logged.skill_id:
        return None
    return version_from_fields(logged.skill_id, skill.fields)
