"""The cache as readers see it, its history, and its expiry."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from atom_saas_sync.model import CachedSkill, CacheStatistics, PublishedVersion, PurgePlan, SkillFilter, Sort


class StoredReading(Protocol):
    """The cache as readers see it at a given time, which decides what is stale.

    Skills that were edited here and deleted by the marketplace are hidden.
    """

    def list_skills(self, wanted: SkillFilter, *, sort: Sort = "name", limit: int | None = None) -> list[CachedSkill]:
        """Return the matching skills, sorted; by rating or time: largest first, missing values last."""

    def count(self, wanted: SkillFilter) -> int:
        """Return the number of matching skills."""

    def search(
        self, text: str, wanted: SkillFilter, *, sort: Sort | None = None, limit: int | None = None
    ) -> tuple[list[CachedSkill], int]:
        """Return the skills with every word of `text` (best first unless `sort` is given), and their number.

        The last word also matches as a prefix. Words without letters or digits are ignored; if there are no other
        words, names are searched for them. No character has a special meaning, and an empty text finds nothing.
        """

    def skill(self, skill_id: str) -> CachedSkill | None:
        """Return one skill."""

    def count_read(self, skills: Sequence[CachedSkill]) -> None:
        """Count one read that returned these skills, or a miss if there are none.

        Never waits and never fails: if another program is writing, or the database is read-only, nothing is counted.
        """


class StoredHistory(Protocol):
    """The versions of a skill that the marketplace sent."""

    def versions(self, skill_id: str) -> list[PublishedVersion]:
        """Return the stored versions, newest first: the base, then those that ended.

        There is no base if the skill is deleted, or was never the marketplace's.
        """


class StoredLifetime(Protocol):
    """What purging the cache needs from the store."""

    def marketplace_reached_at(self) -> datetime | None:
        """Return the time of the marketplace's last valid response."""

    def choose(self, now: datetime, *, older_than: timedelta | None, everything: bool, local: bool) -> PurgePlan:
        """Return what a purge would remove: expired entries, those last confirmed before `older_than`, or all.

        Skills with local edits, and those that exist only here, are spared unless `local`.
        """

    def purge(
        self, now: datetime, *, older_than: timedelta | None, everything: bool, local: Collection[str], actor: str
    ) -> PurgePlan:
        """Choose again and remove the entries, with bases and open conflicts; the next run fetches them again.

        `local` are the skills whose local edits may be removed; the audit log keeps their texts.
        """

    def prune_logs(self, now: datetime) -> None:
        """Remove old entries of the logs. Open conflicts stay.

        These are conflicts resolved more than 90 days ago, audit entries older than a year, and copies that migrations
        made more than 30 days ago.
        """


class CacheFigures(Protocol):
    """The age and use of the cache."""

    def statistics(self, now: datetime) -> CacheStatistics:
        """Return the figures of `cache stats`; times are None for an empty cache."""
