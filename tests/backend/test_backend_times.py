"""Times of any program are compared as times, and printed with `T` and `Z`."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from conftest import Machine
from hypothesis import given
from hypothesis import strategies as st

from atom_saas_sync.store.sqlite import clauses, migrations
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.times import utc_text

NEVER = "9999-12-31T23:59:59Z"
MOMENTS = st.datetimes(datetime(2026, 2, 18), datetime(2026, 2, 21)).map(lambda moment: moment.replace(microsecond=0))  # noqa: DTZ001 - UTC


def blank(moment: datetime) -> str:
    """Return a time as the backend's ORM writes it."""
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")


@given(one=MOMENTS, other=MOMENTS, with_blank=st.booleans())
def test_both_forms_are_compared_as_times(one: datetime, other: datetime, *, with_blank: bool) -> None:
    import sqlite3
    from contextlib import closing

    text = str(one) if with_blank else f"{one.isoformat()}Z"
    conditions = [
        clauses.before("?1", "?2"),
        clauses.after("?1", "?2"),
        clauses.after("?1", "?2", or_at=True),
    ]
    with closing(sqlite3.connect(":memory:")) as connection:
        found = connection.execute(f"SELECT {', '.join(conditions)}", (text, f"{other.isoformat()}Z")).fetchone()
    assert found == (one < other, one > other, one >= other)


@pytest.mark.parametrize("table", ["skill_cache", "category_cache"])
def test_an_expiry_of_the_backend_counts_to_the_second(machine: Machine, table: str) -> None:
    machine.pull()
    machine.clock.move(hours=36)  # everything was confirmed too long ago
    now = machine.clock.now()
    machine.sql(f"UPDATE {table} SET expires_at = ?", blank(now + timedelta(hours=1)))
    machine.sql(
        f"UPDATE {table} SET expires_at = ? WHERE id = (SELECT min(id) FROM {table})", blank(now - timedelta(seconds=1))
    )
    with machine.store() as store:
        plan = store.lifetime().choose(now, older_than=None, everything=False, local=False)
    assert len(plan.skills if table == "skill_cache" else plan.categories) == 1


def test_an_edit_of_the_backend_is_checked_by_the_next_run(machine: Machine) -> None:
    machine.pull()
    name = machine.sandbox.skill_ids()[0]
    machine.unseen_sql(  # so that it counts as the marketplace's
        "UPDATE skill_cache SET skill_data = json_set(skill_data, '$.code', 'evil'), updated_at = ? WHERE skill_id = ?",
        blank(machine.clock.now() + timedelta(seconds=1)),
        name,
    )
    machine.pull()
    assert machine.status().tampered == 1


def test_times_are_printed_with_t_and_z(machine: Machine) -> None:
    machine.command("db", "upgrade")
    machine.sql(
        "INSERT INTO conflict_log (skill_id, conflict_type, severity, created_at) "
        "VALUES ('a', 'OTHER', 'LOW', '2026-02-19 14:15:00.5')"
    )
    machine.sql(
        "INSERT INTO skill_ratings (skill_id, user_id, rating, updated_at) VALUES ('a', 'u', 4, '2026-02-19 14:15:00')"
    )
    for command, key in ((("conflicts", "list"), "conflicts"), (("ratings", "list"), "ratings")):
        found = json.loads(machine.command(*command, "--json").stdout)[key][0]
        assert "2026-02-19T14:15:00Z" in found.values(), command
    assert [utc_text(each) for each in ("2026-02-19 14:15:00", "soon", None)] == ["2026-02-19T14:15:00Z", "soon", None]


@pytest.mark.sqlite("its older migrations")
def test_an_expiry_is_never_null(machine: Machine) -> None:
    machine.pull()
    with Database.open(machine.database_path) as database:
        migrations.downgrade(database, "0019_backend_conflicts")
        machine.sql("UPDATE skill_cache SET expires_at = NULL WHERE id = 1")
        migrations.upgrade(database)
    machine.sql('INSERT INTO skill_cache (skill_id, skill_data) VALUES (\'own\', \'{"skill_id": "own", "name": "o"}\')')
    machine.sql("UPDATE category_cache SET expires_at = NULL")
    for table in ("skill_cache", "category_cache"):
        assert machine.sql(f"SELECT count(*) FROM {table} WHERE expires_at IS NULL") == [(0,)]
    machine.pull()
    assert machine.sql("SELECT skill_id FROM skill_cache WHERE expires_at = ?", NEVER) == [("own",)]
