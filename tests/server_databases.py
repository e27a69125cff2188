"""Databases on a server for tests. Creating one takes half a second on a busy machine, so most tests share one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from atom_saas_sync.store.postgresql.database import Database

_numbers = itertools.count(1)


def new_database(server_url: str) -> str:
    """Return the URL of an empty database."""
    import psycopg

    name = f"test_{next(_numbers)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} STRATEGY file_copy".encode())
    return server_url.replace("/postgres?", f"/{name}?")


def make_database(server_url: str) -> str:
    """Return the URL of a database with our tables."""
    from server_support import opened

    url = new_database(server_url)
    opened(url).close()
    return url


@pytest.fixture(scope="session")
def shared_url(postgresql_server: str) -> str:
    return make_database(postgresql_server)


@pytest.fixture
def database_url(shared_url: str) -> str:
    """Return the URL of a database with our tables and only their initial rows."""
    import psycopg

    from atom_saas_sync.store.postgresql import schema

    with psycopg.connect(shared_url) as connection:
        connection.execute("SET search_path = atom_sync")
        connection.execute("SET LOCAL atom_sync.bulk = on")
        kept = {"skill_seen", "sync_state", "websocket_state"}
        for table in [*(set(schema.expected_columns()) - kept), "skill_seen"]:
            connection.execute(f"DELETE FROM {table}".encode())
        connection.execute("SELECT setval(pg_get_serial_sequence('skill_ratings', 'number'), 1, false)")
    return shared_url


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    from server_support import opened

    with opened(database_url) as database:
        yield database


@pytest.fixture
def own_url(postgresql_server: str) -> str:
    """Return the URL of a database with our tables that the test may damage."""
    return make_database(postgresql_server)
