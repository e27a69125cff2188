"""The arithmetic of the request budget, for both engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from atom_saas_sync.store.stored_json import stored_object

MINUTE, HOUR = 60, 3600
LARGEST_LEASE = 16
LEAST_PER_MINUTE = 10
"""The minimum for a declared limit: a faulty response must not stop all requests."""

Limits = tuple[tuple[int, int], ...]
"""Each limit with its window in seconds."""


class Declared(NamedTuple):
    """A limit declared by a marketplace: how long it applies, and until when nothing may be sent at all."""

    marketplace: str
    limit: int
    window: int
    until: float
    pause_until: float


def declared(marketplace: str, now: float, limit: int, remaining: int | None, reset_seconds: float | None) -> Declared:
    """Return the limit that the headers of a response declare.

    They do not name its window: a reset more than a minute away means an hour, otherwise a minute.
    """
    window = HOUR if reset_seconds is not None and reset_seconds > MINUTE else MINUTE
    pause_until = 0.0
    until = now + window
    if remaining == 0 and reset_seconds is not None and reset_seconds > 0:
        until = now + min(reset_seconds, HOUR)
        if window == MINUTE:
            pause_until = until
        else:  # blocked for up to an hour, which is less than the minimum of any limit
            limit, window = 0, MINUTE
    return Declared(marketplace, max(limit, LEAST_PER_MINUTE * window // MINUTE), window, until, pause_until)


def is_known(learned: Declared, known: Declared | None) -> bool:
    """Tell whether a declared limit is stored already, so that not every response causes a write."""
    return (
        known is not None
        and not learned.pause_until
        and learned[:3] == known[:3]
        and learned.until < known.until + learned.window / 2
    )


def in_force(fact: str | None, now: float, marketplace: str | None) -> Declared | None:
    """Return the limit declared by this marketplace (None: any), unless its window is over."""
    fields = stored_object(fact)
    if not fields.keys() >= set(Declared._fields):  # there is none, or an earlier version wrote it
        return None
    found = Declared(**{name: fields[name] for name in Declared._fields})
    if not _is_ours(found):
        return None
    # A window with an impossibly late end was written by a clock that was set back.
    if not now < found.until <= now + HOUR or marketplace not in (None, found.marketplace):
        return None
    return found


def _is_ours(found: Declared) -> bool:
    """Tell whether it is what `declared` returns: another program can have stored anything."""
    return (
        all(type(each) is int for each in (found.limit, found.window))
        and all(type(each) in {int, float} for each in (found.until, found.pause_until))
        and found.window in {MINUTE, HOUR}
        and found.limit >= LEAST_PER_MINUTE * found.window // MINUTE
        and 0 <= found.pause_until <= found.until
    )


def next_lease(leased: int, *, again: bool, free: int) -> int:
    """Return how many to take: one at first, then four times as many within the same second, leaving most to others."""
    return max(1, min(4 * leased if again else 1, free // 4, LARGEST_LEASE))


def wait_for(sent: Iterable[tuple[int, int]], now: float, limit: int, window: int) -> float:
    """Return the seconds until the window allows one more request; `sent` has the requests by second, newest first."""
    number = 0
    for second, requests in sent:
        number += requests
        if number >= limit:
            # Available again when this second, and enough of the oldest requests, have left the window.
            return float(second + window + 1 - now)
    return 0.0


class Budget(NamedTuple):
    """The limits at one moment; `used` is how many requests were sent, by window."""

    now: float
    configured: Limits
    declared: Declared | None
    used: Mapping[int, int]

    @property
    def limits(self) -> Limits:
        """Return all limits, the declared one last."""
        found = self.declared
        return self.configured if found is None else (*self.configured, (found.limit, found.window))

    def free(self) -> int:
        """Return how many requests are left."""
        if self.declared is not None and self.declared.pause_until > self.now:
            return 0
        return max(0, min(limit - self.used[window] for limit, window in self.limits))

    def wait(self, sent: Callable[[float], Iterable[tuple[int, int]]]) -> float:
        """Return the seconds until one more request is allowed.

        `sent` returns the requests by second, newest first, from a moment until now; it is called for windows that are
        used up.
        """
        waits = [0.0 if self.declared is None else max(0.0, self.declared.pause_until - self.now)]
        for limit, window in self.limits:
            if self.used[window] >= limit:
                waits.append(wait_for(sent(self.now - window), self.now, limit, window))
        return max(waits)


def as_time(moment: float) -> datetime:
    """Return a timestamp as a datetime."""
    return datetime.fromtimestamp(moment, UTC)
