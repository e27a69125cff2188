"""What runs and people need of the store for the gate, besides the verbs of `batch.gate` (gate.py)."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from atom_saas_sync.usecases.ports.people import EditBatch

if TYPE_CHECKING:
    from datetime import datetime

    from atom_saas_sync.model import SkillVersion


class DecidingBatch(EditBatch, Protocol):
    """One transaction in which offers are judged and decisions are carried out."""

    def former_versions(self, skill_id: str) -> list[tuple[SkillVersion, bool]]:
        """Return the versions of a skill that were served, the newest first, and whether each is the base.

        Never one that only waited.
        """

    def known_ids(self, skill_ids: Collection[str]) -> set[str]:
        """Return those of these ids of which anything is stored: a row, a base, an offer, a pin, a quarantine."""

    def digests_like(self, digits: str) -> list[bytes]:
        """Return, sorted, the content digests ever seen here that begin with these hexadecimal digits."""

    def ids_to_scan(self) -> list[str]:
        """Return, sorted, the skills whose offer waits for the scan command, which has not seen its digest."""

    def served_ids(self) -> list[str]:
        """Return, sorted, all skills in the cache."""

    def changed_since(self, moment: datetime) -> int:
        """Return of how many skills of the marketplace another version than before was first seen since a moment."""

    def synced(self) -> bool:
        """Tell whether a sync of the skills has ever succeeded."""


class GateStore(Protocol):
    """Opens the transactions of the gate."""

    def deciding(self, *, write: bool = True) -> AbstractContextManager[DecidingBatch]:
        """Open a transaction; without `write` a snapshot, whose changes are not kept."""

    def version(self) -> object:
        """Return a value that differs once another connection has written to the database."""
