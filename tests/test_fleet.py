"""Several hosts with one database: exactly one does each job, and another takes over."""

from __future__ import annotations

import json
from typing import Any

from conftest import Machine, wait_until
from server_support import NOON, nothing, opened

from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.lock import holder, run_lock


def timer(machine: Machine, url: str, host: str, *words: str) -> dict[str, Any]:
    result = machine.command(
        *words, "--scheduled", "--json", ATOM_SAAS_DATABASE_URL=url, ATOM_SYNC_HOST=host, ENABLE_SCHEDULER="true"
    )
    assert result.returncode == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_one_of_many_timers_does_the_work(machine: Machine, db: Database, database_url: str) -> None:
    assert timer(machine, database_url, "one", "sync", "skills")["status"] == "success"
    again = timer(machine, database_url, "two", "sync", "skills")
    assert (again["status"], again["reasons"]) == ("skipped", ["fresh"])
    # The host that did it skips it by its own rule.
    assert timer(machine, database_url, "one", "sync", "skills")["reasons"] == ["not_due"]
    # Another kind is another job.
    assert timer(machine, database_url, "two", "sync", "ratings")["status"] == "success"
    listed = json.loads(machine.command("runs", "list", "--json", ATOM_SAAS_DATABASE_URL=database_url).stdout)
    assert [run["host"] for run in listed["runs"]] == ["two", "one"]
    rows = db.connection.execute("SELECT kind, host FROM sync_run ORDER BY id").fetchall()
    assert rows == [("skills", "one"), ("ratings", "two")]


def test_old_work_is_done_again_by_any_host(machine: Machine, db: Database, database_url: str) -> None:
    timer(machine, database_url, "one", "sync", "skills")
    db.connection.execute("UPDATE sync_run SET started_at = started_at - interval '8 minutes'")  # of fifteen
    assert timer(machine, database_url, "two", "sync", "skills")["status"] == "success"


def test_a_timer_that_finds_the_lock_taken_succeeds(machine: Machine, db: Database, database_url: str) -> None:
    with (
        opened(database_url, host="one") as other,
        run_lock(other, "skills", command="sync skills", now=lambda: NOON, sleep=nothing),
    ):
        found = timer(machine, database_url, "two", "sync", "skills")
        assert (found["status"], found["reasons"]) == ("skipped", ["fresh"])
        person = machine.command("sync", "skills", ATOM_SAAS_DATABASE_URL=database_url)
        assert person.returncode == 75
        assert "on one" in person.stderr
        status = json.loads(machine.command("status", "--json", ATOM_SAAS_DATABASE_URL=database_url).stdout)
        assert status["sync"]["running"] == [{"kind": "skills", "host": "one"}]
        assert (status["database"]["path"], status["database"]["url"]) == (None, database_url)
    counted = db.connection.execute("SELECT sum(value) FROM counter WHERE labels LIKE '%%\"locked\"%%'", ()).fetchone()
    assert counted == (1,)  # the person's


def test_a_purge_of_today_is_not_made_again(machine: Machine, database_url: str) -> None:
    machine.command("db", "upgrade", ATOM_SAAS_DATABASE_URL=database_url)
    assert timer(machine, database_url, "one", "cache", "purge")["reason"] != "fresh"
    assert timer(machine, database_url, "two", "cache", "purge")["reason"] == "fresh"


def test_a_watch_on_standby_takes_over_from_a_killed_one(machine: Machine, db: Database, database_url: str) -> None:
    variables = {"ATOM_SAAS_DATABASE_URL": database_url}

    def at_work() -> str | None:
        return (holder(db, "watch") or {}).get("host")

    with machine.started("watch", **variables, ATOM_SYNC_HOST="one") as first:
        wait_until(lambda: at_work() == "one")
        alone = machine.command("watch", **variables, ATOM_SYNC_HOST="two")
        assert alone.returncode == 75
        with machine.started("watch", "--wait", **variables, ATOM_SYNC_HOST="two"):
            first.kill()
            wait_until(lambda: at_work() == "two")
            status = json.loads(machine.command("status", "--json", **variables).stdout)
            assert status["websocket"]["host"] == "two"
