"""Conflicts that the Atom backend resolves by writing `conflict_log`: atom-sync never overrides its resolution."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Machine

from atom_saas_sync.store.sqlite import migrations
from atom_saas_sync.store.sqlite.database import Database

STRATEGIES = ("remote_wins", "local_wins", "merge", "manual")

# Each strategy, some of them twice.
TEN_TIMES = [*STRATEGIES, *STRATEGIES, *STRATEGIES][:10]


def conflicting(machine: Machine, *, deleted: bool = False, number: int = 1) -> list[str]:
    """Change some skills on both sides, or delete them there, so that their conflicts are open."""
    machine.pull()
    names = machine.sandbox.skill_ids()[:number]
    for name in names:
        machine.edit(name, description="mine")
        if deleted:
            machine.sandbox.delete_skill(name)
        else:
            machine.sandbox.put_skill({**machine.sandbox.skill(name), "description": "theirs"})
    machine.pull(strategy="manual")
    return names


def resolve(machine: Machine, skill_id: str, strategy: str | None, result: Any) -> None:
    """Resolve the open conflict as the backend's services do."""
    machine.sql(
        "UPDATE conflict_log SET resolution_strategy = ?, resolved_data = ?, resolved_at = '2026-02-19 12:00:00.5', "
        "resolved_by = 'admin@example.org' WHERE skill_id = ? AND resolved_at IS NULL",
        strategy,
        json.dumps(result),
        skill_id,
    )


def log(machine: Machine) -> list[Any]:
    return machine.sql("SELECT resolution_strategy, resolved_by, resolved, applied FROM conflict_log ORDER BY id")


def open_conflicts(machine: Machine) -> list[str]:
    return [each.skill_id for each in machine.conflicts() if not each.resolved]


def descriptions(machine: Machine, names: list[str]) -> list[str]:
    cached = machine.cached()
    return [cached[name]["description"] for name in names]


def test_a_resolution_of_the_backend_survives_each_strategy(machine: Machine) -> None:
    names = conflicting(machine, number=3)
    cached = machine.cached()
    wanted = ["mine", "theirs", "agreed"]
    for name, description in zip(names, wanted, strict=True):
        remote = machine.sandbox.skill(name)
        resolve(
            machine, name, "manual", remote if description == "theirs" else {**cached[name], "description": description}
        )
    for strategy in TEN_TIMES:
        assert machine.pull(strategy=strategy).counts.conflicts_detected == 0
        assert descriptions(machine, names) == wanted
    assert log(machine) == [("manual", "admin@example.org", 1, 1)] * 3
    sources = dict(machine.sql("SELECT skill_id, source FROM usable_skill"))
    assert [sources[name] for name in names] == ["edited", "marketplace", "edited"]
    assert machine.command("db", "check").returncode == 0


def test_a_resolved_deletion_survives_each_strategy(machine: Machine) -> None:
    going, staying = conflicting(machine, deleted=True, number=2)
    assert machine.sql("SELECT remote_data, resolved FROM conflict_log") == [("{}", 0)] * 2
    resolve(machine, going, "remote_wins", None)
    resolve(machine, staying, "local_wins", None)
    for strategy in TEN_TIMES:
        assert machine.pull(strategy=strategy).counts.conflicts_detected == 0
        assert going not in machine.cached()
        assert machine.sql("SELECT source FROM usable_skill WHERE skill_id = ?", staying) == [("local",)]
    assert sorted(row[0] for row in log(machine)) == ["local_wins", "remote_wins"]


def test_the_guides_update_of_resolved_is_a_resolution(machine: Machine) -> None:
    names = conflicting(machine)
    machine.sql("UPDATE conflict_log SET resolved = TRUE")
    assert machine.sql("SELECT count(*) FROM conflict_log WHERE resolved_at IS NULL") == [(0,)]
    machine.pull()
    assert descriptions(machine, names) == ["mine"]
    machine.sql("UPDATE conflict_log SET resolved = FALSE")
    assert machine.sql("SELECT resolved_at, applied FROM conflict_log") == [(None, 0)]


def test_an_edit_made_since_is_not_overwritten(machine: Machine) -> None:
    names = conflicting(machine)
    machine.edit(names[0], description="newer")
    resolve(machine, names[0], "remote_wins", machine.sandbox.skill(names[0]))
    machine.pull(strategy="remote_wins")
    assert descriptions(machine, names) == ["newer"]


def test_the_newest_of_several_open_conflicts_counts(machine: Machine) -> None:
    (name,) = conflicting(machine)
    machine.sql(
        "INSERT INTO conflict_log (skill_id, conflict_type, severity, local_data, remote_data) "
        "SELECT skill_id, conflict_type, severity, local_data, remote_data FROM conflict_log"
    )
    machine.pull(strategy="manual")
    assert open_conflicts(machine) == [name, name]
    assert machine.command("conflicts", "resolve", "2", "--strategy", "local_wins").returncode == 0
    assert open_conflicts(machine) == []
    assert machine.pull().counts.conflicts_detected == 0


def test_a_conflict_of_a_rating_is_not_one_of_a_skill(machine: Machine) -> None:
    machine.pull()
    first, before = machine.sandbox.skill_ids()[0], machine.cached()
    machine.sql(
        "INSERT INTO conflict_log (skill_id, conflict_type, severity, local_data, remote_data) "
        "VALUES (?, 'OTHER', 'LOW', ?, ?)",
        first,
        json.dumps({"rating_id": "r1", "rating": 4}),
        json.dumps({"rating_id": "r1", "rating": 2}),
    )
    machine.pull()
    assert (machine.conflicts(), machine.cached()) == ([], before)
    machine.sql("UPDATE conflict_log SET resolved_at = '2026-02-19 12:00:00', resolved_data = remote_data")
    machine.pull()
    assert (machine.cached(), machine.status().conflicts_resolved) == (before, 0)


@pytest.mark.sqlite("its older migrations")
def test_an_older_database_and_versions_that_are_null(machine: Machine) -> None:
    (name,) = conflicting(machine)
    with Database.open(machine.database_path) as database:
        migrations.downgrade(database, "0018_history_index")
        assert machine.sql("SELECT resolved FROM conflict_log") == [(0,)]
        machine.sql(
            "INSERT INTO conflict_log (skill_id, conflict_type, severity, resolved) VALUES ('b', 'x', 'LOW', 1)"
        )
        migrations.upgrade(database)
    assert open_conflicts(machine) == [name]
    assert machine.sql("SELECT applied, resolved_at IS NULL FROM conflict_log") == [(0, 1), (1, 0)]
    machine.sql("INSERT INTO conflict_log (skill_id, conflict_type, severity) VALUES ('a', 'OTHER', 'LOW')")
    machine.sql("UPDATE conflict_log SET remote_data = NULL WHERE skill_id = 'a'")
    assert machine.sql("SELECT local_data, remote_data FROM conflict_log WHERE skill_id = 'a'") == [("{}", "{}")]
