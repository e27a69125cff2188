"""The request budget, and the clock."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class RequestsLeft(Protocol):
    """What reading ratings back needs of the request budget."""

    def free(self, now: datetime) -> int:
        """Return how many requests are free now."""


class StoredBudget(RequestsLeft, Protocol):
    """The request budget that all processes share. Threads may share the object: they take turns."""

    def take(self, now: datetime) -> float:
        """Take one request and return 0.0, or take none and return the seconds until one is free.

        Several may be taken at a time for the current second; what is not used is given back.
        """

    def learn(self, now: datetime, *, limit: int, remaining: int | None, reset_seconds: float | None) -> None:
        """Store the limit that the marketplace declares; it holds, below ours, until its window is over.

        A reset more than a minute away means a window of an hour, otherwise of a minute. `remaining=0` with a reset
        within a minute means: no request at all until then.
        """

    def close(self) -> None:
        """Give back what is left, and close; waits for a thread that is using it.

        Never fails because the database is locked: what could not be given back counts as used.
        """


class Clock(Protocol):
    """The clock, injected."""

    def now(self) -> datetime:
        """Return the time as an aware datetime; it may be set back."""

    def monotonic(self) -> float:
        """Return monotonic seconds."""
