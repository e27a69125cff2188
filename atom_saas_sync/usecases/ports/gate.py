"""What is stored for the gate, and what it writes, within the transaction of a batch."""

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
    """The gate's part of a batch: it sees what the batch has written so far. A snapshot only reads."""

    def anything_stored(self) -> bool:
        """Tell whether there is an offer, a decision, a pin or something in quarantine.

        If not, and the policy is open, no verb of the gate has anything to say.
        """

    def evidence(self, versions: Iterable[SkillVersion]) -> dict[str, Evidence]:
        """Return the evidence on these versions, at most one of a skill, by its id; none is left out.

        First sight is when this machine first saw the digest of this skill, however long ago and whatever became of it.
        A skill with a base looks like nobody else; of others, the first of the list is known before the next.
        """

    def offers(self, skill_ids: Iterable[str]) -> dict[str, Offer]:
        """Return what waits or was refused of these skills, by id."""

    def waiting(self, *, reason: str | None = None, skill_ids: Sequence[str] | None = None) -> list[WaitingOffer]:
        """Return what waits, also for one reason or of some skills only, the oldest first sight first."""

    def count_waiting(self) -> dict[str, int]:
        """Return how many updates wait, by reason; reasons that nothing waits for are left out."""

    def ids_to_judge(self, now: datetime, *, everything: bool) -> list[str]:
        """Return the skills whose offer must be judged again, with `everything` all that have one, the oldest first.

        That is if it is due by age, if the pin or the quarantine that held it is gone, or if it passed the scan.
        """

    def put_offers(self, versions: Sequence[Offer], now: datetime) -> None:
        """Let these versions wait, or remember that they are refused; one of a skill, in place of what was there.

        Another version that waited goes into the history as never served. The same one keeps `offered_at`. From now on
        the versions count as seen. An offer without a page keeps the page that is stored.
        """

    def drop_offers(self, skill_ids: Sequence[str], now: datetime, *, never_served: bool) -> None:
        """Let nothing wait of these skills; with `never_served` what waited goes into the history."""

    def decisions(self, skill_ids: Iterable[str] | None = None) -> list[Decision]:
        """Return the decisions on these skills, or on all, the oldest first. They outlive the skill.

        With a key, an approval that is not signed with it does not count, here or as evidence.
        """

    def decide(self, decisions: Sequence[Decision]) -> None:
        """Add decisions; of one digest of a skill the last counts."""

    def pins(self, skill_ids: Iterable[str] | None = None) -> dict[str, Pin]:
        """Return the pins of these skills, or all, by id."""

    def set_pin(self, pin: Pin) -> None:
        """Pin a skill, in place of an earlier pin."""

    def remove_pin(self, skill_id: str) -> bool:
        """Remove a pin; tell whether there was one."""

    def revocations(self) -> Revocations:
        """Return all revocations, the oldest first: those of the command, and the file's last valid list."""

    def add_revocation(self, revocation: Revocation, now: datetime) -> int:
        """Add a revocation and return its id. Ids are never used again."""

    def remove_revocation(self, number: int) -> bool:
        """Remove a revocation that a command added; tell whether there was one."""

    def replace_file_revocations(self, entries: Sequence[Revocation], now: datetime) -> bool:
        """Store what the revocations file lists, in place of its last list; tell whether it differs."""

    def revoked_skills(self, revocations: Revocations) -> list[str]:
        """Return, sorted, the cached skills of which the text or the base matches, whatever readers see of them."""

    def quarantined(self, skill_ids: Iterable[str] | None = None) -> dict[str, Quarantined]:
        """Return what is in quarantine of these skills, or all, by id."""

    def quarantine(self, entries: Sequence[Quarantined]) -> None:
        """Keep skills as evidence, in place of what was kept of them; the cache and the bases stay as they are."""

    def release(self, skill_ids: Sequence[str]) -> None:
        """Forget what was kept of these skills; the cache and the bases stay as they are."""

    def write_scans(self, results: Sequence[ScanResult]) -> None:
        """Remember what the scan command said of digests."""

    def forget_scans(self, digests: Iterable[bytes]) -> None:
        """Let the scan command be asked about these digests again."""

    def adopt(self, now: datetime) -> int:
        """Note that what a policy has admitted so far is adopted; return how many skills."""

    def note_admissions(self, skill_ids: Sequence[str], by: str) -> None:
        """Note that the bases of these skills were admitted by a person, or by adoption."""

    def served_marketplace_skills(self) -> int:
        """Return how many skills of the marketplace are cached, edited ones too."""

    def marks(self) -> Marks:
        """Return what was remembered last. What another program wrote there counts as nothing."""

    def write_marks(self, remembered: Marks, now: datetime) -> None:
        """Remember these; what is None stays as it is."""
