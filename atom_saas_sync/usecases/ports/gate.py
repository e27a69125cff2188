"""What the gate needs of the store: what waits, what people decided, and what is in quarantine."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from msgspec import Struct

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
from atom_saas_sync.usecases.ports.people import PersonsBatch


class GateFacts(Struct, frozen=True):
    """What runs have noted about the gate.

    `last_policy` is the policy of the last run that noted one, `judged` the fingerprint of the gate by which all offers
    were last judged, `last_clock` the time of the last run. `anything_stored`: there is a decision, pin, quarantine or
    offer. `synced`: some sync of the skills has succeeded.
    """

    last_policy: str | None
    judged: bytes | None
    last_clock: datetime | None
    anything_stored: bool
    synced: bool


class Waiting(Struct, frozen=True):
    """An offer, and the base of its skill: its text and version, None if there is none."""

    offer: Offer
    base_text: str | None
    base_digest: bytes | None
    base_exec_digest: bytes | None
    base_version: str | None


class Former(Struct, frozen=True):
    """A version of a skill that was served: the base, or one of the history; never one that only waited."""

    version: SkillVersion
    version_key: str
    is_base: bool


class StoredEvidence(Protocol):
    """What the verdict depends on, in a transaction."""

    def evidence(self, versions: Iterable[SkillVersion]) -> dict[str, Evidence]:
        """Return all that is stored about these skills for the verdict on these versions, one of each skill.

        Every skill is in the result.
        """

    def offers(self, skill_ids: Iterable[str]) -> dict[str, Offer]:
        """Return what the marketplace offers of these skills and is not admitted."""


class GateBatch(StoredEvidence, PersonsBatch, Protocol):
    """One transaction in which offers are judged and people's decisions are carried out.

    What changes cached rows, bases, offers or the quarantine goes through `apply`.
    """

    def quarantined(self, skill_ids: Iterable[str]) -> dict[str, Quarantined]:
        """Return what is in quarantine of these skills."""

    def served_matching(self, revocations: Revocations) -> list[str]:
        """Return, sorted, the skills in the cache that a revocation hits: by the cached text or by the base."""

    def served_ids(self) -> list[str]:
        """Return, sorted, all skills in the cache."""

    def former_versions(self, skill_id: str) -> list[Former]:
        """Return the versions of a skill that were served and whose text is kept, the newest first."""

    def write_decision(self, decision: Decision) -> None:
        """Store what a person decided about a digest; the newest decision on it counts."""

    def set_pin(self, pin: Pin) -> None:
        """Pin a skill, in place of its former pin."""

    def remove_pin(self, skill_id: str) -> bool:
        """Remove a pin; return whether there was one."""

    def add_revocation(self, revocation: Revocation) -> int:
        """Store a revocation and return its id. The same one again is not stored twice: its id is returned."""

    def remove_revocation(self, revocation_id: int) -> bool:
        """Remove a revocation; return whether there was one."""

    def replace_file_revocations(self, entries: Sequence[Revocation], now: datetime) -> None:
        """Store these as the last valid list of the revocations file, in place of those before."""

    def put_scans(self, results: Sequence[ScanResult]) -> None:
        """Store what the scan command said of digests, in place of what it said before."""

    def forget_scans(self, digests: Collection[bytes]) -> None:
        """Forget what the scan command said of these digests."""

    def adopt(self, now: datetime) -> int:
        """Note of everything that a policy admitted that it was adopted; return how many skills that are."""

    def note_policy(self, policy: str) -> None:
        """Store the policy of this run."""

    def note_judged(self, fingerprint: bytes) -> None:
        """Store by which gate all offers have been judged."""

    def note_clock(self, now: datetime) -> None:
        """Store the time of this run."""


class GateStore(Protocol):
    """The gate's tables as they are read, and the transaction in which they are changed."""

    def facts(self) -> GateFacts:
        """Return what runs have noted."""

    def revocations(self) -> tuple[Revocation, ...]:
        """Return all revocations, of commands and of the file, the oldest first."""

    def pins(self) -> list[Pin]:
        """Return all pins, sorted by skill."""

    def quarantine(self) -> list[Quarantined]:
        """Return all that is in quarantine, sorted by skill."""

    def known_ids(self, skill_ids: Iterable[str]) -> set[str]:
        """Return those of these ids of which anything is stored: a row, a base, an offer, a pin, a quarantine."""

    def digests_like(self, digits: str) -> list[bytes]:
        """Return, sorted, the content digests ever seen here that begin with these hexadecimal digits."""

    def waiting(
        self,
        *,
        skill_ids: Collection[str] | None = None,
        reason: str | None = None,
        pattern: str | None = None,
        refused: bool = False,
        limit: int | None = None,
    ) -> list[Waiting]:
        """Return the offers that match: what needs a person first, then the first seen first.

        `pattern` is a shell pattern for ids, compared without case. Refused ones do not wait: they are left out unless
        `refused`.
        """

    def count_waiting(self, *, reason: str | None = None, pattern: str | None = None) -> int:
        """Return how many offers `waiting` has without a limit."""

    def waiting_by_reason(self) -> Mapping[str, int]:
        """Return how many offers wait for each reason; refused ones do not wait."""

    def ids_to_judge(self, now: datetime, *, everything: bool) -> list[str]:
        """Return, sorted, the offers to judge again: those that are due, and those whose reason may have gone.

        That is a pin or a quarantine that was removed, and a scan that has a result. With `everything` all offers.
        """

    def ids_to_scan(self) -> list[str]:
        """Return, sorted, the offers that wait for the scan command and whose digest it has not seen."""

    def deciding(self, *, write: bool = True) -> AbstractContextManager[GateBatch]:
        """Open a transaction; without `write` a snapshot, whose changes are not kept."""
