"""Findings about the gate: its files, and waiting updates."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from atom_saas_sync.characters import counted
from atom_saas_sync.core.diagnosis.findings import DoctorFinding, DoctorSettings
from atom_saas_sync.core.health import ago
from atom_saas_sync.model import TrustState

_LONG = timedelta(days=7)


def trust(plan: DoctorSettings, state: TrustState, now: datetime) -> Iterator[DoctorFinding]:
    """Check the policy with its files, and how long updates wait."""
    for problem in plan.policy_problems:
        yield DoctorFinding(
            "policy", "problem", problem, "correct it; `atom-sync policy check` reads everything again; nothing new is "
            "admitted meanwhile",
        )  # fmt: skip
    if not plan.policy_problems:
        figures = [
            f"policy {state.policy}",
            counted(state.revocations, "revocation"),
            f"{state.quarantined:,} in quarantine",
        ]
        yield DoctorFinding("policy", "ok", ", ".join(figures))
    yield _updates(state, now)


def _updates(state: TrustState, now: datetime) -> DoctorFinding:
    look = "`atom-sync updates list` shows them, `atom-sync updates show ID` the differences"
    if state.tripped:
        return DoctorFinding(
            "updates",
            "warning",
            f"{counted(state.tripped, 'update needs', 'updates need')} a decision",
            f"{look}; served versions stay unchanged meanwhile",
        )
    oldest = state.oldest_waiting_at
    if oldest is not None and now - oldest > _LONG:
        waiting = counted(state.waiting, "update waits", "updates wait")
        return DoctorFinding("updates", "warning", f"{waiting}, the oldest first seen {ago(oldest, now)}", look)
    return DoctorFinding("updates", "ok", counted(state.waiting, "update waits", "updates wait"))
