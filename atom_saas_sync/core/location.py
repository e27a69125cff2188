"""The location of the database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from atom_saas_sync.core.server_address import ServerAddress

Location: TypeAlias = "Path | ServerAddress"
"""The file of an SQLite database, or the address of a PostgreSQL server. As text neither shows a password."""
