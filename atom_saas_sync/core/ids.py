"""Resolving an id, or its first characters, to a skill."""

from __future__ import annotations

from collections.abc import Mapping

from atom_saas_sync.errors import Ambiguous

SHORTEST_PREFIX = 4
MOST_CANDIDATES = 10


def choose_id(given: str, current: Mapping[str, str | None], former: Mapping[str, str | None]) -> str:
    """Return the id that `given` abbreviates; `given` itself if it is complete, too short, or matches none.

    Args: the ids that begin with `given`, each with its name: those in the cache, and former ones, which count if no
    current one matches. Raises Ambiguous if several match.
    """
    if given in current or given in former or len(given) < SHORTEST_PREFIX:
        return given
    found = current or former
    if len(found) > 1:
        shown = [f"{skill_id} ({name})" if name else skill_id for skill_id, name in found.items()]
        more = ["…"] if len(shown) > MOST_CANDIDATES else []
        raise Ambiguous(
            f"{given!r} is ambiguous, it could be: {', '.join(shown[:MOST_CANDIDATES] + more)}",
            hint="type more characters of the id",
        )
    return next(iter(found), given)
