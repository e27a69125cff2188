"""What the use cases of the gate take and answer. Commands and HTTP routes print these; they decide nothing."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from atom_saas_sync.core.gate.facts import Capabilities

CHANGED, NOT_WAITING, PINNED, REVOKED, DENIED = "changed", "not_waiting", "pinned", "revoked", "denied"
"""Why a decision was refused for a skill (design: trust, section 4)."""


class Target(Struct, frozen=True):
    """A skill that a person decides about; `digest` is what they saw: 12 to 64 lower-case hex digits, None for any."""

    skill_id: str
    digest: str | None = None


class Update(Struct, frozen=True):
    """A version that waits. Without a served version `served_version` and `served_digest` are None.

    `capabilities` is None unless they were asked for.
    """

    skill_id: str
    name: str | None
    publisher: str | None
    served_version: str | None
    offered_version: str | None
    served_digest: bytes | None
    offered_digest: bytes
    exec_changed: bool
    reasons: tuple[str, ...]
    first_seen_at: datetime
    due_at: datetime | None
    note: str | None = None
    capabilities: Capabilities | None = None


class Updates(Struct, frozen=True):
    """Updates that were asked for, and how many there are without the limit."""

    updates: tuple[Update, ...]
    total: int


class ShownUpdate(Struct, frozen=True):
    """One update with its texts; `served_text` is None for a new skill."""

    update: Update
    served_text: str | None
    offered_text: str


class Done(Struct, frozen=True):
    """A skill and the content digest that was decided about."""

    skill_id: str
    digest: bytes


class Refused(Struct, frozen=True):
    """A skill for which nothing was done, and why."""

    skill_id: str
    reason: str


class Decided(Struct, frozen=True):
    """What a decision did: the skills that it holds for, and those for which it was refused."""

    done: tuple[Done, ...]
    refused: tuple[Refused, ...] = ()

    @property
    def success(self) -> bool:
        """Tell whether nothing was refused."""
        return not self.refused


class Rescanned(Struct, frozen=True):
    """What the scan command said: the skills that passed, those that did not with its note, those not asked about."""

    passed: tuple[str, ...]
    failed: tuple[Refused, ...]
    not_scanned: tuple[Refused, ...] = ()


class Quarantining(Struct, frozen=True):
    """Skills that were put into quarantine or released, and those for which it was refused."""

    done: tuple[str, ...]
    refused: tuple[Refused, ...] = ()

    @property
    def success(self) -> bool:
        """Tell whether nothing was refused."""
        return not self.refused
