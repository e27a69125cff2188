"""The ids that a database knows, with their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

Standing = Literal["quarantined", "hold", "refuse"]


class StoredIds(Protocol):
    """Finds ids by prefix, and names by id. Prefixes are compared by code points."""

    def skills_from(self, prefix: str, *, limit: int) -> tuple[dict[str, str | None], dict[str, str | None]]:
        """Return the ids with this prefix, each with its name: those of cached skills, and all others ever seen.

        At most `limit` of each, in order, so that the id that is `prefix` itself is always among them.
        """

    def offers_from(self, prefix: str, *, limit: int) -> dict[str, str | None]:
        """Return the ids with this prefix that have an offer; at most `limit`, in order."""

    def ratings_from(self, prefix: str, *, limit: int) -> dict[str, str | None]:
        """Return the rating ids with this prefix, each with its skill's id; at most `limit`, in order."""

    def names(self, ids: Iterable[str]) -> Mapping[str, str]:
        """Return the known names of skills, by id; the name of a deleted skill comes from its stored text."""

    def cached(self) -> list[str]:
        """Return the ids of all cached skills, in order."""

    def standing(self, skill_id: str) -> Standing | None:
        """Return whether a skill is in quarantine, or has a held or refused version."""
