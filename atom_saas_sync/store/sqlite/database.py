"""The database file: opening it, at the schema of this version.

Only the standard library is imported here: `status` opens the database at every start. And nothing here opens the
database file except through SQLite, or to create it: closing any other descriptor of the file drops all POSIX locks of
this process on it, including those of SQLite's other connections.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from atom_saas_sync.store.limits import BUSY_TIMEOUT_SECONDS
from atom_saas_sync.store.sqlite import revisions
from atom_saas_sync.store.sqlite.connection import Connection
from atom_saas_sync.store.sqlite.failures import translated_errors
from atom_saas_sync.store.sqlite.files import create_file, require_file


class Database(Connection):
    """One connection to the database file, for one thread, at the schema of this version unless `open` says so."""

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
        migrate: bool = True,
        read_only: bool = False,
        create: bool = True,
        adopt: bool | None = None,
        any_thread: bool = False,
    ) -> Database:
        """Open the file, creating it (0600) and its missing directories (0700).

        With `migrate`, a new, empty or foreign database gets our tables, and an older one is upgraded, after a copy
        was put beside it; so is one that the Atom backend made, if `adopt` (default: with `create`). Without `migrate`,
        the database is taken as it is. With `read_only`, nothing is created, upgraded or written; with `migrate` the
        database must then be up to date. Without `create`, the same holds, except that rows may be written: for
        commands that need something in the database. With `any_thread`, several threads may use the connection, but
        never two at a time; the caller ensures that.

        A WAL database cannot be read, even read-only, where its directory is not writable and no writer has it open:
        readers share the -shm file. (`immutable=1` would read, but wrongly while others write.)

        Raises DatabaseError: the path cannot be used, is not a SQLite database, is damaged, full or locked, was made by
        a newer version, or holds another program's table of one of our names.
        """
        path = path.absolute()
        with translated_errors(path, busy_timeout_seconds=busy_timeout_seconds):
            if read_only or not create:
                require_file(path, os.R_OK if read_only else os.R_OK | os.W_OK)
            else:
                create_file(path)
            connection = sqlite3.connect(
                f"{path.as_uri()}?mode={'ro' if read_only else 'rw'}",
                uri=True,
                timeout=busy_timeout_seconds,
                isolation_level=None,
                check_same_thread=not any_thread,
            )
            database = cls(path, connection, busy_timeout_seconds=busy_timeout_seconds)
            try:
                database._prepare(
                    migrate=migrate, as_it_is=read_only or not create, adopt=create if adopt is None else adopt
                )
            except BaseException:
                connection.close()
                raise
        return database

    def _prepare(self, *, migrate: bool, as_it_is: bool, adopt: bool) -> None:
        """Set up the connection, and upgrade the database or refuse it."""
        self.set_up()
        if as_it_is:
            # Fails here rather than in the middle of a report if the file is not a database or cannot be read.
            self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if migrate and adopt and revisions.current(self) is None:
                self._adopt()
            if migrate:
                revisions.require_current(self)
            return
        if migrate:
            if revisions.to_apply(self):
                from atom_saas_sync.store.sqlite import migrations

                migrations.upgrade(self, adopt=adopt)
            # After the upgrade, so that a database which is refused keeps its journal mode.
            self.use_write_ahead_log()

    def _adopt(self) -> None:
        """Adopt the database if the Atom backend made it."""
        from atom_saas_sync.store.sqlite import migrations

        if migrations.origin(self) == "backend":
            migrations.upgrade(self)
