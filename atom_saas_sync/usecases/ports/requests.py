"""The request budget, and the clock."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from atom_saas_sync.model import BudgetState


class RequestsLeft(Protocol):
    """What fetching ratings needs from the request budget."""

    def free(self, now: datetime) -> int:
        """Return the number of requests available now."""


class StoredBudget(RequestsLeft, Protocol):
    """The request budget shared by all processes. Thread-safe."""

    def take(self, now: datetime) -> float:
        """Take one request and return 0.0, or take none and return the seconds until one is available.

        Several may be reserved for the current second; unused ones are returned.
        """

    def learn(self, now: datetime, *, limit: int, remaining: int | None, reset_seconds: float | None) -> None:
        """Store a limit declared by the marketplace; if lower than ours, it applies until its window ends.

        A reset more than a minute away means a window of an hour, otherwise of a minute. `remaining=0` with a reset
        within a minute means: no request at all until then.
        """

    def close(self) -> None:
        """Return unused requests, and close; waits for a thread that is using it.

        Never fails because the database is locked: requests that could not be returned count as used.
        """


class BudgetDesk(Protocol):
    """The request budget as people see it."""

    def state(self, now: datetime, *, per_minute: int, per_hour: int, marketplace: str) -> BudgetState:
        """Return what is left of the budget, and who limits it."""

    def forget_declared_limit(self) -> bool:
        """Forget the limit that a marketplace declared; tell whether there was one. What was sent still counts."""


class Clock(Protocol):
    """The clock, injected."""

    def now(self) -> datetime:
        """Return the time as an aware datetime; it may be set back."""

    def monotonic(self) -> float:
        """Return monotonic seconds."""
