"""`runs list` and `runs show` for users and programs."""

from __future__ import annotations

import json

from conftest import Machine
from machine_databases import new_database
from rich.cells import cell_len


def test_runs_are_listed_and_shown(machine: Machine) -> None:
    machine.pull()
    machine.sandbox.fault("error", endpoint="list", status=500)
    machine.pull()
    machine.sandbox.clear_faults()
    machine.send_ratings(hashed=True)
    listed = json.loads(machine.command("runs", "list", "--json").stdout)
    assert (listed["success"], listed["total"]) == (True, 3)
    assert [(run["id"], run["kind"], run["status"]) for run in listed["runs"]] == [
        (3, "ratings", "success"),
        (2, "skills", "partial"),
        (1, "skills", "success"),
    ]
    shown = json.loads(machine.command("runs", "show", "2", "--json").stdout)
    assert shown == {"success": True, "run": listed["runs"][1]}
    assert shown["run"]["error"]["type"] == "api_error"
    assert shown["run"]["ended_at"] > "2026"
    lines = machine.command("runs", "list", "--kind", "skills", COLUMNS="80").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["id", "2", "1"]
    assert max(map(cell_len, lines)) <= 80
    screen = machine.command("runs", "show", "1").stdout
    assert "added: 60" in screen
    assert "distinct ids: 60" in screen
    assert "by tester" in screen
    limited = machine.command("runs", "list", "--limit", "1")
    assert len(limited.stdout.splitlines()) == 2
    assert limited.stderr == "3 runs; 2 more: see --limit\n"


def test_an_unknown_run_and_an_invalid_kind(machine: Machine) -> None:
    machine.pull()
    absent = machine.command("runs", "show", "77", "--json")
    assert absent.returncode == 1
    assert json.loads(absent.stdout)["error"]["type"] == "not_found"
    wrong = machine.command("runs", "list", "--kind", "skill")
    assert wrong.returncode == 2
    assert "expected skills, categories, ratings, all, watch, purge, backup" in wrong.stderr
    assert json.loads(machine.command("runs", "list", "--kind", "purge", "--json").stdout)["total"] == 0
    machine.database.remove()
    machine.database = new_database(machine.engine_name, machine.directory)
    assert machine.command("runs", "list").returncode == 74
    assert not machine.database.exists()
