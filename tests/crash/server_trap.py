"""Executed before a command, this ends its process, or its session on the server, at a chosen statement.

A point is the moment before or after a statement. Each point that is reached is appended to the file CRASH_TRACE; those
whose names begin with CRASH_POINT are counted. What happens at number CRASH_AT, CRASH_HOW says: `client` kills the
process, `session` lets the server end the session, `backend` kills the server's process (the server then restarts), and
`stop` stops the process until somebody lets it continue. Nothing of this is in the product.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

_SIGNALS = {
    "client": signal.SIGKILL,
    "session": signal.SIGTERM,
    "backend": signal.SIGKILL,
    "stop": signal.SIGSTOP,
}


def _set(trace: str, counted: str, die_at: int, how: str) -> None:
    import psycopg

    turn = threading.Lock()
    file = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    reached = 0

    def point(name: str, connection: Any) -> None:
        nonlocal reached
        with turn:
            reached += name.startswith(counted)
            os.write(file, f"{name}\n".encode())
            if reached == die_at and name.startswith(counted):
                victim = connection.info.backend_pid if how in {"session", "backend"} else os.getpid()
                os.kill(victim, _SIGNALS[how])

    execute = psycopg.Cursor.execute

    def execute_trapped(self: Any, query: Any, *arguments: Any, **named: Any) -> Any:
        verb = (query if isinstance(query, str) else type(query).__name__).split(maxsplit=1)[0]
        point(f"before {verb}", self.connection)
        result = execute(self, query, *arguments, **named)
        point(f"after {verb}", self.connection)
        return result

    psycopg.Cursor.execute = execute_trapped  # type: ignore[method-assign]


if "CRASH_TRACE" in os.environ:
    _set(
        os.environ["CRASH_TRACE"],
        os.environ.get("CRASH_POINT", ""),
        int(os.environ.get("CRASH_AT", "0")),
        os.environ.get("CRASH_HOW", "client"),
    )
