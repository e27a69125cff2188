"""The migrations of a database on a server, for `db`."""

from __future__ import annotations

from atom_saas_sync.model.upkeep import Change
from atom_saas_sync.store.postgresql import migrations
from atom_saas_sync.store.postgresql.connection import Connection


class Schema:
    """The migrations of one database."""

    def __init__(self, database: Connection) -> None:
        self._database = database

    def current(self) -> str | None:
        """Return the latest migration that the database has, None before the first one."""
        return migrations.current(self._database)

    def pending(self) -> list[str]:
        """Return the migrations that the database does not have."""
        return migrations.pending(self._database)

    def history(self) -> list[tuple[str, str | None]]:
        """Return each migration with the time it was applied."""
        return migrations.history(self._database)

    def origin(self) -> str:
        """Return whose tables are in `public`: the Atom backend's own, or our views."""
        from atom_saas_sync.store.postgresql.backend.tables import origin

        with self._database.reading() as connection:
            return origin(connection, self._database.schema)

    def loss(self, target: str | int) -> dict[str, int]:
        """Return what a downgrade would lose, and how much."""
        return migrations.loss(self._database, target)

    def upgrade(self, target: str | None = None) -> Change:
        """Apply what is pending."""
        return migrations.upgrade(self._database, target)

    def downgrade(self, target: str | int) -> Change:
        """Revert migrations."""
        return migrations.downgrade(self._database, target)
