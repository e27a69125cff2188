"""Count admitted, held and refused versions, for a run's report and for the metric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from atom_saas_sync.model import Action, Outcome
from atom_saas_sync.model.effects import EndVersion, SetBase

_ADOPTED = "adopted"


def verdicts_of(actions: Iterable[Action]) -> Counter[tuple[str, str]]:
    """Return the numbers of admitted, held and refused versions by the metric's labels (verdict, by).

    A base with only new volatile fields does not count as admitted: no version ended.
    """
    found: Counter[tuple[str, str]] = Counter()
    for action in actions:
        outcome = action.outcome
        if outcome is Outcome.UNCHANGED:
            continue
        if outcome is Outcome.HELD:
            found["hold", "policy"] += 1
        elif outcome is Outcome.REFUSED:
            found["refuse", "policy"] += 1
        elif (by := _admitted_by(action)) is not None:
            found["admit", by] += 1
    return found


def _admitted_by(action: Action) -> str | None:
    """Return the metric's label for who admitted a new base; None if there is no new base."""
    by, is_new = None, action.outcome is Outcome.ADDED
    for effect in action.effects:
        if isinstance(effect, SetBase):
            by = "policy" if effect.by is None else _ADOPTED if effect.by == _ADOPTED else "person"
        elif isinstance(effect, EndVersion):
            is_new = True
    return by if is_new else None
