"""Arguments and results of the gate's use cases, which commands and HTTP routes print."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from atom_saas_sync.core.gate.facts import Capabilities

CHANGED, NOT_WAITING = "changed", "not_waiting"
"""Why a decision was refused for a skill."""


class Target(Struct, frozen=True):
    """A skill to decide about; `digest`: 12 to 64 lower-case hex digits of the version seen, None for any."""

    skill_id: str
    digest: str | None = None


class Update(Struct, frozen=True):
    """A waiting version.

    `served_version` and `served_digest` are None if nothing is served, `capabilities` unless requested.
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
    """The requested updates, and their number without the limit."""

    updates: tuple[Update, ...]
    total: int


class ShownUpdate(Struct, frozen=True):
    """One update with its texts; `served_text` is None for a new skill."""

    update: Update
    served_text: str | None
    offered_text: str


class Done(Struct, frozen=True):
    """A skill and the content digest of the decided version."""

    skill_id: str
    digest: bytes


class Refused(Struct, frozen=True):
    """A skill for which the decision was refused, and why."""

    skill_id: str
    reason: str


class Decided(Struct, frozen=True):
    """The result of a decision: the skills it applies to, and those for which it was refused."""

    done: tuple[Done, ...]
    refused: tuple[Refused, ...] = ()

    @property
    def success(self) -> bool:
        """Tell whether nothing was refused."""
        return not self.refused


class Rescanned(Struct, frozen=True):
    """Results of the scan command: passed skills, failed skills with its note, and skills not scanned."""

    passed: tuple[str, ...]
    failed: tuple[Refused, ...]
    not_scanned: tuple[Refused, ...] = ()


class Quarantining(Struct, frozen=True):
    """Skills that were quarantined or released, and those for which that was refused."""

    done: tuple[str, ...]
    refused: tuple[Refused, ...] = ()

    @property
    def success(self) -> bool:
        """Tell whether nothing was refused."""
        return not self.refused
