"""Findings about the settings."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from atom_saas_sync.core.diagnosis.findings import DoctorFinding, DoctorSettings
from atom_saas_sync.core.health import duration

_EXPIRY_NOTICED = timedelta(days=14)


def configuration(plan: DoctorSettings, now: datetime) -> Iterator[DoctorFinding]:
    """Check the values, and that there is a token that has not expired."""
    if plan.warnings:
        for warning in plan.warnings:
            hint = "`atom-sync config show` prints the origin of each value"
            yield DoctorFinding("configuration", "warning", warning, hint)
    else:
        yield DoctorFinding("configuration", "ok", "all values are valid")
    if not plan.enabled:
        yield DoctorFinding(
            "enabled", "warning", "ATOM_SAAS_ENABLED is false: nothing is synced", "set ATOM_SAAS_ENABLED=true"
        )
        return
    if not plan.has_token:
        yield DoctorFinding(
            "token",
            "problem",
            "no token for the marketplace is set",
            "run `atom-sync config init`, or set ATOM_SAAS_API_TOKEN or ATOM_SAAS_API_TOKEN_FILE",
        )
        return
    yield _token_age(plan.token_expires_at, now)


def _token_age(expires_at: datetime | None, now: datetime) -> DoctorFinding:
    hint = "get a new one in the dashboard, under settings, API tokens, and set ATOM_SAAS_API_TOKEN"
    if expires_at is None:
        return DoctorFinding("token", "ok", "a token is set; it does not say when it expires")
    if expires_at <= now:
        return DoctorFinding("token", "problem", f"the token expired at {expires_at:%Y-%m-%d %H:%M} UTC", hint)
    left = duration((expires_at - now).total_seconds())
    if expires_at - now < _EXPIRY_NOTICED:
        return DoctorFinding("token", "warning", f"the token expires in {left}", hint)
    return DoctorFinding("token", "ok", f"a token is set; it expires in {left}")
