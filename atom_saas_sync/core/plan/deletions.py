"""The plan for a skill that the marketplace has deleted (docs/CONFLICTS.md)."""

from __future__ import annotations

from atom_saas_sync.core.gate.admission import written_here
from atom_saas_sync.core.plan.conflicts import closing, conflict_with, replaced_forgery
from atom_saas_sync.core.plan.sides import Sides
from atom_saas_sync.core.plan.steps import ended, life_here, logged, served, without_base
from atom_saas_sync.model import Action, ConflictEntry, Outcome, Resolution, SkillState, Strategy
from atom_saas_sync.model.effects import Effect, MarkDeleted, RemoveServed


def plan_deleted(known: SkillState, strategy: Strategy) -> Action | None:
    """Plan for a skill whose deletion the marketplace has confirmed; None if there is nothing to do."""
    sides, base, waiting = Sides(known), known.base, known.waiting
    if base is None:
        if waiting is None:
            return None  # a local skill: no sync deletes it
        # It was local, appeared remotely, and was deleted there again: it is local.
        entry = closing(sides, None, known.local_text)
        return Action(known.skill_id, Outcome.UNCHANGED, tuple(logged(known.skill_id, entry)))
    if known.local_text is None or not sides.is_edited:
        return _gone(sides, closing(sides, None, None) or replaced_forgery(sides, None))
    if waiting is not None and waiting.reopened:
        strategy = "manual"
    if strategy == "manual":
        if base.deleted and waiting is not None and waiting.remote_text is None:
            return None  # already open
        entry = ConflictEntry(conflict_with(sides, None), None, sides.waiting_id)
        effects = [
            MarkDeleted(known.skill_id),
            *ended(sides, "deleted", settles=True),
            *logged(known.skill_id, entry),
        ]
        return Action(known.skill_id, Outcome.UNCHANGED, tuple(effects))
    result = None if strategy == "remote_wins" else known.local_text
    return settled_deletion(sides, Resolution(strategy, result, replaces_edit=result is None))


def settled_deletion(sides: Sides, resolution: Resolution) -> Action:
    """Remove a skill that was deleted remotely and changed locally, or keep it as a local skill."""
    entry = ConflictEntry(conflict_with(sides, None), resolution, sides.waiting_id)
    text = resolution.result_text
    if text is None:
        return _gone(sides, entry)
    written = text != sides.known.local_text
    effects: list[Effect] = [served(sides, written_here(text), None, life=life_here(sides))] if written else []
    effects += [*without_base(sides, written=written, settles=True), *logged(sides.skill_id, entry)]
    return Action(sides.skill_id, Outcome.UPDATED if written else Outcome.UNCHANGED, tuple(effects))


def _gone(sides: Sides, entry: ConflictEntry | None) -> Action:
    effects = (
        RemoveServed(sides.skill_id),
        *without_base(sides, written=False, settles=entry is not None),
        *logged(sides.skill_id, entry),
    )
    return Action(sides.skill_id, Outcome.DELETED, effects)
