"""The cache as a whole: its statistics, and the plan of a purge."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct


class CacheStatistics(Struct, frozen=True):
    """The number, age and use of the entries.

    `stale` entries were not confirmed for 24 hours; `expired` ones are what `cache purge` would remove if the
    marketplace can be reached. `reads` counts hit, miss and stale.
    """

    skills: int
    edited: int
    only_here: int
    stale: int
    expired: int
    oldest_confirmed_at: datetime | None
    newest_confirmed_at: datetime | None
    hits_of_entries: int
    categories: int
    expired_categories: int
    reads: Mapping[str, int]
    size_bytes: int
    marketplace_reached_at: datetime | None


class PurgePlan(Struct, frozen=True):
    """What a purge removes; `local` counts edited and local skills among them, `protected` the spared ones.

    `local_ids` are the ids of the `local` ones.
    """

    skills: tuple[str, ...]
    categories: tuple[str, ...]
    local: int
    protected: int
    local_ids: tuple[str, ...] = ()
