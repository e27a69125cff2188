"""The gate's part of the store, within the transaction of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol

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
from atom_saas_sync.model import SkillVersion


class GateBatch(Protocol):
    """The gate's part of a batch; it sees what the batch has written so far. Read-only in a snapshot."""

    def evidence(self, versions: Iterable[SkillVersion]) -> dict[str, Evidence]:
        """Return the evidence on each of these versions (at most one per skill), by skill id.

        `first_seen_at` is when this machine first saw the digest of this skill, whatever happened to it since. A skill
        with a base is never a lookalike; of two new skills, the earlier one in the list counts as known first.
        """

    def offers(self, skill_ids: Iterable[str]) -> dict[str, Offer]:
        """Return the held or refused versions of these skills, by id."""

    def waiting(self, *, reason: str | None = None, skill_ids: Sequence[str] | None = None) -> list[WaitingOffer]:
        """Return the waiting versions, optionally for one reason or some skills only, first seen first."""

    def count_waiting(self) -> dict[str, int]:
        """Return the number of waiting updates by reason, without reasons whose number is 0."""

    def ids_to_judge(self, now: datetime, *, everything: bool) -> list[str]:
        """Return the skills whose offer must be judged again (with `everything`, all with an offer), oldest first.

        These are offers that are due by age, whose pin or quarantine is gone, or that passed the scan.
        """

    def put_offers(self, versions: Sequence[Offer], now: datetime) -> None:
        """Store these held or refused versions, one per skill; each replaces the skill's previous offer.

        A replaced version that waited goes into the history as never served; if it is the same version, `offered_at` is
        kept. The versions count as seen from now on. An offer without a page keeps the stored page.
        """

    def drop_offers(self, skill_ids: Sequence[str], now: datetime, *, never_served: bool) -> None:
        """Remove the offers of these skills; with `never_served`, waiting versions go into the history."""

    def decisions(self, skill_ids: Iterable[str] | None = None) -> list[Decision]:
        """Return the decisions on these skills, or on all, oldest first. They outlive the skill.

        With a key, an approval that is not signed with it does not count, here or as evidence.
        """

    def decide(self, decisions: Sequence[Decision]) -> None:
        """Add decisions; the last one for a digest of a skill counts."""

    def pins(self, skill_ids: Iterable[str] | None = None) -> dict[str, Pin]:
        """Return the pins of these skills, or all, by id."""

    def set_pin(self, pin: Pin) -> None:
        """Pin a skill, replacing an earlier pin."""

    def remove_pin(self, skill_id: str) -> bool:
        """Remove a pin; tell whether there was one."""

    def revocations(self) -> Revocations:
        """Return all revocations, oldest first: those added by commands, and the file's last valid list."""

    def add_revocation(self, revocation: Revocation, now: datetime) -> int:
        """Add a revocation and return its id. Ids are never reused."""

    def remove_revocation(self, number: int) -> bool:
        """Remove a revocation that a command added; tell whether there was one."""

    def replace_file_revocations(self, entries: Sequence[Revocation], now: datetime) -> bool:
        """Replace the stored list of the revocations file; tell whether it differs."""

    def revoked_skills(self, revocations: Revocations) -> list[str]:
        """Return, sorted, the cached skills whose text or base matches a revocation, even if the view hides them."""

    def quarantined(self, skill_ids: Iterable[str] | None = None) -> dict[str, Quarantined]:
        """Return the quarantined skills, of these or all, by id."""

    def quarantine(self, entries: Sequence[Quarantined]) -> None:
        """Store skills as evidence, replacing earlier evidence. The cache and the bases are not changed."""

    def release(self, skill_ids: Sequence[str]) -> None:
        """Delete the evidence of these skills. The cache and the bases are not changed."""

    def write_scans(self, results: Sequence[ScanResult]) -> None:
        """Store scan results by digest."""

    def forget_scans(self, digests: Iterable[bytes]) -> None:
        """Delete the scan results of these digests, so that they are scanned again."""

    def adopt(self, now: datetime) -> int:
        """Mark everything that a policy has admitted so far as adopted; return the number of skills."""

    def note_admissions(self, skill_ids: Sequence[str], by: str) -> None:
        """Record that the bases of these skills were admitted by a user, or by adoption."""

    def served_marketplace_skills(self) -> int:
        """Return the number of cached marketplace skills, including edited ones."""

    def write_marks(self, remembered: Marks, now: datetime) -> None:
        """Store these marks; None leaves a mark unchanged."""
