"""Local ratings, for sending them and for users."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from atom_saas_sync.model import Delivery, ListedRating, Rating, RatingsCheck


class StoredRatings(Protocol):
    """What sending ratings needs of the store.

    A rating is pending until it has been uploaded or has failed for good. Any change, by any program, makes it pending
    again, as a new version.
    """

    def due_ids(self, now: datetime, *, retry_failed: bool = False) -> list[str]:
        """Return the ratings to send, the oldest change first: pending ones, and failed ones whose time has come.

        With `retry_failed` all failed ones, including those that wait for a person.
        """

    def load(self, ids: Sequence[str]) -> list[Rating]:
        """Return these ratings in the order of `ids`; settled ones are absent."""

    def reopen_all(self) -> None:
        """Make every rating pending, also failed ones; each keeps the name of its version."""

    def count_pending(self) -> int:
        """Return how many ratings are pending; failed ones are not."""

    def settle(
        self,
        deliveries: Sequence[Delivery],
        *,
        checks: Sequence[RatingsCheck] = (),
        now: datetime,
        requests: dict[tuple[str, str], int],
    ) -> None:
        """Store what became of ratings, which skills' ratings were read, and add to the counters.

        Only the version that was sent is settled: a rating that changed meanwhile stays pending. The skill's average
        and count become those of the receipt.
        """

    def can_update(self, marketplace: str) -> bool:
        """Tell whether nothing is stored against a marketplace's ability to update ratings."""

    def note_not_updatable(self, marketplace: str, now: datetime) -> None:
        """Store that a marketplace cannot update ratings; `reopen_all` forgets it."""

    def least_recently_checked(self, prefix: str, limit: int) -> list[tuple[str, str | None]]:
        """Return skills with settled ratings and their ETags, those first whose ratings were not read for longest.

        `prefix` and the skill's id make the name under which the ETag is stored.
        """

    def settled_of(self, skill_id: str) -> list[Rating]:
        """Return the settled ratings of a skill."""


class PersonsRatings(Protocol):
    """The ratings as people see and change them."""

    def is_cached(self, skill_id: str) -> bool:
        """Tell whether readers can see a skill."""

    def add(self, skill_id: str, user_id: str, stars: int, comment: str | None, *, now: datetime) -> ListedRating:
        """Store or change a user's rating of a skill, and return it.

        Without a comment the stored one stays; an empty one removes it. The same again changes nothing.
        """

    def listed(
        self,
        *,
        state: str | None = None,
        skill_id: str | None = None,
        user_id: str | None = None,
        limit: int | None = None,
    ) -> tuple[list[ListedRating], int]:
        """Return the ratings that match, the last changed first, and how many there are without `limit`."""

    def find(self, rating_id: str) -> ListedRating | None:
        """Return one rating."""

    def retry(self, ids: Sequence[str], *, actor: str, now: datetime) -> list[str]:
        """Take ratings off the failed list, each under the name of its version; return, sorted, those that were on it.

        The audit log says so.
        """

    def delete(self, ids: Sequence[str], *, actor: str, now: datetime) -> list[str]:
        """Delete, in one transaction, those of these ratings that were never sent, and return their ids.

        The caller holds the lock of the ratings: one that is being sent now would be sent and forgotten.
        """

    def restore(self, rating_id: str, *, actor: str, now: datetime) -> ListedRating | None:
        """Bring back what a rating of the marketplace replaced, as a new version; None if nothing is kept.

        The audit log says so.
        """
