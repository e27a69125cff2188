"""Opening a database on a PostgreSQL server, at the schema of this version."""

from __future__ import annotations

from typing import Self

from atom_saas_sync.core.server_address import ServerAddress
from atom_saas_sync.store.limits import BUSY_TIMEOUT_SECONDS
from atom_saas_sync.store.postgresql import migrations
from atom_saas_sync.store.postgresql.connection import Connection


class Database(Connection):
    """One connection to the server; its schema is that of this version unless `open` allows another."""

    @classmethod
    def open(
        cls,
        address: ServerAddress,
        *,
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
        migrate: bool = True,
        read_only: bool = False,
        create: bool = True,
        adopt: bool | None = None,
    ) -> Self:
        """Connect, and create our tables in an empty schema.

        With `migrate`, any other database must be up to date (`db upgrade`); without, any version is accepted. With
        `read_only`, nothing is created or written, and a standby is accepted. Without `create`, nothing is created, but
        the database may be written to; a standby is refused only then. With `adopt` (default: as `create`), tables of
        the Atom backend are shared from then on.

        Raises ConfigError for an unsuitable server or account, and DatabaseError.
        """
        database = cls(
            address, busy_timeout_seconds=busy_timeout_seconds, writes=not read_only, perhaps=not (read_only or create)
        )
        try:
            if migrate and not read_only:
                migrations.prepare(database, create=create, adopt=create if adopt is None else adopt)
            elif migrate:
                migrations.require_current(database)
        except BaseException:
            database.close()
            raise
        return database
