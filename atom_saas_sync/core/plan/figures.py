"""Plan for the response to a rating, which has the skill's average and number of ratings."""

from __future__ import annotations

from atom_saas_sync.core.gate.admission import with_figures
from atom_saas_sync.core.plan.sides import Sides, StoredText
from atom_saas_sync.model import Action, Outcome, RatingReceipt, SkillState
from atom_saas_sync.model.effects import Effect, ReadAgain, ReadPageAgain, RefreshBase, RefreshFigures, Servable


def plan_figures(known: SkillState, receipt: RatingReceipt) -> Action:
    """Plan to write a receipt's figures into the cached skill, and into its base if stored separately.

    Responses, messages and polls may overtake each other, so the next poll reads the skill again even if its bytes are
    unchanged.
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


def _with_figures(side: StoredText | None, figures: dict[str, float]) -> Servable | None:
    if side is None or side.fields is None:
        return None
    return with_figures(side.fields, {**side.fields, **figures})
