"""Local work that exists nowhere else, and what a change of the database would lose of it."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct


class LocalWork(Struct, frozen=True):
    """Local edits by skill, unsent ratings by id, and decisions by number, each with a fingerprint of its content.

    `ratings` and `decisions` start with a line to show; anything may follow.
    """

    edits: Mapping[str, str]
    ratings: Mapping[str, tuple[str, ...]]
    decisions: Mapping[int, tuple[str, ...]]


NO_WORK = LocalWork({}, {}, {})


def lost_work(now: LocalWork, then: LocalWork) -> list[str]:
    """Return a line for each piece of work that exists now but did not exist, or was different, `then`."""
    return [
        *(f"edit: {skill_id}" for skill_id, text in now.edits.items() if then.edits.get(skill_id) != text),
        *(f"rating: {told[0]}" for key, told in now.ratings.items() if then.ratings.get(key) != told),
        *(f"decision: {told[0]}" for key, told in now.decisions.items() if then.decisions.get(key) != told),
    ]
