"""Names of variables that atom-sync does not read: typos, and names of other Atom programs."""

from __future__ import annotations

from collections.abc import Collection

_OURS = {
    "ATOM_SAAS_URL": "ATOM_SAAS_API_URL",
    "ATOM_SAAS_TOKEN": "ATOM_SAAS_API_TOKEN",
    "ATOM_SAAS_API_KEY": "ATOM_SAAS_API_TOKEN",
    "ATOM_SAAS_TIMEOUT": "ATOM_SAAS_API_TIMEOUT_SECONDS",
    "ATOM_SAAS_SYNC_ENABLED": "ATOM_SAAS_ENABLED",
    "ATOM_SAAS_SYNC_INTERVAL": "ATOM_SAAS_SYNC_INTERVAL_MINUTES",
}
_READ_BY_NOTHING = {"ATOM_SAAS_CACHE_TTL": "cached skills expire after 24 hours"}


def warning_about(name: str, known: Collection[str]) -> str:
    """Return a warning about a name that is not one of `known` but looks like a setting for a marketplace client."""
    is_foreign = name.startswith("MARKETPLACE_")
    name_here = f"ATOM_SAAS_{name.removeprefix('MARKETPLACE_')}" if is_foreign else name
    ours = name_here if name_here in known else _OURS.get(name_here)
    if ours is not None:
        return f"{name} is not read; set {ours} instead"
    if is_foreign or name in _READ_BY_NOTHING:
        reason = _READ_BY_NOTHING.get(name_here)
        return f"{name} is set, but nothing reads it" + (f": {reason}" if reason else "")
    from difflib import get_close_matches

    (nearest,) = get_close_matches(name, known, n=1, cutoff=0)
    return f"unknown variable {name}; did you mean {nearest}?"
