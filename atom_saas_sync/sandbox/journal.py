"""The sandbox's log of requests, and the counters that tests read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

_SECRET_HEADERS = {"authorization", "x-api-token", "x-federation-key", "cookie", "proxy-authorization"}
_KEPT = 50_000


@dataclass(slots=True)
class LoggedRequest:
    """One request. `status` is 0 until a status is sent; `at` is on the monotonic clock."""

    method: str
    path: str
    query: str
    endpoint: str
    headers: dict[str, str]
    status: int = 0
    bytes: int = 0
    body: Any = None
    at: float = field(default_factory=time.monotonic)


class Journal:
    """Log and counters, thread-safe; `wait_for` waits for an event, so that tests need not sleep."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._requests: list[LoggedRequest] = []
        self.counters = {"requests": 0, "connections": 0, "connections_open": 0, "connections_max": 0}

    def begin(self, entry: LoggedRequest) -> LoggedRequest:
        """Log a request on arrival; its status is set later."""
        entry.headers = {key: "***" if key in _SECRET_HEADERS else value for key, value in entry.headers.items()}
        with self._changed:
            self.counters["requests"] += 1
            if len(self._requests) < _KEPT:
                self._requests.append(entry)
            self._changed.notify_all()
        return entry

    def requests(self, endpoint: str | None = None) -> list[LoggedRequest]:
        """Return copies of the logged requests, for one endpoint or all."""
        with self._changed:
            return [replace(entry) for entry in self._requests if endpoint in (None, entry.endpoint)]

    def documents(self) -> list[dict[str, Any]]:
        """Return the log for JSON."""
        return [asdict(entry) for entry in self.requests()]

    def connection_opened(self) -> None:
        """Count an HTTP connection."""
        with self._changed:
            counters = self.counters
            counters["connections"] += 1
            counters["connections_open"] += 1
            counters["connections_max"] = max(counters["connections_max"], counters["connections_open"])
            self._changed.notify_all()

    def connection_closed(self) -> None:
        """Count an HTTP connection that ended or became a WebSocket."""
        with self._changed:
            self.counters["connections_open"] -= 1
            self._changed.notify_all()

    def notify(self) -> None:
        """Wake all waiters, so that they check their condition again."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool], timeout: float = 5.0) -> bool:
        """Wait until the condition holds; return False after the time limit."""
        with self._changed:
            return self._changed.wait_for(condition, timeout)

    def reset(self) -> None:
        """Clear the log and reset the counters, except those of open connections."""
        with self._changed:
            self._requests.clear()
            still_open, listening = self.counters["connections_open"], self.counters.get("ws_open", 0)
            for name in self.counters:
                self.counters[name] = 0
            self.counters |= dict.fromkeys(("connections", "connections_open", "connections_max"), still_open)
            self.counters |= dict.fromkeys(("ws_connections", "ws_open"), listening)
