"""What was done here and exists nowhere else, and what of it a change of the database would lose."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct


class LocalWork(Struct, frozen=True):
    """Local edits by skill, unsent ratings by their id, and decisions by number, each with what tells it from another.

    `ratings` and `decisions` begin with a line for people, after which anything may follow.
    """

    edits: Mapping[str, str]
    ratings: Mapping[str, tuple[str, ...]]
    decisions: Mapping[int, tuple[str, ...]]


NO_WORK = LocalWork({}, {}, {})


def lost_work(now: LocalWork, then: LocalWork) -> list[str]:
    """Return a line for each piece of work that is there now, and not, or in another form, `then`."""
    return [
        *(f"edit: {skill_id}" for skill_id, text in now.edits.items() if then.edits.get(skill_id) != text),
        *(f"rating: {told[0]}" for key, told in now.ratings.items() if then.ratings.get(key) != told),
        *(f"decision: {told[0]}" for key, told in now.decisions.items() if then.decisions.get(key) != told),
    ]
