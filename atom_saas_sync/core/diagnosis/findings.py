"""The inputs and findings of `doctor`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

Verdict = Literal["ok", "warning", "problem", "skipped"]


class DoctorFinding(Struct, frozen=True):
    """The result of one check and, if it is not ok, what to do and the command to run."""

    check: str
    verdict: Verdict
    message: str
    hint: str | None = None
    reason: str | None = None
    """The matching reason of `status --check`, if any."""


class Timers(Struct, frozen=True):
    """What starts syncs on this host: timers or crontabs by name, and which of them failed."""

    active: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    own: bool = False
    """Whether they belong to the user's own systemd."""


class DoctorSettings(Struct, frozen=True):
    """The settings that the checks need."""

    enabled: bool
    has_token: bool
    token_expires_at: datetime | None
    api_url: str
    connections: int
    """The largest number of requests at a time."""
    ws_enabled: bool
    scheduler_enabled: bool
    conflict_strategy: str
    sync_interval_minutes: int
    min_free_disk_gb: float
    warnings: tuple[str, ...]
    policy_problems: tuple[str, ...] = ()
    """What is wrong with the policy file, the lock file, the revocations file or the scan command."""


def exit_code(findings: list[DoctorFinding]) -> int:
    """Return the exit code: 1 if there is a problem, 0 if there are only warnings."""
    return int(any(finding.verdict == "problem" for finding in findings))


def skipped(check: str, why: str) -> DoctorFinding:
    """Return the finding of a skipped check, with the reason."""
    return DoctorFinding(check, "skipped", why)
