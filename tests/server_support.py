"""Helpers for tests of a database on a server."""

from __future__ import annotations

from dataclasses import replace

from atom_saas_sync.core.server_address import read_server_address
from atom_saas_sync.store.postgresql.database import Database

NOON = "2026-07-04T12:00:00Z"


def opened(url: str, *, host: str = "", read_only: bool = False, busy_timeout_seconds: float = 10) -> Database:
    address = replace(read_server_address(url), this_host=host)
    return Database.open(address, read_only=read_only, busy_timeout_seconds=busy_timeout_seconds)


def nothing(_: float) -> None:
    """Wait no longer."""
