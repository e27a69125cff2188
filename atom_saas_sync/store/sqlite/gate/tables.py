"""The gate's part of the store (usecases/ports/gate.py), within one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime

from atom_saas_sync.core.gate.stored import Marks, WaitingOffer
from atom_saas_sync.core.gate.types import (
    Decision,
    Evidence,
    Offer,
    Pin,
    Quarantined,
    Revocation,
    Revocations,
    ScanResult,
)
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import SkillVersion
from atom_saas_sync.store.sqlite.gate import evidence, marks, offers, people, serving


class GateTables:
    """Reads and writes the gate's tables; the cache and the bases are written elsewhere."""

    def __init__(self, connection: sqlite3.Connection, *, history_versions: int, signer: Signer | None = None) -> None:
        """Use the open transaction of `connection`; keep `history_versions` texts of a skill that were never served.

        With a `signer`, decisions are signed, and approvals without its signature do not count.
        """
        self._signer = signer
        self._connection = connection
        self._history_versions = history_versions

    def evidence(self, versions: Iterable[SkillVersion]) -> dict[str, Evidence]:
        """Return the evidence on these versions, one per skill, by skill id."""
        return evidence.evidence(self._connection, list(versions), self._signer)

    def offers(self, skill_ids: Iterable[str]) -> dict[str, Offer]:
        """Return the held or refused versions of these skills, by id."""
        return offers.offers(self._connection, skill_ids)

    def waiting(self, *, reason: str | None = None, skill_ids: Sequence[str] | None = None) -> list[WaitingOffer]:
        """Return the waiting versions, oldest first, each with the served one."""
        return offers.waiting(self._connection, reason=reason, skill_ids=skill_ids)

    def count_waiting(self) -> dict[str, int]:
        """Return the number of waiting updates by reason."""
        return offers.count_waiting(self._connection)

    def ids_to_judge(self, now: datetime, *, everything: bool) -> list[str]:
        """Return the skills whose offer is due, or all with an offer, oldest first."""
        return offers.ids_to_judge(self._connection, now, everything=everything)

    def put_offers(self, versions: Sequence[Offer], now: datetime) -> None:
        """Store offers; each replaces the skill's previous offer."""
        offers.put_offers(self._connection, versions, now, history_versions=self._history_versions)

    def drop_offers(self, skill_ids: Sequence[str], now: datetime, *, never_served: bool) -> None:
        """Remove the offers of these skills."""
        kept = self._history_versions if never_served else 0
        offers.drop_offers(self._connection, skill_ids, now, history_versions=kept)

    def decisions(self, skill_ids: Iterable[str] | None = None) -> list[Decision]:
        """Return the decisions on these skills, or on all, oldest first."""
        return people.decisions(self._connection, skill_ids, self._signer)

    def decide(self, decisions: Sequence[Decision]) -> None:
        """Add decisions."""
        people.write_decisions(self._connection, decisions, self._signer)

    def pins(self, skill_ids: Iterable[str] | None = None) -> dict[str, Pin]:
        """Return the pins of these skills, or all, by id."""
        return people.pins(self._connection, skill_ids)

    def set_pin(self, pin: Pin) -> None:
        """Pin a skill, replacing an earlier pin."""
        people.set_pin(self._connection, pin)

    def remove_pin(self, skill_id: str) -> bool:
        """Remove a pin; tell whether there was one."""
        return people.remove_pin(self._connection, skill_id)

    def revocations(self) -> Revocations:
        """Return all revocations, oldest first."""
        return Revocations(tuple(people.revocations(self._connection)))

    def add_revocation(self, revocation: Revocation, now: datetime) -> int:
        """Add a revocation and return its id."""
        return people.add_revocation(self._connection, revocation, now)

    def remove_revocation(self, number: int) -> bool:
        """Remove a revocation that a command added; tell whether there was one."""
        return people.remove_revocation(self._connection, number)

    def replace_file_revocations(self, entries: Sequence[Revocation], now: datetime) -> bool:
        """Replace the stored list of the revocations file; tell whether it differs."""
        return people.replace_file_revocations(self._connection, entries, now)

    def revoked_skills(self, revocations: Revocations) -> list[str]:
        """Return, sorted, the cached skills whose text or base is revoked."""
        return serving.revoked_skills(self._connection, revocations)

    def quarantined(self, skill_ids: Iterable[str] | None = None) -> dict[str, Quarantined]:
        """Return the quarantined skills, of these or all, by id."""
        return people.quarantined(self._connection, skill_ids)

    def quarantine(self, entries: Sequence[Quarantined]) -> None:
        """Store skills as evidence."""
        people.quarantine(self._connection, entries)

    def release(self, skill_ids: Sequence[str]) -> None:
        """Delete the evidence of these skills."""
        people.release(self._connection, skill_ids)

    def write_scans(self, results: Sequence[ScanResult]) -> None:
        """Store scan results."""
        people.write_scans(self._connection, results)

    def forget_scans(self, digests: Iterable[bytes]) -> None:
        """Delete the scan results of these digests, so that they are scanned again."""
        people.forget_scans(self._connection, digests)

    def adopt(self, now: datetime) -> int:
        """Mark everything that a policy admitted so far as adopted; return the number of skills."""
        return serving.adopt(self._connection, now)

    def note_admissions(self, skill_ids: Sequence[str], by: str) -> None:
        """Record who admitted the bases of these skills."""
        serving.note_admissions(self._connection, skill_ids, by)

    def served_marketplace_skills(self) -> int:
        """Return the number of served marketplace skills."""
        return serving.served_marketplace_skills(self._connection)

    def write_marks(self, remembered: Marks, now: datetime) -> None:
        """Store these marks."""
        marks.write_marks(self._connection, remembered, now)
