"""The ports: what the use cases need of the marketplace, the store and the clock, and no more.

The edges implement them; what each verb means is said there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Protocol

from atom_saas_sync.model import (
    Action,
    Category,
    ConflictFilter,
    InvalidItem,
    Known,
    ListedPage,
    LoggedConflict,
    PageRecord,
    PurgePlan,
    RunReport,
    SkillVersion,
)


class Progress(Protocol):
    """Is told how far the run is."""

    def advance(self, done: int, total: int | None) -> None:
        """`done` skills of `total` have been looked at."""


class StoredBatch(Protocol):
    """One transaction of the store."""

    def known(self, skill_ids: Iterable[str]) -> dict[str, Known]: ...
    def apply(self, actions: Sequence[Action], now: datetime, *, page: int | None = None) -> None: ...
    def record_page(
        self, page: int, ids: Collection[str], *, list_key: str, etag: str | None, total: int | None, now: datetime
    ) -> None: ...
    def count_requests(self, requests: dict[tuple[str, str], int]) -> None: ...


class StoredCatalogue(Protocol):
    """What this use case needs of the store."""

    def page_records(self, list_key: str) -> Mapping[int, PageRecord]: ...
    def forget_other_lists(self, list_key: str) -> None: ...
    def digests_on_page(self, page: int) -> dict[bytes, str]: ...
    def ids_on_page(self, page: int) -> list[str]: ...
    def batch(self, *, write: bool = True) -> AbstractContextManager[StoredBatch]: ...
    def confirm_page(self, page: int, now: datetime) -> None: ...
    def forget_pages_from(self, page: int) -> None: ...
    def unlisted_ids(self, listed: Collection[str]) -> list[str]: ...
    def marketplace_skills(self) -> int: ...
    def missing_ids(self) -> list[str]: ...
    def waiting_ids(self) -> list[str]: ...
    def refresh_expiry(self, now: datetime) -> None: ...
    def validator(self, resource: str) -> str | None: ...
    def apply_categories(
        self, categories: Sequence[Category] | None, *, resource: str, etag: str | None, now: datetime
    ) -> int: ...
    def changed_categories(self, categories: Sequence[Category]) -> int: ...
    def count_categories(self) -> int: ...


class PersonsBatch(Protocol):
    """One transaction of the store in which a person's wishes are carried out."""

    def known(self, skill_ids: Iterable[str]) -> dict[str, Known]: ...
    def apply(self, actions: Sequence[Action], now: datetime, *, actor: str) -> None: ...
    def note(self, actor: str, action: str, subject: str, now: datetime, **details: object) -> None: ...


class EditableCatalogue(Protocol):
    """What editing needs of the store."""

    def batch(self) -> AbstractContextManager[PersonsBatch]: ...


class ConflictDesk(PersonsBatch, Protocol):
    """One transaction of the store in which a person settles conflicts."""

    def conflict(self, conflict_id: int) -> LoggedConflict | None: ...
    def open_ids(self, wanted: ConflictFilter) -> Sequence[int]: ...
    def mark_undone(self, conflict_id: int, actor: str, now: datetime) -> None: ...


class StoredConflicts(Protocol):
    """What settling conflicts needs of the store."""

    def deciding(self) -> AbstractContextManager[ConflictDesk]: ...


class StoredLifetime(Protocol):
    """What purging the cache needs of the store."""

    def marketplace_reached_at(self) -> datetime | None: ...
    def choose(self, now: datetime, *, older_than: timedelta | None, everything: bool, local: bool) -> PurgePlan: ...
    def purge(
        self, now: datetime, *, older_than: timedelta | None, everything: bool, local: bool, actor: str
    ) -> PurgePlan: ...


class RunLog(Protocol):
    """What this use case needs of the audit trail."""

    def begin(self, kind: str, *, started_by: str, now: datetime) -> int: ...
    def finish(self, report: RunReport, *, now: datetime, requests: dict[tuple[str, str], int]) -> None: ...
    def reached_marketplace(self, now: datetime, skew_seconds: float | None) -> None: ...


class Statistics(Protocol):
    """What went over the wire."""

    requests: int
    not_modified: int
    bytes_received: int
    clock_skew_seconds: float | None

    def drain(self) -> dict[tuple[str, str], int]: ...


class Marketplace(Protocol):
    """What this use case needs of the marketplace."""

    @property
    def statistics(self) -> Statistics: ...
    def list_key(self, page_size: int) -> str: ...
    def resource_of_categories(self) -> str: ...
    def list_skills(self, page: int, page_size: int, etag: str | None = None) -> ListedPage: ...
    def get_skill(self, skill_id: str) -> SkillVersion | InvalidItem | None: ...
    def list_categories(
        self, etag: str | None = None
    ) -> tuple[tuple[list[Category], list[InvalidItem]] | None, str | None]: ...


class Clock(Protocol):
    """Time, handed in."""

    def now(self) -> datetime: ...
    def monotonic(self) -> float: ...
