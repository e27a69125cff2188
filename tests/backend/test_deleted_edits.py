"""Edits whose row another program deletes, such as the Atom backend's job that removes expired entries."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Machine

from atom_saas_sync.store.sqlite import migrations
from atom_saas_sync.store.sqlite.database import Database


def edits_deleted(machine: Machine) -> int:
    return machine.status().edits_deleted


def history(machine: Machine, skill_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(machine.command("skills", "log", skill_id, "--json").stdout)["versions"]
    return found


def test_the_text_is_kept_and_shown_until_a_user_has_seen_it(machine: Machine) -> None:
    machine.pull()
    edited, untouched = machine.sandbox.skill_ids()[:2]
    machine.edit(edited, description="mine")
    own = json.dumps({"skill_id": "own", "name": "Own", "description": "only here"})
    machine.sql("INSERT INTO skill_cache (skill_id, skill_data) VALUES ('own', ?)", own)
    machine.sql("DELETE FROM skill_cache WHERE skill_id IN (?, ?, 'own')", edited, untouched)
    status = json.loads(machine.command("status", "--json").stdout)
    assert status["cache"]["edits_deleted"] == 2
    assert "edits_deleted" in status["health"]["notices"]
    (kept,) = history(machine, "own")
    assert (kept["ended_by"], kept["origin"]) == ("deleted_here", "local")
    assert edits_deleted(machine) == 1
    machine.pull()
    assert machine.cached() == machine.listed()
    assert edits_deleted(machine) == 1
    assert [each["ended_by"] for each in history(machine, edited)] == [None, "deleted_here"]
    assert [each["ended_by"] for each in history(machine, untouched)] == [None]
    assert edits_deleted(machine) == 0
    number = history(machine, edited)[1]["number"]
    shown = machine.command("skills", "show", edited, "--version", str(number), "--json").stdout
    assert '"mine"' in shown


def test_an_invalid_skill_goes_to_the_audit_log(machine: Machine) -> None:
    machine.pull()
    machine.sql("INSERT INTO skill_cache (skill_id, skill_data) VALUES ('odd', '[')")
    machine.sql("DELETE FROM skill_cache WHERE skill_id = 'odd'")
    machine.pull()
    assert machine.sql("SELECT action, subject FROM audit_log") == [("deleted here", "odd")]


@pytest.mark.sqlite("its older migrations")
def test_a_downgrade_says_what_it_loses(machine: Machine) -> None:
    machine.pull()
    own = json.dumps({"skill_id": "own", "name": "o"})
    machine.sql("INSERT INTO skill_cache (skill_id, skill_data) VALUES ('own', ?)", own)
    machine.sql("DELETE FROM skill_cache WHERE skill_id = 'own'")
    machine.pull()
    with Database.open(machine.database_path) as database:
        assert migrations.loss(database, "0020_expiry")["deleted local edits"] == 1
        migrations.downgrade(database, "0020_expiry")
        migrations.upgrade(database)
