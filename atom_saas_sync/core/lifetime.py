"""Expiry of cached entries (docs/CONFLICTS.md)."""

from __future__ import annotations

from datetime import datetime

from atom_saas_sync.model import TIME_TO_LIVE


def keeps_stale(reached_at: datetime | None, now: datetime) -> bool:
    """Tell whether stale entries are kept, because the marketplace has been unreachable for longer than their TTL."""
    return reached_at is None or now - reached_at > TIME_TO_LIVE
