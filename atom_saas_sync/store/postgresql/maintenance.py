"""Maintenance of the database: the checks and repairs of `db check`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg

from atom_saas_sync.core.server_address import SCHEMA
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.errors import UsageError
from atom_saas_sync.model.upkeep import CheckFinding
from atom_saas_sync.store import findings
from atom_saas_sync.store.postgresql import integrity, migrations, schema
from atom_saas_sync.store.postgresql.backend.checks import check_public
from atom_saas_sync.store.postgresql.backend.rows import join
from atom_saas_sync.store.postgresql.backend.tables import shared
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.postgresql.skill_text import read_due

_RESTORE = "`atom-sync db restore FILE` puts a backup in its place; `pg_restore` brings single tables back"
_REPAIR = "`atom-sync db check --repair` reads all texts again"
# Skills without an entry that are not due, and entries without a skill.
_OUT_OF_STEP = """
    SELECT
        (SELECT count(*) FROM skill_cache AS c
         WHERE NOT EXISTS (SELECT FROM skill_text AS t WHERE t.skill_id = c.skill_id)
            AND NOT EXISTS (SELECT FROM skill_due AS d WHERE d.skill_id = c.skill_id)) AS missing,
        (SELECT count(*) FROM skill_text AS t
         WHERE NOT EXISTS (SELECT FROM skill_cache AS c WHERE c.skill_id = t.skill_id)) AS surplus
"""
_COLUMNS = """
    SELECT c.relname, a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
"""
_TRIGGERS = """
    SELECT c.relname, t.tgname, t.tgenabled::text <> 'D' FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
    WHERE c.relnamespace = current_schema()::regnamespace AND NOT t.tgisinternal
"""
_COLLATION = """
    SELECT datcollversion, pg_database_collation_actual_version(oid) FROM pg_database
    WHERE datname = current_database()
"""


class Upkeep:
    """Checks and repairs of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def check(self, *, quick: bool, signer: Signer | None) -> list[CheckFinding]:  # noqa: ARG002 - see there
        """Check the whole database and return the findings.

        Pages and indexes are left to `pg_amcheck`, so `quick` makes no difference.
        """
        unknown = [name for name, _ in migrations.history(self._database) if name not in migrations.known()]
        pending = migrations.pending(self._database)
        found = [findings.newer_migrations(unknown)] if unknown else []
        if pending:
            return [*found, findings.missing_migrations(pending)]
        with self._database.reading() as connection:
            schema_findings = list(_check_schema(connection))
            found += [*schema_findings, *_check_collation(connection)]
            if not schema_findings:
                found += [*_check_texts(connection), *_check_digests(connection, signer)]
                if self._database.schema == SCHEMA:
                    found += check_public(connection)
        return found

    def repair(self) -> None:
        """Extract the search entries from all texts again, and make the Atom backend's tables equal to ours."""
        with self._database.transaction() as connection:
            if names := shared(connection, self._database.schema):
                join(connection, names, datetime.now(UTC))
            connection.execute("DELETE FROM skill_text")
            connection.execute("INSERT INTO skill_due SELECT skill_id FROM skill_cache ON CONFLICT DO NOTHING")
            read_due(connection)

    def compact(self) -> tuple[int, int]:
        """Refuse: the server does that on its own."""
        raise UsageError(
            "a PostgreSQL server gives unused space back on its own (autovacuum)",
            hint="`VACUUM (FULL)` in psql does it at once, and locks the tables meanwhile",
        )

    def tampered_and_unsigned(self, signer: Signer | None) -> tuple[int, int]:
        """Return how many skills do not match their digest, and how many are not signed."""
        with self._database.reading() as connection:
            return len(integrity.tampered(connection, signer)), len(integrity.unsigned(connection, signer))

    def try_writing(self) -> None:
        """Raise DatabaseError if nothing can be written."""
        with self._database.transaction():
            pass


def _check_schema(connection: psycopg.Connection[Row]) -> Iterator[CheckFinding]:
    """Check that everything that our tables need exists; additional objects are not findings."""
    there: dict[str, set[str]] = {}
    for table, column in connection.execute(_COLUMNS):
        there.setdefault(table, set()).add(column)
    for table, columns in schema.expected_columns().items():
        if table not in there:
            yield CheckFinding("schema", f"the table {table} is missing", _RESTORE)
            continue
        for column in columns:
            if column not in there[table]:
                yield CheckFinding("schema", f"the column {table}.{column} is missing", _RESTORE)
    triggers = {(table, name): enabled for table, name, enabled in connection.execute(_TRIGGERS)}
    for table, name in schema.expected_triggers():
        if (table, name) not in triggers:
            yield CheckFinding("schema", f"the trigger {name} of {table} is missing", _RESTORE)
        elif not triggers[table, name]:
            cure = f"run as its owner: ALTER TABLE {table} ENABLE TRIGGER {name};"
            yield CheckFinding("schema", f"the trigger {name} of {table} is disabled", cure)


def _check_collation(connection: psycopg.Connection[Row]) -> Iterator[CheckFinding]:
    row = connection.execute(_COLLATION).fetchone()
    if row is not None and None not in row and row[0] != row[1]:
        yield CheckFinding(
            "collation",
            f"the database was made with collation version {row[0]}, and the server now has {row[1]}",
            "our keys do not depend on it; for other tables: REINDEX DATABASE, then ALTER DATABASE … REFRESH COLLATION "
            "VERSION",
            wrong=False,
        )


def _check_texts(connection: psycopg.Connection[Row]) -> Iterator[CheckFinding]:
    row = connection.execute(_OUT_OF_STEP).fetchone()
    assert row is not None
    missing, surplus = row
    if missing or surplus:
        yield CheckFinding("search_index", f"{missing} skills cannot be found, {surplus} that are gone can", _REPAIR)


def _check_digests(connection: psycopg.Connection[Row], signer: Signer | None) -> Iterator[CheckFinding]:
    """Find skills that differ from what the marketplace sent, or that must not be in the cache."""
    from atom_saas_sync.store.postgresql.gate.checks import kept_out
    from atom_saas_sync.store.postgresql.gate.offers import spoiled

    yield from map(findings.tampered_text, integrity.tampered(connection, signer))
    yield from (findings.kept_out(skill_id, why) for skill_id, why in kept_out(connection))
    yield from map(findings.tampered_offer, spoiled(connection))
    if unsigned := len(integrity.unsigned(connection, signer)):
        yield findings.not_signed(unsigned)
