"""What verifying needs of the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from atom_saas_sync.core.gate.stored import ServedSkill
from atom_saas_sync.core.gate.types import Quarantined, Revocations


class ServedSnapshot(Protocol):
    """One snapshot of what is served."""

    def revocations(self) -> Revocations:
        """Return all revocations, of commands and of the file's last valid list."""

    def revoked_skills(self, revocations: Revocations) -> list[str]:
        """Return, sorted, the cached skills of which the text or the base matches."""

    def quarantined(self, skill_ids: Sequence[str]) -> dict[str, Quarantined]:
        """Return what is in quarantine of these skills, by id."""

    def served(self, skill_ids: Sequence[str] | None) -> Iterator[ServedSkill]:
        """Yield what is in the cache of these skills, or all of it, in any order.

        That includes what readers of the view do not get, but not what the marketplace has deleted.
        """


class StoredServing(Protocol):
    """Opens the snapshot in which served skills are verified."""

    def snapshot(self) -> AbstractContextManager[ServedSnapshot]:
        """Open a snapshot; it takes no lock."""
