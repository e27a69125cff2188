"""Findings about the marketplace's responses."""

from __future__ import annotations

from atom_saas_sync.core.diagnosis.findings import DoctorFinding
from atom_saas_sync.core.health import duration
from atom_saas_sync.errors import MarketplaceError, TlsFailed

_SKEW_WARNED, _SKEW_WRONG = 30.0, 300.0


def health_route(status: int) -> DoctorFinding:
    """Check the status of the health route."""
    if status == 200:  # noqa: PLR2004 - HTTP
        return DoctorFinding("http", "ok", "the marketplace responds and reports that it is healthy")
    if status >= 500:  # noqa: PLR2004 - HTTP
        return DoctorFinding(
            "http",
            "problem",
            f"the marketplace reports that it is not healthy: {status}",
            "wait; see https://status.atomsaas.com; meanwhile the cache serves its skills",
        )
    return DoctorFinding(
        "http",
        "warning",
        f"the health route returned {status}",
        "check ATOM_SAAS_API_URL and ATOM_SAAS_API_DIALECT: `atom-sync config show`",
    )


def token_accepted(status: int) -> DoctorFinding:
    """Check the status of the list of skills."""
    if status == 200:  # noqa: PLR2004 - HTTP
        return DoctorFinding("api", "ok", "the marketplace accepts the token and lists skills")
    if status in {401, 403}:
        return DoctorFinding(
            "api",
            "problem",
            f"the marketplace refuses the token: {status}",
            "get a new one in the dashboard, under settings, API tokens, and set ATOM_SAAS_API_TOKEN",
        )
    if status == 404:  # noqa: PLR2004 - HTTP
        return DoctorFinding(
            "api",
            "problem",
            "there is no list of skills at this address: 404",
            "check ATOM_SAAS_API_URL and ATOM_SAAS_API_DIALECT (v1, plain or mothership): `atom-sync config show`",
        )
    if status == 429:  # noqa: PLR2004 - HTTP
        return DoctorFinding(
            "api",
            "problem",
            "the marketplace's rate limit is used up: 429",
            "wait; does another instance use this token? ATOM_SAAS_RATE_LIMIT_PER_HOUR lowers our share",
        )
    hint = "try again later, then contact support"
    return DoctorFinding("api", "problem", f"the list of skills returned {status}", hint)


def clock(skew: float) -> DoctorFinding:
    """Check the difference between the marketplace's clock and ours, in seconds."""
    apart = f"this clock is {duration(abs(skew))} {'behind' if skew > 0 else 'ahead of'} the marketplace's"
    hint = "synchronise it: `timedatectl set-ntp true`"
    if abs(skew) >= _SKEW_WRONG:
        return DoctorFinding("clock", "problem", f"{apart}: tokens may be rejected, and changes misordered", hint)
    if abs(skew) >= _SKEW_WARNED:
        return DoctorFinding("clock", "warning", apart, hint)
    return DoctorFinding("clock", "ok", "this clock and the marketplace's agree")


def hint_for(error: MarketplaceError) -> str:
    """Return what to do about a request that failed."""
    if isinstance(error, TlsFailed):
        return "set ATOM_SAAS_CA_FILE to the authority of your proxy or marketplace; check the clock"
    if error.kind == "rate_limited":
        return "wait; `atom-sync status` shows when requests are free again"
    return "check ATOM_SAAS_API_URL, the network and the firewall (outbound HTTPS): `curl -I` of that URL"
