"""The store on a PostgreSQL server, which many hosts may share."""

from __future__ import annotations

from atom_saas_sync.errors import ConfigError


def require_driver() -> None:
    """Refuse an installation without the driver, before any other module of this room is imported."""
    try:
        import psycopg  # noqa: F401 - is it there, with the library that it needs?
    except ImportError as error:
        raise ConfigError(
            "a database on a PostgreSQL server needs the driver psycopg, which is not installed",
            hint="run: pip install 'atom-saas-sync[postgresql]'",
        ) from error
