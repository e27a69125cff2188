"""The life of the WebSocket connection, without I/O (marketplace-api.md, section 4).

Decides when to ping, to give up a connection, to retry, and to fall back to polling. core/incoming/ parses frames, and
core/plan/messages.py plans for them. `ConnectionState` receives events with a monotonic time, and returns commands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum

from msgspec import Struct

from atom_saas_sync.model import ConnectionSwitch, ReportedConnection

SILENCE_SECONDS = 10.0
"""A connection is stale after the heartbeat interval plus this time without a frame."""

FAILURES_BEFORE_FALLBACK = 3
LONGEST_DELAY = 3600.0
REFUSED_DELAY = 300.0
"""Minimum delay before a refused token is tried again."""

DISABLED_BY_ADMIN = "disabled_by_admin"
"""The `disconnect_reason` in websocket_state while websocket_enabled is 0."""

FIRST_DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0, 16.0)


def asks_for_retry(found: ConnectionSwitch, written: ReportedConnection | None) -> bool:
    """Tell whether another program has reset the attempts or the fallback, which we had `written`, to zero."""
    if written is None:
        return False
    return (written.attempts > 0 and found.attempts == 0) or (written.fallback and not found.fallback)


class ConnectionRules(Struct, frozen=True):
    """The inputs of the schedule: the settings, and whether administrators `allowed` the connection.

    After `attempts` failures in a row, the next attempt is an hour later; with 0 there is none.
    """

    heartbeat_seconds: float
    attempts: int
    enabled: bool = True
    allowed: bool = True

    @property
    def polling_only(self) -> str | None:
        """Return why no connection is allowed; None if one is."""
        if not self.enabled:
            return "ATOM_SAAS_WS_ENABLED is false: polling only"
        return None if self.allowed else DISABLED_BY_ADMIN


class Command(Enum):
    """What the caller must do with the connection now."""

    CONNECT = "connect"
    PING = "ping"
    HANG_UP = "hang up"
    CATCH_UP = "catch up"


class _Phase(Enum):
    IDLE = "idle"
    WAITING = "waiting"
    CONNECTING = "connecting"
    OPEN = "open"
    GIVEN_UP = "given up"


class ConnectionState:
    """The connection's state. Methods take the time and return commands.

    Every end of a connection or an attempt counts as a failure. Only a valid message proves a connection: a mere
    handshake does not reset the schedule.
    """

    def __init__(self, rules: ConnectionRules, jitter: Callable[[], float]) -> None:
        """`jitter` returns numbers from 0 to 1."""
        self.rules = rules
        self._jitter = jitter
        self._phase = _Phase.IDLE
        self._proven = False
        self._refused = False
        self._last_frame = 0.0
        self._next_ping = 0.0
        self._fallback_counted = 0.0
        self._fallback_seconds = 0.0
        self.failures = 0
        self.attempts = 0
        self.reconnects = 0
        self.fallback = False
        self.reason: str | None = None
        self.next_attempt: float | None = None

    @property
    def connected(self) -> bool:
        """Tell whether the connection is open."""
        return self._phase is _Phase.OPEN

    @property
    def holds(self) -> bool:
        """Tell whether the connection is open or opening."""
        return self._phase in {_Phase.OPEN, _Phase.CONNECTING}

    @property
    def token_refused(self) -> bool:
        """Tell whether the last connection ended because of the token."""
        return self._refused

    def due(self) -> float:
        """Return when `tick` must be called if no other event happens."""
        if self._phase is _Phase.WAITING:
            return math.inf if self.next_attempt is None else self.next_attempt
        if self._phase is _Phase.OPEN:
            return min(self._next_ping, self._last_frame + self.stale_after)
        return math.inf

    def start(self, now: float) -> list[Command]:
        """Begin."""
        if (reason := self.rules.polling_only) is not None:
            self._fall_back(now, reason)
            return []
        return self._connect()

    def tick(self, now: float) -> list[Command]:
        """Process the passing of time."""
        if self._phase is _Phase.WAITING and self.next_attempt is not None and now >= self.next_attempt:
            self.attempts += 1
            self.reconnects += 1
            return self._connect()
        if self._phase is not _Phase.OPEN:
            return []
        if now >= self._last_frame + self.stale_after:
            self._phase = _Phase.GIVEN_UP
            return [Command.HANG_UP]
        if now >= self._next_ping:
            self._next_ping = now + self.rules.heartbeat_seconds
            return [Command.PING]
        return []

    def opened(self, now: float) -> list[Command]:
        """Process the end of the handshake."""
        self._phase = _Phase.OPEN
        self._proven = False
        self._last_frame = now
        self._next_ping = now + self.rules.heartbeat_seconds
        return [Command.PING]

    def frame(self, now: float) -> None:
        """Process the arrival of any frame."""
        self._last_frame = now

    def message(self, now: float) -> list[Command]:
        """Process a valid message, which proves the connection; request what was missed."""
        self.frame(now)
        if self._proven or self._phase is not _Phase.OPEN:
            return []
        self._proven = True
        self._refused = False
        self.failures = self.attempts = 0
        self.reason = None
        self._count_fallback(now)
        self.fallback = False
        return [Command.CATCH_UP]

    def ended(self, now: float, reason: str, *, token_refused: bool = False) -> list[Command]:
        """Process the end of a connection or an attempt, and plan the next attempt."""
        if self.rules.polling_only is not None:
            self._phase = _Phase.IDLE
            return []
        self.failures += 1
        self.reason = reason
        self._refused = token_refused
        self._phase = _Phase.WAITING
        delay = self._delay()
        self.next_attempt = None if delay is None else now + delay
        # A refused token stays refused for long, so fall back to polling without two more refusals.
        if token_refused or self.failures >= min(FAILURES_BEFORE_FALLBACK, max(1, self.rules.attempts)):
            self._fall_back(now, reason)
        return []

    def new_token(self, now: float) -> list[Command]:
        """Process a new token: a refusal of the old one does not apply to it."""
        if self._phase is _Phase.WAITING and self._refused:
            self._refused = False
            self.next_attempt = now + self._spread(FIRST_DELAYS[0])
        return []

    def new_rules(self, now: float, rules: ConnectionRules) -> list[Command]:
        """Apply new rules: a waiting connection starts over at once, an open one uses them from now on."""
        self.rules = rules
        if (reason := rules.polling_only) is not None:
            was_open = self.holds
            self._phase = _Phase.GIVEN_UP if was_open else _Phase.IDLE
            self.next_attempt = None
            self._fall_back(now, reason)
            return [Command.HANG_UP] if was_open else []
        if self._phase in {_Phase.WAITING, _Phase.IDLE}:
            return self._connect_anew()
        self._next_ping = min(self._next_ping, now + rules.heartbeat_seconds)
        return []

    def retry(self) -> list[Command]:
        """Connect at once if the next attempt is still to come, as if nothing had failed before."""
        return self._connect_anew() if self._phase is _Phase.WAITING else []

    def take_fallback_seconds(self, now: float) -> float:
        """Return the seconds in fallback since the last call."""
        self._count_fallback(now)
        seconds, self._fallback_seconds = self._fallback_seconds, 0.0
        return seconds

    @property
    def stale_after(self) -> float:
        """Return how many seconds may pass without a frame before the connection counts as dead."""
        return self.rules.heartbeat_seconds + SILENCE_SECONDS

    def _connect(self) -> list[Command]:
        self._phase = _Phase.CONNECTING
        self.next_attempt = None
        return [Command.CONNECT]

    def _connect_anew(self) -> list[Command]:
        self.failures = 0
        self._refused = False
        return self._connect()

    def _fall_back(self, now: float, reason: str) -> None:
        self.reason = reason
        if not self.fallback:
            self.fallback = True
            self._fallback_counted = now

    def _count_fallback(self, now: float) -> None:
        if self.fallback:
            self._fallback_seconds += now - self._fallback_counted
            self._fallback_counted = now

    def _delay(self) -> float | None:
        """Return the seconds until the next attempt; None if there are no more attempts."""
        if self.rules.attempts == 0:
            return None
        if self.failures >= self.rules.attempts:
            delay = LONGEST_DELAY
        elif self.failures <= len(FIRST_DELAYS):
            delay = FIRST_DELAYS[self.failures - 1]
        else:
            delay = FIRST_DELAYS[-1] * 2.0 ** min(self.failures - len(FIRST_DELAYS), 16)
        delay = min(self._spread(delay), LONGEST_DELAY)
        return max(delay, REFUSED_DELAY * (1 + self._jitter() / 4)) if self._refused else delay

    def _spread(self, delay: float) -> float:
        """Return the delay with jitter, so that a thousand clients do not reconnect in the same second."""
        return delay * (0.75 + self._jitter() / 2)
