"""The HTTP client (marketplace-api.md, section 3): one method for each kind of request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx

from atom_saas_sync.core.incoming.categories import parse_categories
from atom_saas_sync.core.incoming.ratings import parse_conflict, parse_receipt, parse_skill_ratings
from atom_saas_sync.core.incoming.skills import parse_skill_page, read_skill
from atom_saas_sync.core.outgoing import list_query, path_segment, rating_body, rating_headers
from atom_saas_sync.errors import (
    ApiError,
    BadResponse,
)
from atom_saas_sync.marketplace.allocation import LARGE, return_large_blocks
from atom_saas_sync.marketplace.connections import Connections
from atom_saas_sync.marketplace.dialects import Dialect
from atom_saas_sync.marketplace.requests import Budget, Clock, Requests
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

_CANNOT_UPDATE = frozenset({404, 405, 501})


class MarketplaceClient:
    """A client of one marketplace in one dialect. Threads may share it; every method raises MarketplaceError."""

    def __init__(
        self,
        *,
        base_url: str,
        token: str,
        instance_id: str,
        dialect: Dialect,
        timeout_seconds: float,
        clock: Clock,
        budget: Budget,
        random: Callable[[], float],
        deadline: float | None = None,
        ca_file: Path | None = None,
        connections: Connections | None = None,
    ) -> None:
        """Create a client. Raises ConfigError if the address or the proxy in the environment is not usable.

        At `deadline` on the monotonic clock, all waiting ends with DeadlineReached. `random` returns numbers from 0
        to 1 for the jitter. `connections` may be shared with other clients; their owner closes
        them.
        """
        self._dialect = dialect
        self._requests = Requests(
            base_url=base_url,
            token=token,
            headers={name: value.format(token=token, instance=instance_id) for name, value in dialect.headers},
            timeout_seconds=timeout_seconds,
            clock=clock,
            budget=budget,
            random=random,
            deadline=deadline,
            ca_file=ca_file,
            connections=connections,
        )
        self._base_url = self._requests.base_url
        self.statistics = self._requests.statistics

    def close(self) -> None:
        """Close all connections that are not shared."""
        self._requests.close()

    def stop(self, signal_number: int) -> None:
        """Abort all current and future requests with Interrupted. A signal handler may call it."""
        self._requests.stop(signal_number)

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
        """Fetch one page of the list; without items if it still matches `etag`.

        With `intact`, a page that is not UTF-8 is retried, and the last one returned as it is. The check takes time
        on each page, so callers request it only after a damaged item.
        """
        try:
            answer, parsed = self._requests.get(
                "skills",
                self._dialect.skills_path,
                list_query(page, page_size),
                etag,
                partial(parse_skill_page, page=page, page_size=page_size),
                intact=intact,
                admit=admit,
                over=over,
            )
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                raise BadResponse(
                    f"the marketplace has no list of skills at {self._base_url}{self._dialect.skills_path} (404)",
                    hint="check ATOM_SAAS_API_URL and ATOM_SAAS_API_DIALECT",
                ) from error
            raise
        fetched = FetchedPage(None, None) if parsed is None else parsed
        if page > 1 and etag is None and fetched.size_bytes >= LARGE:  # of a page that is known, little is new
            return_large_blocks()
        fetched.etag = answer.etag or (etag if answer.not_modified else None)
        return fetched

    def list_key(self, page_size: int) -> str:
        """Return the name of the list; with a page's number appended, the key of its validator."""
        return f"{self._base_url}{self._dialect.skills_path}?page_size={page_size}&page="

    def resource_of_categories(self) -> str:
        """Return the name under which the validator of the categories is stored."""
        return f"{self._base_url}{self._dialect.categories_path}"

    def get_skill(self, skill_id: str) -> SkillVersion | InvalidItem | None:
        """Fetch one skill; None if the marketplace has no skill with that id (404)."""
        try:
            _, parsed = self._requests.get("skill", self._dialect.skill_path(skill_id), {}, None, read_skill)
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise
        return parsed

    def list_categories(
        self, etag: str | None = None
    ) -> tuple[tuple[list[Category], list[InvalidItem]] | None, str | None]:
        """Fetch the categories and their validator; None instead of the categories if they still match `etag`."""
        try:
            answer, parsed = self._requests.get("categories", self._dialect.categories_path, {}, etag, parse_categories)
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                raise BadResponse(
                    f"the marketplace has no categories at {self._base_url}{self._dialect.categories_path} (404)",
                    hint="check ATOM_SAAS_API_URL and ATOM_SAAS_API_DIALECT",
                ) from error
            raise
        return parsed, answer.etag or (etag if answer.not_modified else None)

    # Ratings

    def send_rating(self, rating: OutgoingRating, key: str) -> RatingReceipt | RatingConflict:
        """Send a user's first rating of a skill; a conflict if the marketplace already has one.

        `key` is the idempotency key, by which the marketplace recognizes a retry: store it before the first request.
        """

        def attempt() -> RatingReceipt | RatingConflict:
            answer = self._requests.send(
                "ratings",
                "POST",
                self._dialect.rating_path_for(rating.skill_id),
                headers=rating_headers(key),
                body=rating_body(rating),
                accepted=frozenset({httpx.codes.CONFLICT}),
            )
            if answer.status == httpx.codes.CONFLICT:
                return RatingConflict(parse_conflict(answer.body, skill_id=rating.skill_id, user_id=rating.user_id))
            return parse_receipt(answer.body)

        return self._requests.retrying(attempt)

    def update_rating(self, rating: OutgoingRating, rating_id: str, key: str) -> RatingReceipt | None:
        """Replace a rating that the marketplace has; None if it does not support updates."""
        path = f"{self._dialect.rating_path_for(rating.skill_id)}/{path_segment(rating_id)}"

        def attempt() -> RatingReceipt | None:
            answer = self._requests.send(
                "ratings",
                "PUT",
                path,
                headers=rating_headers(key),
                body=rating_body(rating),
                accepted=_CANNOT_UPDATE,
            )
            return None if answer.status in _CANNOT_UPDATE else parse_receipt(answer.body, known_id=rating_id)

        return self._requests.retrying(attempt)

    def resource_of_ratings(self) -> str:
        """Return the name of this marketplace's ratings; with a skill's id appended, the name of the skill's."""
        return f"ratings at {self._base_url}{self._dialect.skills_path} of "

    def ratings_of(self, skill_id: str, etag: str | None = None) -> ShownRatings:
        """Fetch the ratings of one skill; empty if the marketplace has no such skill."""
        try:
            answer, parsed = self._requests.get(
                "skill", self._dialect.skill_path(skill_id), {}, etag, parse_skill_ratings
            )
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return ShownRatings((), None)
            raise
        return ShownRatings(parsed, answer.etag or (etag if answer.not_modified else None))
