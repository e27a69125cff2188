"""Write many rows at once, without the triggers that exist for other programs' writes (schema.py)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def bulk_write(connection: sqlite3.Connection) -> Iterator[None]:
    """Disable the triggers within the block, which runs in one transaction and does their work itself."""
    connection.execute("INSERT INTO bulk_write (process) VALUES (1)")
    yield
    connection.execute("DELETE FROM bulk_write")
