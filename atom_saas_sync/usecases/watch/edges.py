"""What `watch` needs besides the store: a connection, a clock, a supervisor, and the thread that writes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, TypeVar

Result = TypeVar("Result")


class Connection(Protocol):
    """An open connection. Its methods raise WebSocketClosed."""

    async def receive(self) -> str | bytes:
        """Return the next frame."""

    async def send(self, text: str) -> None:
        """Send a text frame."""

    async def close(self, reason: str = "") -> None:
        """Say goodbye, and wait for the answer of the other side."""

    def abort(self) -> None:
        """End the connection at once; a `receive` that waits raises WebSocketClosed."""


class Supervisor(Protocol):
    """Whoever started the service: systemd, or nobody."""

    watchdog_seconds: float | None

    def ready(self) -> None:
        """Tell that the start is over."""

    def status(self, text: str) -> None:
        """Tell in one line what the service does."""

    def alive(self) -> None:
        """Give a sign of life."""

    def stopping(self) -> None:
        """Tell that the end has begun."""


class Service(Protocol):
    """One of the services that `watch` runs together."""

    async def run(self) -> None:
        """Work until it is cancelled."""


class Clock(Protocol):
    """Time, handed in."""

    def now(self) -> datetime:
        """Return the time as an aware datetime; it may be set back."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""


class Write(Protocol):
    """The one thread that may use the store."""

    async def __call__(self, verb: Callable[..., Result], *arguments: object) -> Result:
        """Do something with the store there, and return its result. Raises what `verb` raises."""
