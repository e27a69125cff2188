"""Writing many rows at once, without the triggers that other programs' writes need (schema.py)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def bulk_write(connection: sqlite3.Connection) -> Iterator[None]:
    """Let the triggers stand aside within the block, which is inside one transaction and does their work itself."""
    connection.execute("INSERT INTO bulk_write (process) VALUES (1)")
    yield
    connection.execute("DELETE FROM bulk_write")
