"""What verifying needs from the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from atom_saas_sync.core.gate.lock_file import ServedText
from atom_saas_sync.core.gate.stored import ServedSkill
from atom_saas_sync.core.gate.types import Quarantined, Revocations


class ServedSnapshot(Protocol):
    """One snapshot of what is served."""

    def revocations(self) -> Revocations:
        """Return all revocations: those added by commands, and the file's last valid list."""

    def revoked_skills(self, revocations: Revocations) -> list[str]:
        """Return, sorted, the cached skills whose text or base matches a revocation."""

    def quarantined(self, skill_ids: Sequence[str]) -> dict[str, Quarantined]:
        """Return the quarantined ones of these skills, by id."""

    def served(self, skill_ids: Sequence[str] | None) -> Iterator[ServedSkill]:
        """Yield the cached rows of these skills, or all, in any order.

        Includes rows that the view hides, except those that the marketplace has deleted.
        """


class StoredServing(Protocol):
    """Opens the snapshot in which served skills are verified."""

    def snapshot(self) -> AbstractContextManager[ServedSnapshot]:
        """Open a snapshot; it takes no lock."""

    def texts(self) -> Iterator[ServedText]:
        """Yield all that readers get, in one snapshot, in any order."""
