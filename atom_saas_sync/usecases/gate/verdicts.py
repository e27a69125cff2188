"""How many versions a run admitted, held and refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from atom_saas_sync.model import Action, Outcome


def verdicts_of(actions: Iterable[Action]) -> Counter[tuple[str, str]]:
    """Return how many versions were admitted, held and refused, by (verdict, by) as the metric has them."""
    found: Counter[tuple[str, str]] = Counter()
    for action in actions:
        if action.outcome is Outcome.HELD:
            found["hold", "policy"] += 1
        elif action.outcome is Outcome.REFUSED:
            found["refuse", "policy"] += 1
        elif action.outcome in {Outcome.ADDED, Outcome.UPDATED} and action.sets_base:
            found["admit", "policy"] += action.admitted_by is None
            found["admit", "person"] += action.admitted_by is not None
    return +found
