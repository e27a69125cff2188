"""The ids that a database knows, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

Standing = Literal["quarantined", "hold", "refuse"]


class StoredIds(Protocol):
    """Finds ids by their first characters, and names by ids. Prefixes compare by code points."""

    def skills_from(self, prefix: str, *, limit: int) -> tuple[dict[str, str | None], dict[str, str | None]]:
        """Return the ids that begin with `prefix`, each with its name: of cached skills, and of all others ever seen.

        At most `limit` of each, in order, so that the id that is `prefix` itself is always among them.
        """

    def offers_from(self, prefix: str, *, limit: int) -> dict[str, str | None]:
        """Return the ids that begin with `prefix` of versions that wait or were refused; at most `limit`, in order."""

    def ratings_from(self, prefix: str, *, limit: int) -> dict[str, str | None]:
        """Return the ratings' ids that begin with `prefix`, each with its skill's id; at most `limit`, in order."""

    def names(self, ids: Iterable[str]) -> Mapping[str, str]:
        """Return the names of skills, as far as they are known; of one that is gone, that of its kept text."""

    def cached(self) -> list[str]:
        """Return the ids of all cached skills, in order."""

    def standing(self, skill_id: str) -> Standing | None:
        """Return whether a skill is in quarantine, or whether a version of it waits or was refused."""
