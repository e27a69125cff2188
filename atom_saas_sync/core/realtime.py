"""The real-time protocol without I/O (marketplace-api.md, section 4).

What is newer than what; when to ping, to give a connection up, to try again, and to fall back to
polling. What a frame says is in core/incoming/.

`Lifeline` is fed with what happened and the time on a clock that only grows, and answers with what is to be done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from atom_saas_sync.core.canonical import decode_object, json_text, same, version_from, version_from_fields
from atom_saas_sync.core.incoming.messages import RATING_FIGURES, RATING_UPDATE, SKILL_DELETE, Message
from atom_saas_sync.core.plan import CLOCK_TOLERANCE
from atom_saas_sync.model import Known, LinkState, LinkSwitch, SkillVersion
from atom_saas_sync.times import parse_time

PATIENCE_SECONDS = 10.0
"""A connection is stale after this and the heartbeat interval without a frame."""

FAILURES_BEFORE_FALLBACK = 3
LONGEST_DELAY = 3600.0
REFUSED_DELAY = 300.0
"""A refused token is not tried again faster than that."""

DISABLED_BY_ADMIN = "disabled_by_admin"
"""The reason in websocket_state while its websocket_enabled is 0."""

FIRST_DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0, 16.0)


# What is newer than what


def is_outdated(message: Message, *, updated_at: datetime | None, sent_at: datetime | None, now: datetime) -> bool:
    """Tell whether what is stored is newer than the message; one of the same time applies.

    `updated_at` is that of what is stored, `sent_at` the time of the last message about it that was applied. Like is
    compared with like as far as both sides have it: `updated_at` first, then the times of the messages. A deletion is
    compared with messages only, and a time that is ahead of `now` counts as none: either could keep a skill for ever.
    """
    latest = now + CLOCK_TOLERANCE
    mine, stored = _until(latest, message.updated_at), _until(latest, updated_at)
    if message.type == SKILL_DELETE:
        mine = stored = None
    mine_sent, last_sent = _until(latest, message.sent_at), _until(latest, sent_at)
    if mine is not None and stored is not None and mine != stored:
        return mine < stored
    if mine_sent is not None and last_sent is not None:
        return mine_sent < last_sent
    mine, stored = mine or mine_sent, stored or last_sent
    return mine is not None and stored is not None and mine < stored


def _until(latest: datetime, moment: datetime | None) -> datetime | None:
    return moment if moment is not None and moment <= latest else None


def is_newer(remote: SkillVersion, known: Known | None, now: datetime) -> bool:
    """Tell whether what the list shows is surely newer than what we know of the marketplace's version."""
    text = remote_text(known)
    stored = parse_time((decode_object(text) or {}).get("updated_at")) if text is not None else None
    updated_at = _until(now + CLOCK_TOLERANCE, parse_time(remote.fields.get("updated_at")))
    return stored is not None and updated_at is not None and updated_at > stored


def remote_text(known: Known | None) -> str | None:
    """Return the newest version that the marketplace is known to have: one that waits in a conflict, or the base."""
    if known is None:
        return None
    if known.waiting is not None and known.waiting.remote_text is not None:
        return known.waiting.remote_text
    return known.base_text


def merged_version(message: Message, stored: Mapping[str, Any] | None) -> SkillVersion | None:
    """Return the version of the skill that the message makes of `stored`; None if it changes nothing.

    Fields that the message does not carry are kept: only polling removes fields.
    """
    news = message.fields
    if message.type == RATING_UPDATE:
        news = {name: news[name] for name in RATING_FIGURES if name in news}
    if stored is None:
        return version_from(message.key, message.text, message.fields, message.digest, shape=message.shape)
    if message.type != RATING_UPDATE and news.keys() >= stored.keys():
        # The skill is whole: in the very text that came, so that the next poll can see that it is the same.
        if _equal(news, stored):
            return None
        return version_from(message.key, message.text, news, message.digest, shape=message.shape)
    merged = {**stored, **news}
    return None if _equal(merged, stored) else version_from_fields(message.key, merged)


def without_figures(message: Message) -> Message:
    """Return the message without what a rating_update says: then the stored figures are kept."""
    fields = {name: value for name, value in message.fields.items() if name not in RATING_FIGURES}
    return replace(message, text=json_text(fields), fields=fields, digest=None)


