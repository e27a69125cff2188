"""The plan for what an answer to a rating says of a skill: its average and the number of its ratings."""

from __future__ import annotations

from atom_saas_sync.core.canonical import json_text
from atom_saas_sync.core.plan.sides import Sides, StoredText
from atom_saas_sync.model import Action, Outcome, RatingReceipt, SkillState
from atom_saas_sync.model.effects import Effect, ReadAgain, ReadPageAgain, RefreshBase, RefreshFigures


def plan_figures(known: SkillState, receipt: RatingReceipt) -> Action:
    """Plan to show a receipt's figures in the cached skill, and in its base too, if that is kept apart.

    Answers overtake each other, and messages and polls overtake them: the next poll reads the skill anew, even if its
    bytes are those of last time.
    """
    sides, skill_id = Sides(known), known.skill_id
    figures = {"average_rating": receipt.average, "rating_count": receipt.count}
    news = {name: value for name, value in figures.items() if value is not None}
    effects: list[Effect] = []
    if news:
        if (text := _with_figures(sides.local, news)) is not None:
            effects.append(RefreshFigures(skill_id, text))
        if not sides.is_untouched and (text := _with_figures(sides.base, news)) is not None:
            effects.append(RefreshBase(skill_id, text))
        if known.base is not None:
            effects += [ReadAgain(skill_id), ReadPageAgain(skill_id)]
    return Action(skill_id, Outcome.UNCHANGED, tuple(effects))


def _with_figures(side: StoredText | None, figures: dict[str, float]) -> str | None:
    if side is None or side.fields is None:
        return None
    return json_text({**side.fields, **figures})
