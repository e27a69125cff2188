"""What `watch` needs besides the store: a connection, a clock, a supervisor, and the thread that writes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, TypeVar

Result = TypeVar("Result")


class Connection(Protocol):
    """An open connection. All methods raise WebSocketClosed."""

    async def receive(self) -> str | bytes:
        """Return the next frame."""

    async def send(self, text: str) -> None:
        """Send a text frame."""

    async def close(self, reason: str = "") -> None:
        """Close the connection properly, and wait for the peer's reply."""

    def abort(self) -> None:
        """End the connection at once; a `receive` that waits raises WebSocketClosed."""


class Supervisor(Protocol):
    """The service manager: systemd, or none."""

    watchdog_seconds: float | None

    def ready(self) -> None:
        """Report that the service is ready."""

    def status(self, text: str) -> None:
        """Report the current activity in one line."""

    def alive(self) -> None:
        """Send a keep-alive."""

    def stopping(self) -> None:
        """Report that the service is stopping."""


class Service(Protocol):
    """One of the services that `watch` runs together."""

    async def run(self) -> None:
        """Run until cancelled."""


class Clock(Protocol):
    """The injected clock."""

    def now(self) -> datetime:
        """Return the time as an aware datetime; it may be set back."""

    def monotonic(self) -> float:
        """Return monotonic seconds."""


class Write(Protocol):
    """The one thread that may use the store."""

    async def __call__(self, verb: Callable[..., Result], *arguments: object) -> Result:
        """Call `verb` in the writer thread and return its result. Raises what `verb` raises."""