def _equal(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    return left == right and same(left, right)


# The connection's life


def asks_for_retry(found: LinkSwitch, written: LinkState | None) -> bool:
    """Tell whether another program has set the attempts or the fallback that we have `written` back to zero."""
    if written is None:
        return False
    return (written.attempts > 0 and found.attempts == 0) or (written.fallback and not found.fallback)


class Rules(Struct, frozen=True):
    """What the schedule depends on: the settings, and whether administrators have `allowed` the connection.

    With `attempts` failures in a row the next try is an hour away; 0 never tries again.
    """

    enabled: bool = True
    heartbeat_seconds: float = 30.0
    attempts: int = 10
    allowed: bool = True

    @property
    def polling_only(self) -> str | None:
        """Return why there must be no connection; None if there may be one."""
        if not self.enabled:
            return "ATOM_SAAS_WS_ENABLED is false: polling only"
        return None if self.allowed else DISABLED_BY_ADMIN


class Do(Enum):
    """What is to be done now."""

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


class Lifeline:
    """The connection's state. Every method takes the time and returns what is to be done.

    A failure is every end of a connection or of an attempt. Only a valid message proves a connection: one that is
    merely accepted does not begin the schedule anew.
    """

    def __init__(self, rules: Rules, jitter: Callable[[], float]) -> None:
        """`jitter` gives numbers from 0 to 1."""
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
        """Tell whether the connection is open, or is being made."""
        return self._phase in {_Phase.OPEN, _Phase.CONNECTING}

    @property
    def token_refused(self) -> bool:
        """Tell whether the last connection ended because of the token."""
        return self._refused

    def due(self) -> float:
        """Return when `tick` has something to do, if nothing else happens."""
        if self._phase is _Phase.WAITING:
            return math.inf if self.next_attempt is None else self.next_attempt
        if self._phase is _Phase.OPEN:
            return min(self._next_ping, self._last_frame + self._stale_after)
        return math.inf

    def start(self, now: float) -> list[Do]:
        """Begin."""
        if (reason := self.rules.polling_only) is not None:
            self._fall_back(now, reason)
            return []
        return self._connect()

    def tick(self, now: float) -> list[Do]:
        """Look at the time."""
        if self._phase is _Phase.WAITING and self.next_attempt is not None and now >= self.next_attempt:
            self.attempts += 1
            self.reconnects += 1
            return self._connect()
        if self._phase is not _Phase.OPEN:
            return []
        if now >= self._last_frame + self._stale_after:
            self._phase = _Phase.GIVEN_UP
            return [Do.HANG_UP]
        if now >= self._next_ping:
            self._next_ping = now + self.rules.heartbeat_seconds
            return [Do.PING]
        return []

    def opened(self, now: float) -> list[Do]:
        """Note that the handshake is done."""
        self._phase = _Phase.OPEN
        self._proven = False
        self._last_frame = now
        self._next_ping = now + self.rules.heartbeat_seconds
        return [Do.PING]

    def frame(self, now: float) -> None:
        """Note that a frame of any kind came."""
        self._last_frame = now

    def message(self, now: float) -> list[Do]:
        """Note that a valid message came: the connection is good, and what was missed is fetched."""
        self.frame(now)
        if self._proven or self._phase is not _Phase.OPEN:
            return []
        self._proven = True
        self._refused = False
        self.failures = self.attempts = 0
        self.reason = None
        self._count_fallback(now)
        self.fallback = False
        return [Do.CATCH_UP]

    def ended(self, now: float, reason: str, *, token_refused: bool = False) -> list[Do]:
        """Note that the connection, or the attempt to get one, has ended, and plan the next."""
        if self.rules.polling_only is not None:
            self._phase = _Phase.IDLE
            return []
        self.failures += 1
        self.reason = reason
        self._refused = token_refused
        self._phase = _Phase.WAITING
        delay = self._delay()
        self.next_attempt = None if delay is None else now + delay
        # With a refused token nothing will come for long: no use in waiting for two more refusals.
        if token_refused or self.failures >= min(FAILURES_BEFORE_FALLBACK, max(1, self.rules.attempts)):
            self._fall_back(now, reason)
        return []

    def new_token(self, now: float) -> list[Do]:
        """Note that there is another token: a refusal of the old one says nothing about it."""
        if self._phase is _Phase.WAITING and self._refused:
            self._refused = False
            self.next_attempt = now + self._spread(FIRST_DELAYS[0])
        return []

    def new_rules(self, now: float, rules: Rules) -> list[Do]:
        """Take new settings over: at once where the connection waits, as it were begun anew; else from now on."""
        self.rules = rules
        if (reason := rules.polling_only) is not None:
            was_open = self.holds
            self._phase = _Phase.GIVEN_UP if was_open else _Phase.IDLE
            self.next_attempt = None
            self._fall_back(now, reason)
            return [Do.HANG_UP] if was_open else []
        if self._phase in {_Phase.WAITING, _Phase.IDLE}:
            return self._connect_anew()
        self._next_ping = min(self._next_ping, now + rules.heartbeat_seconds)
        return []

    def retry(self) -> list[Do]:
        """Connect at once if the next attempt is still to come, as if nothing had failed before."""
        return self._connect_anew() if self._phase is _Phase.WAITING else []

    def take_fallback_seconds(self, now: float) -> float:
        """Return the seconds in fallback since this was last asked."""
        self._count_fallback(now)
        seconds, self._fallback_seconds = self._fallback_seconds, 0.0
        return seconds

    @property
    def _stale_after(self) -> float:
        return self.rules.heartbeat_seconds + PATIENCE_SECONDS

    def _connect(self) -> list[Do]:
        self._phase = _Phase.CONNECTING
        self.next_attempt = None
        return [Do.CONNECT]

    def _connect_anew(self) -> list[Do]:
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
        """Return the seconds until the next attempt, None if there is none any more."""
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
        """Return the delay with jitter, so that a thousand clients do not come back in the same second."""
        return delay * (0.75 + self._jitter() / 2)
