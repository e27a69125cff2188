"""The marketplace as use cases see it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from atom_saas_sync.model import (
    Category,
    FetchedPage,
    InvalidItem,
    OutgoingRating,
    RatingConflict,
    RatingReceipt,
    ShownRatings,
    SkillVersion,
)


class Statistics(Protocol):
    """Traffic counters."""

    requests: int
    not_modified: int
    bytes_received: int
    clock_skew_seconds: float | None

    def drain(self) -> dict[tuple[str, str], int]:
        """Return the requests by (endpoint, code) since the last call."""


class Marketplace(Protocol):
    """What a catalogue run needs from the marketplace. All methods raise MarketplaceError."""

    @property
    def statistics(self) -> Statistics:
        """Return the traffic counters."""

    def list_key(self, page_size: int) -> str:
        """Return the key of the list with this page size; lists with the same key have the same pages."""

    def resource_of_categories(self) -> str:
        """Return the name under which the ETag of the categories is stored."""

    def list_skills(
        self,
        page: int,
        page_size: int,
        etag: str | None = None,
        *,
        intact: bool = False,
        admit: Callable[[int], bool] | None = None,
        over: threading.Event | None = None,
    ) -> FetchedPage:
        """Return a page of the list; without items if it still matches this ETag. Thread-safe.

        With `intact`, a page that is not valid UTF-8, probably damaged in transit, is fetched again. As the body grows,
        `admit` is asked whether there is room for that many bytes; if not, this raises NoRoom. So does `over`, once it
        is set, instead of a pause.
        """

    def get_skill(self, skill_id: str) -> SkillVersion | InvalidItem | None:
        """Return one skill; None if the marketplace reports that it does not exist."""

    def list_categories(
        self, etag: str | None = None
    ) -> tuple[tuple[list[Category], list[InvalidItem]] | None, str | None]:
        """Return the valid and invalid categories (None if they still match this ETag), and the new ETag."""


class RatingMarketplace(Protocol):
    """What sending ratings needs from the marketplace. Thread-safe; all methods raise MarketplaceError."""

    @property
    def statistics(self) -> Statistics:
        """Return the traffic counters."""

    def send_rating(self, rating: OutgoingRating, key: str) -> RatingReceipt | RatingConflict:
        """Create a rating. The marketplace creates at most one for each idempotency key."""

    def update_rating(self, rating: OutgoingRating, rating_id: str, key: str) -> RatingReceipt | None:
        """Change a rating; None if the marketplace does not support it."""

    def resource_of_ratings(self) -> str:
        """Return the prefix which, followed by a skill's id, names the ETag of its ratings."""

    def ratings_of(self, skill_id: str, etag: str | None = None) -> ShownRatings:
        """Return the ratings of a skill; without content if they still match this ETag."""
