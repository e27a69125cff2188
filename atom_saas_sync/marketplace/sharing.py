"""One bound on the connections of a process, whose clients run in several threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atom_saas_sync.marketplace.connections import Connections

_Key = tuple[str, Path | None, int]


class SharedConnections:
    """Lends the same connections to all clients with the same settings, until the last one has returned them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lent: dict[_Key, tuple[Connections, int]] = {}

    @contextmanager
    def lend(self, url: str, ca_file: Path | None, *, most: int) -> Iterator[Connections]:
        """Yield connections of which at most `most` are open. Raises ConfigError."""
        key = (url, ca_file, most)
        with self._lock:
            connections, users = self._lent.get(key) or (Connections(url, ca_file, most=most), 0)
            self._lent[key] = connections, users + 1
        try:
            yield connections
        finally:
            with self._lock:
                connections, users = self._lent.pop(key)
                if users > 1:
                    self._lent[key] = connections, users - 1
            if users == 1:
                connections.close()


shared_connections = SharedConnections()
"""Those of this process."""
