"""The cache as readers see it, its history, and its end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from atom_saas_sync.model import CachedSkill, CacheStatistics, PublishedVersion, PurgePlan, SkillFilter, Sort


class StoredReading(Protocol):
    """The cache as readers see it at a moment, which decides what is stale.

    A skill that was edited here and deleted by the marketplace is not shown.
    """

    def list_skills(self, wanted: SkillFilter, *, sort: Sort = "name", limit: int | None = None) -> list[CachedSkill]:
        """Return the skills that match, sorted; by rating and time, the largest first and those without last."""

    def count(self, wanted: SkillFilter) -> int:
        """Return how many skills match."""

    def search(
        self, text: str, wanted: SkillFilter, *, sort: Sort | None = None, limit: int | None = None
    ) -> tuple[list[CachedSkill], int]:
        """Return the skills with every word of `text`, the best first unless `sort`, and how many there are.

        The last word also matches as a prefix. Words without letters or digits are ignored; if the text has no other
        words, names are searched for them. No character has a special meaning, and an empty text finds nothing.
        """

    def skill(self, skill_id: str) -> CachedSkill | None:
        """Return one skill."""

    def count_read(self, skills: Sequence[CachedSkill]) -> None:
        """Count one read that found these skills, or a miss if there are none.

        Neither waits nor fails: if another program is writing, or the database is read-only, nothing is counted.
        """


class StoredHistory(Protocol):
    """The versions of a skill that the marketplace sent."""

    def versions(self, skill_id: str) -> list[PublishedVersion]:
        """Return the versions that are kept, the newest first: the base, then those that ended.

        There is no base if the skill is deleted, or was never the marketplace's.
        """


class StoredLifetime(Protocol):
    """What purging the cache needs of the store."""

    def marketplace_reached_at(self) -> datetime | None:
        """Return when the marketplace last gave a valid answer."""

    def choose(self, now: datetime, *, older_than: timedelta | None, everything: bool, local: bool) -> PurgePlan:
        """Return what a purge would remove: expired entries, those confirmed before `older_than`, or all.

        Skills with local edits, and those that exist only here, are spared unless `local`.
        """

    def purge(
        self, now: datetime, *, older_than: timedelta | None, everything: bool, local: Collection[str], actor: str
    ) -> PurgePlan:
        """Choose again and remove it, with bases and open conflicts; the next run fetches it again.

        `local` are the skills whose local edits may go. The audit log keeps their texts.
        """

    def prune_logs(self, now: datetime) -> None:
        """Remove what was kept long enough. Open conflicts stay.

        That is conflicts resolved more than 90 days ago, an audit log of more than a year, and copies that migrations
        made more than 30 days ago.
        """


class CacheFigures(Protocol):
    """How old the cache is, and how it is used."""

    def statistics(self, now: datetime) -> CacheStatistics:
        """Return the figures of `cache stats`; times of an empty cache are None."""
