"""What a database server says about itself."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class ServerFacts(Struct, frozen=True):
    """A PostgreSQL server and our session on it, as `doctor` examines them."""

    version: int
    """`server_version_num`: 150018 is 15.18."""
    role: str
    schema: str
    is_local: bool
    """Whether the connection stays on this machine."""
    sslmode: str
    is_encrypted: bool
    clock_ahead_seconds: float
    """How far the server's clock is ahead of this host's."""
    is_standby: bool
    pooling: Literal["none", "session", "transaction"]
    collation: tuple[str | None, str | None]
    """The collation version with which the database was made, and the server's."""
    lacking: tuple[tuple[str, str], ...] = ()
    """The rights that the role lacks: each a privilege and the object, as in GRANT."""
    owner: str = ""
    """The role that owns our schema, or that would own it."""
    lacking_in_public: tuple[tuple[str, str], ...] = ()
    """The rights on the Atom backend's tables that the owner lacks, likewise."""
    only_reads: bool = False
    """Whether its administrator lets sessions only read (`default_transaction_read_only`)."""
