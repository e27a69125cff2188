"""The checks of `db check` in `public`: whether the Atom backend sees the contents of our tables."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from atom_saas_sync.model.upkeep import CheckFinding
from atom_saas_sync.store.backend_tables import BY_NAME
from atom_saas_sync.store.postgresql import schema
from atom_saas_sync.store.postgresql.backend import tables, triggers
from atom_saas_sync.store.postgresql.rows import Row

_UPGRADE = "`atom-sync db upgrade` makes what is missing"
_DISABLED = """
    SELECT c.oid::regclass::text, t.tgname::text FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
    JOIN pg_proc AS p ON p.oid = t.tgfoid
    WHERE p.pronamespace = to_regnamespace('atom_sync') AND t.tgenabled = 'D' AND t.tgname = ANY(%s) ORDER BY 1, 2
"""


def check_public(connection: psycopg.Connection[Row]) -> Iterator[CheckFinding]:
    """Check the views, the triggers on the backend's tables, and the rows of its caches."""
    there = tables.standing(connection, tuple(schema.public_views()))
    for name in schema.public_views():
        found = there.get(name)
        if found is None:
            yield CheckFinding("backend", f"the view public.{name} is missing", _UPGRADE)
        elif found.can_be_shared:
            yield CheckFinding("backend", f"the Atom backend's table public.{name} is not shared", _UPGRADE)
        elif found.is_table and not found.is_shared and name in BY_NAME:
            grant = f'GRANT {", ".join(tables.RIGHTS)} ON public.{name} TO "{connection.info.user}"'
            yield CheckFinding(
                "backend",
                f"ratings are not shared: no rights on the Atom backend's table public.{name}",
                f"run as its owner: {grant}; then `atom-sync db upgrade`",
                wrong=False,
            )
    names = [*triggers.ON_OURS, *triggers.ON_THEIRS]
    for table, trigger in connection.execute(_DISABLED, (names,)).fetchall():
        yield CheckFinding(
            "backend",
            f"the trigger {trigger} of {table} is disabled",
            f"run as its owner: ALTER TABLE {table} ENABLE TRIGGER {trigger}; then `atom-sync db check --repair`",
        )
    for name in triggers.CACHES:
        if name in there and there[name].is_shared and "SELECT" not in there[name].lacking:
            yield from _check_rows(connection, name)


def _check_rows(connection: psycopg.Connection[Row], name: str) -> Iterator[CheckFinding]:
    row = connection.execute(triggers.differences(name)).fetchone()
    assert row is not None
    missing, surplus, different, unfit = row
    told = ((missing, "missing in"), (surplus, "only in"), (different, "different in"))
    for number, where in told:
        if number:
            yield CheckFinding(
                "backend",
                f"{_rows_are(number, name)} {where} the Atom backend's table",
                "`atom-sync db check --repair` makes both equal",
            )
    if unfit:
        yield CheckFinding(
            "backend",
            f"{_rows_are(unfit, name)} not in the Atom backend's table: jsonb cannot hold the text",
            "the view usable_skill has it",
            wrong=False,
        )


def _rows_are(number: int, name: str) -> str:
    return f"{number:,} {'row' if number == 1 else 'rows'} of {name} {'is' if number == 1 else 'are'}"
