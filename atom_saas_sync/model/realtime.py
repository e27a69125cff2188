"""The WebSocket connection and its messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct, field


class MessageMark(Struct, frozen=True):
    """The last applied message about a key: when it was sent, and whether it was a deletion."""

    sent_at: datetime | None
    deleted: bool = False


class ConnectionSwitch(Struct, frozen=True):
    """What other programs may write into the connection's state: `enabled`, and zeros to reconnect at once."""

    enabled: bool = True
    attempts: int = 0
    fallback: bool = False


class ReportedConnection(Struct, frozen=True):
    """The connection's state as reported by `watch`, and its counts since the last report.

    `reconnects`, `invalid`, `internal_errors`, `messages` by type and `fallback_seconds` are added to the counters.
    """

    connected: bool
    ws_url: str
    connected_at: datetime | None = None
    reason: str | None = None
    attempts: int = 0
    failures: int = 0
    fallback: bool = False
    next_attempt_at: datetime | None = None
    last_message_at: datetime | None = None
    messages: Mapping[str, int] = field(default_factory=dict)
    invalid: int = 0
    internal_errors: int = 0
    reconnects: int = 0
    fallback_seconds: float = 0.0
