"""Ratings live in the Atom backend's tables; the guide's names are views that plain SQL reads and writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Machine
from machine_databases import FileDatabase

from atom_saas_sync.store.sqlite import migrations
from atom_saas_sync.store.sqlite.database import Database

UUID = "0b6c3b1e-9f5e-4a51-8f0e-6a3a4f4f9d10"


@pytest.fixture
def skill(machine: Machine) -> str:
    """Return a skill of the marketplace; the database is there."""
    machine.store().close()
    return machine.sandbox.skill_ids()[0]


def test_a_rating_with_an_id_of_the_backend_is_sent_once(machine: Machine, skill: str) -> None:
    machine.sql(
        "INSERT INTO skill_ratings (id, tenant_id, skill_id, user_id, rating, review, synced_to_saas, updated_at) "
        "VALUES (?, 'default', ?, 'ann', 4, 'fine', FALSE, ?)",
        UUID,
        skill,
        machine.clock.now().strftime("%Y-%m-%d %H:%M:%S.%f"),
    )
    assert machine.send_ratings().counts.uploaded == 1
    assert machine.send_ratings().counts.uploaded == 0
    assert [each["user_id"] for each in machine.sandbox.ratings()] == ["ann"]
    shown = json.loads(machine.command("ratings", "show", UUID, "--json").stdout)["rating"]
    assert (shown["id"], shown["state"]) == (UUID, "sent")


def test_the_guides_names_can_be_read_and_written(machine: Machine, skill: str) -> None:
    def ratings() -> list[Any]:
        return machine.sql("SELECT id, user_id, rating, synced_to_saas FROM skill_rating ORDER BY user_id")

    machine.sql("INSERT INTO skill_rating (skill_id, user_id, rating) VALUES (?, 'ann', 4)", skill)
    machine.sql("INSERT INTO skill_rating (id, skill_id, user_id, rating) VALUES ('7', ?, 'bob', 2)", skill)
    machine.sql("INSERT INTO skill_rating (skill_id, user_id, rating) VALUES (?, 'cat', 5)", skill)
    next_id = "8" if isinstance(machine.database, FileDatabase) else "3"  # a server numbers those without an id
    assert ratings() == [("1", "ann", 4, 0), ("7", "bob", 2, 0), (next_id, "cat", 5, 0)]
    machine.send_ratings()
    machine.sql("UPDATE skill_rating SET rating = 3 WHERE user_id = 'bob'")
    machine.sql(
        "INSERT OR REPLACE INTO skill_rating (skill_id, user_id, rating) VALUES (?, 'cat', 1)",
        skill,
        on_server="INSERT INTO skill_ratings (skill_id, user_id, rating) VALUES (?, 'cat', 1) "
        "ON CONFLICT (skill_id, user_id) DO UPDATE SET rating = excluded.rating",
    )
    next_id = "9" if isinstance(machine.database, FileDatabase) else "3"  # SQLite's REPLACE makes another row
    assert ratings() == [("1", "ann", 4, 1), ("7", "bob", 3, 0), (next_id, "cat", 1, 0)]
    written = "INSERT INTO failed_rating_upload (rating_id, error_message, failed_at) VALUES ('7', 'no', ?)"
    machine.sql(written, "2026-02-19T12:00:00Z")
    machine.sql("UPDATE failed_rating_upload SET retry_count = 5")
    assert machine.sql("SELECT rating_id, retry_count, max_retries FROM failed_rating_uploads") == [("7", 5, 5)]
    assert machine.status().ratings_failed == 1
    machine.sql("DELETE FROM skill_rating WHERE id = '7'")
    assert machine.sql("SELECT * FROM failed_rating_upload") == []
    assert machine.command("db", "check").returncode == 0


def test_a_failure_that_the_backend_wrote_is_tried_again(machine: Machine, skill: str) -> None:
    machine.sql("INSERT INTO skill_ratings (id, skill_id, user_id, rating) VALUES ('r', ?, 'ann', 4)", skill)
    for name in ("first", "second"):
        machine.sql(
            "INSERT INTO failed_rating_uploads (id, rating_id, error_message, failed_at, retry_count, max_retries) "
            "VALUES (?, 'r', 'timeout', '2026-02-19 10:00:00', 1, 3)",
            name,
        )
    assert machine.status().ratings_failed == 1
    machine.sandbox.fault("error", endpoint="ratings", status=422, times=1)
    assert machine.send_ratings().counts.failed == 1
    assert machine.sql("SELECT id, retry_count FROM failed_rating_uploads") == [("first", 1), ("second", 3)]
    assert machine.send_ratings(retry_failed=True).counts.uploaded == 1
    assert machine.sql("SELECT * FROM failed_rating_uploads") == []


def test_an_answer_may_name_the_rating_by_id(machine: Machine) -> None:
    from atom_saas_sync.core.incoming.ratings import parse_receipt

    assert parse_receipt(b'{"success": true, "id": 17}').rating_id == "17"
    assert parse_receipt(b'{"rating_id": "a", "id": "b"}').rating_id == "a"


@pytest.mark.sqlite("its older migrations")
def test_ratings_of_an_older_database_keep_their_state(machine: Machine, skill: str) -> None:
    path = machine.database_path
    with Database.open(path) as database:
        migrations.downgrade(database, "0014_websocket_switch")
        with database.transaction() as connection:
            for number, user in enumerate(("sent", "pending", "failed"), start=3):
                connection.execute(
                    "INSERT INTO skill_rating (id, skill_id, user_id, rating) VALUES (?, ?, ?, 4)",
                    (number, skill, user),
                )
            connection.execute(
                "UPDATE skill_rating SET synced_to_saas = TRUE, remote_rating_id = 'x', base_digest = x'01', "
                "note = 'n', replaced = '{}' WHERE id = 3"
            )
            connection.execute(
                "INSERT INTO failed_rating_upload (rating_id, error_message, failed_at, next_retry_at, retry_count) "
                "VALUES (5, 'no', '2026-02-19T10:00:00Z', '2099-01-01T00:00:00Z', 2)"
            )
        columns = "skill_id, user_id, rating, synced_to_saas, remote_rating_id, base_digest, note, replaced, version"
        before = machine.sql(f"SELECT {columns} FROM skill_rating ORDER BY id")
        failed = machine.sql("SELECT error_message, failed_at, next_retry_at, retry_count FROM failed_rating_upload")
        migrations.upgrade(database)
    for table in ("skill_rating", "skill_ratings"):
        assert machine.sql(f"SELECT {columns} FROM {table} ORDER BY id") == before
    assert machine.sql("SELECT id FROM skill_ratings ORDER BY id") == [("3",), ("4",), ("5",)]
    assert machine.sql("SELECT rating_id FROM failed_rating_uploads") == [("5",)]
    assert failed == machine.sql(
        "SELECT error_message, failed_at, next_retry_at, retry_count FROM failed_rating_upload"
    )
    with Database.open(path) as database:
        migrations.downgrade(database, "0014_websocket_switch")
    assert machine.sql(f"SELECT {columns} FROM skill_rating ORDER BY id") == before
    assert machine.sql("SELECT rating_id FROM failed_rating_upload") == [(5,)]
