"""Plans for local changes: editing, reverting to the marketplace's version, removing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atom_saas_sync.core.canonical import version_from_fields
from atom_saas_sync.core.gate.admission import text_of, written_here
from atom_saas_sync.core.merge import follow_volatile
from atom_saas_sync.core.plan.conflicts import fields_of
from atom_saas_sync.core.plan.listed import kept_base
from atom_saas_sync.core.plan.sides import Sides
from atom_saas_sync.core.plan.steps import life_here, restored, served
from atom_saas_sync.model import Action, Outcome, SkillState
from atom_saas_sync.model.effects import Admitted, Life, RemoveServed


def plan_edit(known: SkillState, fields: Mapping[str, Any]) -> Action | None:
    """Plan an edit; None if it changes nothing that users can change.

    Volatile fields follow the marketplace: the cached text of an edited skill has the newest ones.
    """
    sides = Sides(known)
    base = sides.base_version
    newest = fields_of(sides.local) or (None if base is None else base.fields)
    followed = fields if base is None or newest is None else follow_volatile(fields, newest)
    edited = version_from_fields(known.skill_id, followed)
    if sides.local is not None and sides.local.content_digest == edited.content_digest:
        return None
    if base is not None and base.content_digest == edited.content_digest and known.waiting is None:
        return plan_revert(known, base)
    outcome = Outcome.ADDED if known.local_text is None else Outcome.UPDATED
    write = served(sides, written_here(edited.text), edited.fields, life=life_here(sides))
    return Action(known.skill_id, outcome, (write, *kept_base(sides, edited.text)))


def plan_revert(known: SkillState, base: Admitted) -> Action:
    """Plan to revert to the marketplace's version."""
    sides = Sides(known)
    lives = Life.CONFIRMED if sides.local is None else Life.AS_BEFORE
    effects = served(sides, text_of(base), base.fields, life=lives), *restored(base, text=base.text)
    return Action(base.skill_id, Outcome.UPDATED, effects, base)


def plan_removal(skill_id: str) -> Action:
    """Plan to remove a local skill."""
    return Action(skill_id, Outcome.DELETED, (RemoveServed(skill_id),))
