"""Which skill somebody means by an id, or by its first characters."""

from __future__ import annotations

from collections.abc import Mapping

from atom_saas_sync.errors import Ambiguous

SHORTEST_PREFIX = 4
MOST_CANDIDATES = 10


def choose_id(given: str, current: Mapping[str, str | None], former: Mapping[str, str | None]) -> str:
    """Return the id that `given` means; `given` itself if it is whole, too short, or the beginning of none.

    Args: the ids that begin with `given`, each with its name: those in the cache, and those only of the past, which
    count if no current one fits. Raises Ambiguous if several fit.
    """
    if given in current or given in former or len(given) < SHORTEST_PREFIX:
        return given
    found = current or former
    if len(found) > 1:
        shown = [f"{skill_id} ({name})" if name else skill_id for skill_id, name in found.items()]
        more = ["…"] if len(shown) > MOST_CANDIDATES else []
        raise Ambiguous(
            f"{given!r} is ambiguous, it could be: {', '.join(shown[:MOST_CANDIDATES] + more)}",
            hint="type more of the id",
        )
    return next(iter(found), given)
