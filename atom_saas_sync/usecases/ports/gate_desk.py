"""What runs and users need from the store for the gate, besides the methods of `batch.gate` (gate.py)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from atom_saas_sync.usecases.ports.people import EditBatch

if TYPE_CHECKING:
    from datetime import datetime

    from atom_saas_sync.core.gate.facts import Fact
    from atom_saas_sync.core.gate.stored import GateState
    from atom_saas_sync.model import SkillVersion


class DecidingBatch(EditBatch, Protocol):
    """One transaction in which offers are judged and decisions are applied."""

    def former_versions(self, skill_id: str) -> list[tuple[SkillVersion, bool]]:
        """Return the versions of a skill that were served, newest first, and whether each is the base.

        Never one that only waited.
        """

    def known_ids(self, skill_ids: Collection[str]) -> set[str]:
        """Return those of these ids that have a row, a base, an offer, a pin or a quarantine entry."""

    def digests_like(self, digits: str) -> list[bytes]:
        """Return, sorted, the content digests ever seen here with this hexadecimal prefix."""

    def ids_to_scan(self) -> list[str]:
        """Return, sorted, the skills whose offer waits for a scan, without a stored result."""

    def served_ids(self) -> list[str]:
        """Return, sorted, all skills in the cache."""

    def kept_facts(self, digests: Collection[bytes]) -> dict[bytes, frozenset[Fact]]:
        """Return the stored capabilities by content digest; those that are not stored are absent.

        Those that another version of this program stored count as not stored.
        """

    def keep_facts(self, found: Mapping[bytes, frozenset[Fact]]) -> None:
        """Store capabilities by content digest; those of versions neither offered nor admitted last may be dropped."""

    def changed_since(self, moment: datetime, *, executable: bool) -> int:
        """Return the number of marketplace skills with a new version first seen since `moment`.

        With `executable`, only of versions whose exec digest differs from the former version's.
        """


class GateStore(Protocol):
    """Opens the transactions of the gate."""

    def deciding(self, *, write: bool = True) -> AbstractContextManager[DecidingBatch]:
        """Open a transaction; without `write`, a snapshot whose changes are discarded."""

    def state(self) -> GateState:
        """Return what the gate of a run is loaded from. Invalid marks from other programs count as absent."""

    def version(self) -> object:
        """Return a value that changes when another connection writes to the database."""
