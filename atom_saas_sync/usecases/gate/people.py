"""What people decide: each loads, judges and carries it out in one transaction, and answers what it did.

A decision that is refused for one skill leaves the others: the report names it with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from atom_saas_sync.usecases.gate.desk import GateDesk
from atom_saas_sync.usecases.gate.reports import Decided, Quarantining, Rescanned, Target
from atom_saas_sync.usecases.gate.updates import list_updates, show_update, targets_in, targets_of

__all__ = [
    "add_pin",
    "add_revocation",
    "approve",
    "list_updates",
    "quarantine",
    "reject",
    "release",
    "remove_pin",
    "remove_revocation",
    "rescan",
    "show_update",
    "targets_in",
    "targets_of",
]


def approve(desk: GateDesk, targets: Sequence[Target], *, note: str | None, actor: str, now: datetime) -> Decided:
    """Admit exactly these versions and serve them."""
    raise NotImplementedError


def reject(desk: GateDesk, targets: Sequence[Target], *, note: str | None, actor: str, now: datetime) -> Decided:
    """Keep these versions out until they are approved."""
    raise NotImplementedError


def rescan(desk: GateDesk, skill_ids: Sequence[str] | None, *, actor: str, now: datetime) -> Rescanned:
    """Run the scan command again for these waiting versions, None for all that it did not pass; admit what is due."""
    raise NotImplementedError


def add_pin(desk: GateDesk, text: str, *, note: str | None, actor: str, now: datetime) -> Decided:
    """Pin the served version, or the one that `ID@VERSION` or `ID@DIGEST` names, which is put back and approved.

    Raises NotFound if there is no such skill or version, UsageError if several versions match.
    """
    raise NotImplementedError


def remove_pin(desk: GateDesk, skill_ids: Sequence[str], *, actor: str, now: datetime) -> list[str]:
    """Remove pins and return whose they were; the next run acts on it. Raises NotFound for a skill without one."""
    raise NotImplementedError


def add_revocation(
    desk: GateDesk,
    *,
    skill_id: str | None = None,
    version: str | None = None,
    digest: str | None = None,
    publisher: str | None = None,
    note: str | None,
    actor: str,
    now: datetime,
) -> tuple[int, list[str]]:
    """Revoke, and take what it hits out of what is served; return the revocation's id and the skills it hit.

    Raises UsageError unless exactly one of `skill_id`, `digest` and `publisher` is given.
    """
    raise NotImplementedError


def remove_revocation(desk: GateDesk, revocation_ids: Sequence[int], *, actor: str, now: datetime) -> list[int]:
    """Remove revocations that a command added; what they hit stays in quarantine until it is released.

    Raises NotFound for one that does not exist, UsageError for one that the revocations file lists.
    """
    raise NotImplementedError


def quarantine(
    desk: GateDesk, skill_ids: Sequence[str], *, note: str | None, actor: str, now: datetime
) -> Quarantining:
    """Take skills out of what is served, and keep them whole as evidence."""
    raise NotImplementedError


def release(desk: GateDesk, skill_ids: Sequence[str], *, actor: str, now: datetime) -> Quarantining:
    """Put skills back as they were, byte for byte; refused (`revoked`, `denied`) as long as that hits them."""
    raise NotImplementedError
