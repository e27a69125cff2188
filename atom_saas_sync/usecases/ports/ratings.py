"""Local ratings, for sending them and for users."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from atom_saas_sync.model import Delivery, ListedRating, Rating, RatingsCheck


class StoredRatings(Protocol):
    """What sending ratings needs from the store.

    A rating is pending until it has been uploaded or has failed for good. Any change, by any program, makes it pending
    again, as a new version.
    """

    def due_ids(self, now: datetime, *, retry_failed: bool = False) -> list[str]:
        """Return the ratings to send, oldest change first: pending ones, and failed ones that are due.

        With `retry_failed`, all failed ones, including those that need a manual retry.
        """

    def load(self, ids: Sequence[str]) -> list[Rating]:
        """Return these ratings in the order of `ids`; those that are no longer pending are absent."""

    def reopen_all(self) -> None:
        """Make every rating pending, including failed ones; each keeps its version name."""

    def count_pending(self) -> int:
        """Return the number of pending ratings, without failed ones."""

    def record_deliveries(
        self,
        deliveries: Sequence[Delivery],
        *,
        checks: Sequence[RatingsCheck] = (),
        now: datetime,
        requests: dict[tuple[str, str], int],
    ) -> None:
        """Store the outcomes of sent ratings and the checked skills, and add to the counters.

        Only the version that was sent is marked: a rating that was changed in the meantime stays pending. The skill's
        average and count become those of the receipt.
        """

    def can_update(self, marketplace: str) -> bool:
        """Tell whether the marketplace may support updates, that is, unless the contrary is stored."""

    def note_not_updatable(self, marketplace: str, now: datetime) -> None:
        """Record that a marketplace cannot update ratings; `reopen_all` deletes the record."""

    def least_recently_checked(self, prefix: str, limit: int) -> list[tuple[str, str | None]]:
        """Return skills whose ratings are not pending, with their ETags, least recently read first.

        `prefix` followed by the skill's id is the name under which the ETag is stored.
        """

    def settled_of(self, skill_id: str) -> list[Rating]:
        """Return the ratings of a skill that are not pending."""


class UserRatings(Protocol):
    """Ratings for users: reading and changing them."""

    def is_cached(self, skill_id: str) -> bool:
        """Tell whether readers can see a skill."""

    def add(self, skill_id: str, user_id: str, stars: int, comment: str | None, *, now: datetime) -> ListedRating:
        """Store or change a user's rating of a skill, and return it.

        Without a comment the stored one stays; an empty one removes it. Storing the same rating again changes nothing.
        """

    def listed(
        self,
        *,
        state: str | None = None,
        skill_id: str | None = None,
        user_id: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> tuple[list[ListedRating], int]:
        """Return the ratings that match, the last changed first, and how many there are without `limit` and `offset`.

        The first `offset` are skipped.
        """

    def find(self, rating_id: str) -> ListedRating | None:
        """Return one rating."""

    def retry(self, ids: Sequence[str], *, actor: str, now: datetime) -> list[str]:
        """Remove ratings from the failed list, keeping their version names; return, sorted, those that were on it.

        The audit log says so.
        """

    def delete(self, ids: Sequence[str], *, actor: str, now: datetime) -> list[str]:
        """Delete, in one transaction, those of these ratings that were never sent; return their ids.

        The caller holds the lock of the ratings; otherwise a rating could be deleted while it is being sent.
        """

    def restore(self, rating_id: str, *, actor: str, now: datetime) -> ListedRating | None:
        """Restore the rating that the marketplace's rating replaced, as a new version; None if there is none.

        The audit log says so.
        """
