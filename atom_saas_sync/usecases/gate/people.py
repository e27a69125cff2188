"""What people decide: each loads, judges and carries it out in one transaction, and answers what it did.

A decision that is refused for one skill leaves the others: the report names it with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from atom_saas_sync.usecases.gate.reports import Decided, Quarantining, Rescanned, ShownUpdate, Target, Updates


class GateDesk(Protocol):
    """What people's decisions need: the policy in force, the store, and the scan command."""


def list_updates(
    desk: GateDesk,
    *,
    reason: str | None = None,
    pattern: str | None = None,
    limit: int | None = None,
    capabilities: bool = False,
) -> Updates:
    """Return what waits, the reasons that need a person first, then the oldest.

    `pattern` is a shell pattern for ids, compared without case. Raises UsageError for an unknown reason.
    """
    raise NotImplementedError


def show_update(desk: GateDesk, skill_id: str) -> ShownUpdate:
    """Return what waits of one skill, with capabilities. Raises NotFound if nothing does."""
    raise NotImplementedError


def targets_of(desk: GateDesk, texts: Sequence[str]) -> list[Target]:
    """Return what `ID` or `ID@DIGEST`, as typed, names; the text is cut at its last `@` if the whole is not an id.

    Raises UsageError for a digest that is not one.
    """
    raise NotImplementedError


def targets_in(document: bytes, *, name: str) -> list[Target]:
    """Return the skills and digests of a document of `updates list --json`. Raises UsageError if it is not one."""
    raise NotImplementedError


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
