"""Send one rating, and decide which one wins if the marketplace has another by the same user."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from atom_saas_sync.core.outgoing import idempotency_key, outgoing, rating_problem
from atom_saas_sync.core.ratings import Newest, clock_skew, content_digest, newest
from atom_saas_sync.errors import BadResponse
from atom_saas_sync.model import (
    Delivery,
    OutgoingRating,
    Rating,
    RatingConflict,
    RatingFailure,
    RemoteRating,
)

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import Clock, RatingMarketplace


_CANNOT_UPDATE = "the marketplace has an older rating of this user and cannot update it; this one is kept locally"


class RatingExchange:
    """Thread-safe: uses only the marketplace. `sent_user` maps a user to the name sent to the marketplace."""

    def __init__(self, marketplace: RatingMarketplace, *, clock: Clock, sent_user: Callable[[str], str]) -> None:
        self.cannot_update = threading.Event()
        """Set once the marketplace has shown that it does not support updates."""
        self._marketplace = marketplace
        self._clock = clock
        self._sent_user = sent_user

    def deliver(self, rating: Rating) -> Delivery:
        """Send one rating. Raises MarketplaceError."""
        problem = rating_problem(rating.skill_id, rating.user_id, rating.stars, rating.comment)
        if problem is not None:
            failure = RatingFailure("invalid", problem, rating.max_retries, None)
            return Delivery(rating, "failed", failure=failure)
        assert rating.version is not None, "every pending rating has one: triggers see to it"
        wire = outgoing(rating, self._sent_user(rating.user_id))
        answer = self._marketplace.send_rating(wire, idempotency_key(rating.version, wire.user_id))
        if isinstance(answer, RatingConflict):
            return self._settle_conflict(rating, wire, answer.stored)
        return Delivery(rating, "sent", digest=content_digest(rating.stars, rating.comment), receipt=answer)

    def taken(self, rating: Rating, remote: RemoteRating) -> Delivery | None:
        """Return the new state of a local rating if the marketplace's is newer; None if it is not."""
        return self._taken(rating, remote) if self._winner(rating, remote) == "theirs" else None

    def skew(self) -> timedelta:
        """Return how far the marketplace's clock is ahead of ours."""
        return clock_skew(self._marketplace.statistics.clock_skew_seconds)

    def _settle_conflict(self, rating: Rating, wire: OutgoingRating, stored: RemoteRating | None) -> Delivery:
        """Let the newer of two ratings win: the marketplace already has one by this user."""
        if stored is None or stored.rating_id is None or stored.rated_at is None:
            stored = self._look_up(wire) or stored
        if stored is None:
            if rating.remote_rating_id is None:
                raise BadResponse("the marketplace reports an existing rating of this user, but does not return it")
            return self._update(rating, wire, rating.remote_rating_id)
        winner = self._winner(rating, stored)
        if winner == "same":
            return Delivery(rating, "sent", digest=content_digest(rating.stars, rating.comment), remote=stored)
        if winner == "theirs":
            return self._taken(rating, stored)
        return self._update(rating, wire, stored.rating_id or rating.remote_rating_id)

    def _look_up(self, wire: OutgoingRating) -> RemoteRating | None:
        shown = self._marketplace.ratings_of(wire.skill_id).ratings or ()
        return next((rating for rating in shown if rating.user_id == wire.user_id), None)

    def _update(self, rating: Rating, wire: OutgoingRating, rating_id: str | None) -> Delivery:
        assert rating.version is not None
        if rating_id is not None and not self.cannot_update.is_set():
            key = idempotency_key(rating.version, wire.user_id, update_of=rating_id)
            receipt = self._marketplace.update_rating(wire, rating_id, key)
            if receipt is not None:
                digest = content_digest(rating.stars, rating.comment)
                return Delivery(rating, "updated", digest=digest, receipt=receipt)
            self.cannot_update.set()
        return Delivery(rating, "kept", note=_CANNOT_UPDATE)

    def _taken(self, rating: Rating, remote: RemoteRating) -> Delivery:
        moment = None if remote.rated_at is None else remote.rated_at - self.skew()
        digest = content_digest(remote.stars, remote.comment)
        return Delivery(rating, "taken", digest=digest, remote=remote, taken_at=moment)

    def _winner(self, rating: Rating, remote: RemoteRating) -> Newest:
        return newest(rating, remote, skew=self.skew(), now=self._clock.now())
