"""Findings about the database and its disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from shlex import quote

from atom_saas_sync.characters import counted, short_id
from atom_saas_sync.core.diagnosis.findings import DoctorFinding, DoctorSettings
from atom_saas_sync.core.health import is_of_other_marketplace
from atom_saas_sync.core.incoming.fields import name_problem
from atom_saas_sync.errors import AtomSyncError
from atom_saas_sync.model import Status

_IDS_NAMED = 5


def broken(check: str, error: AtomSyncError) -> DoctorFinding:
    """Return the finding of a check that could not read or write the database."""
    return DoctorFinding(check, "problem", error.message, error.hint or "`atom-sync db check` shows more")


def disk(free_gb: float, plan: DoctorSettings) -> DoctorFinding:
    """Compare the free space with its minimum."""
    if free_gb < plan.min_free_disk_gb:
        return DoctorFinding(
            "disk",
            "problem",
            f"{free_gb:.1f} GB are free, less than {plan.min_free_disk_gb:g} GB",
            "free some space, or lower ATOM_SYNC_MIN_FREE_DISK_GB: `df -h` shows the file systems",
        )
    return DoctorFinding("disk", "ok", f"{free_gb:.1f} GB are free")


def revision(status: Status, *, is_writable: bool) -> Iterator[DoctorFinding]:
    """Check that there is a database without pending migrations; why it is not writable is a finding of its own."""
    readable = "it is readable and writable" if is_writable else "it is readable"
    yield DoctorFinding("database", "ok", readable if status.revision else "it does not exist yet")
    if status.revision is not None and status.migrations_pending:
        yield DoctorFinding(
            "migrations",
            "problem",
            f"the database is at {status.revision}: migrations are pending",
            "`atom-sync db upgrade`",
        )
    elif status.revision is not None:
        yield DoctorFinding("migrations", "ok", f"all are applied, up to {status.revision}")


def ids(skill_ids: Sequence[str]) -> Iterator[DoctorFinding]:
    """List stored skill ids that a new skill may not have."""
    odd = [(skill_id, problem) for skill_id in skill_ids if (problem := name_problem(skill_id))]
    if odd:
        named = ", ".join(f"{short_id(skill_id)!a} ({problem})" for skill_id, problem in odd[:_IDS_NAMED])
        more = f" and {len(odd) - _IDS_NAMED} more" if len(odd) > _IDS_NAMED else ""
        yield DoctorFinding(
            "ids",
            "warning",
            f"ids that could be mistaken for others: {named}{more}",
            "they are still synced; `atom-sync skills show ID` shows each skill",
        )


def integrity(tampered: int, unsigned: int) -> DoctorFinding:
    """Check the numbers of skills that were tampered with or are not signed."""
    if tampered:
        return DoctorFinding(
            "integrity",
            "problem",
            f"{counted(tampered, 'skill is', 'skills are')} not what the marketplace sent, but count as such",
            "find out who writes to the database; `atom-sync db check` names them, `atom-sync sync skills --force` "
            "restores the marketplace's text",
        )
    if unsigned:
        return DoctorFinding(
            "integrity",
            "warning",
            f"{counted(unsigned, 'skill is', 'skills are')} not signed with the key",
            "`atom-sync sync skills --force` fetches and signs them",
        )
    return DoctorFinding("integrity", "ok", "every marketplace skill is as it was sent")


def other_marketplace(plan: DoctorSettings, status: Status) -> Iterator[DoctorFinding]:
    """Check that the database belongs to the configured marketplace."""
    if plan.enabled and is_of_other_marketplace(status, plan.api_url):
        yield DoctorFinding(
            "marketplace",
            "problem",
            f"the database belongs to {status.marketplace}, but ATOM_SAAS_API_URL is {plan.api_url}: syncs are refused",
            f"set ATOM_SAAS_DATABASE_URL to another database; or `atom-sync db rebind {quote(plan.api_url)}` shows "
            "what would change in this one, and asks",
        )
