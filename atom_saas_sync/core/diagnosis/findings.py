"""What `doctor` needs to know, and what it finds."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

Verdict = Literal["ok", "warning", "problem", "skipped"]


class DoctorFinding(Struct, frozen=True):
    """What one check found, and, unless all is well, what to do and the command to run."""

    check: str
    verdict: Verdict
    message: str
    hint: str | None = None
    reason: str | None = None
    """The reason of `status --check`, where the finding is one."""


class Timers(Struct, frozen=True):
    """What starts syncs regularly, as far as this host tells: timers or crontabs by name, and which are broken."""

    active: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    own: bool = False
    """Whether the user's own systemd runs them."""


class DoctorSettings(Struct, frozen=True):
    """The settings that the checks need."""

    enabled: bool
    has_token: bool
    token_expires_at: datetime | None
    api_url: str
    ws_enabled: bool
    scheduler_enabled: bool
    conflict_strategy: str
    sync_interval_minutes: int
    min_free_disk_gb: float
    warnings: tuple[str, ...]
    policy_problems: tuple[str, ...] = ()
    """What is wrong with the policy file, the lock file, the revocations file or the scan command."""


def exit_code(findings: list[DoctorFinding]) -> int:
    """Return the exit code: 1 if there is a problem; a warning alone is none."""
    return int(any(finding.verdict == "problem" for finding in findings))


def skipped(check: str, why: str) -> DoctorFinding:
    """Say that a check makes no sense, and why."""
    return DoctorFinding(check, "skipped", why)
