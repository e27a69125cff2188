"""Several hosts with one database: exactly one does each job, and another takes over."""

from __future__ import annotations

import json
import os
import threading
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from conftest import Machine, wait_until
from loaded_command import Forked
from postgres_support import binaries
from server_support import NOON, nothing, opened

from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.lock import holder, run_lock


def timer(machine: Machine, url: str, host: str, *words: str, **variables: str) -> dict[str, Any]:
    variables |= {"ATOM_SAAS_DATABASE_URL": url, "ATOM_SYNC_HOST": host, "ENABLE_SCHEDULER": "true"}
    result = machine.command(*words, "--scheduled", "--json", **variables)
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
    # Metrics are those of the database, so every host shows the same ones.
    first, second = (metrics(machine, database_url, host) for host in ("one", "two"))
    assert "atom_saas_sync_items_total" in first
    assert first == second


def metrics(machine: Machine, url: str, host: str) -> str:
    return machine.command("metrics", ATOM_SAAS_DATABASE_URL=url, ATOM_SYNC_HOST=host).stdout


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


def test_a_timer_that_waited_for_another_host_does_not_do_its_work_again(
    machine: Machine, db: Database, database_url: str
) -> None:
    machine.command("db", "upgrade", ATOM_SAAS_DATABASE_URL=database_url)
    variables = {"ATOM_SAAS_DATABASE_URL": database_url, "ENABLE_SCHEDULER": "true"}
    words = "sync", "skills", "--scheduled", "--wait", "60", "--json"
    with opened(database_url, host="one") as other, ExitStack() as held:
        held.enter_context(run_lock(other, "skills", command="sync skills", now=lambda: NOON, sleep=nothing))
        with machine.started(*words, **variables) as waiting:
            wait_until(lambda: len(sessions(db)) == 1)
            note_success(db, "skills")
            held.close()
            assert json.loads(waiting.communicate()[0])["reasons"] == ["fresh"]


def sessions(db: Database) -> list[Any]:
    return db.connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'atom-sync/sync-skills'"
    ).fetchall()


def test_a_backup_of_today_is_not_made_again(machine: Machine, db: Database, database_url: str) -> None:
    machine.command("db", "upgrade", ATOM_SAAS_DATABASE_URL=database_url)
    state = {"STATE_DIRECTORY": str(machine.directory / "state"), "PATH": f"{binaries()}:{os.environ['PATH']}"}
    made = timer(machine, database_url, "one", "db", "backup", "--keep", "2", **state)
    written = Path(made["backup"])
    assert written.parent == machine.directory / "state" / "backups"
    assert (written.stat().st_mode & 0o777, written.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert timer(machine, database_url, "two", "db", "backup", **state)["reason"] == "fresh"
    # Yesterday's and the one before: the oldest goes.
    for day in ("20200101", "20200102"):
        written.with_name(f"{written.name.partition('-')[0]}-{day}T000000Z.dump").touch()
    db.connection.execute("UPDATE sync_run SET started_at = started_at - interval '1 day'")
    again = timer(machine, database_url, "two", "db", "backup", "--keep", "2", **state)
    assert len(again["removed"]) == 2
    assert len(list(written.parent.iterdir())) == 2
    with (
        opened(database_url, host="one") as other,
        run_lock(other, "backup", command="db backup", now=lambda: NOON, sleep=nothing),
    ):
        db.connection.execute("DELETE FROM sync_run")
        assert timer(machine, database_url, "two", "db", "backup", **state)["reason"] == "fresh"


def test_a_purge_of_today_is_not_made_again(machine: Machine, database_url: str) -> None:
    machine.command("db", "upgrade", ATOM_SAAS_DATABASE_URL=database_url)
    assert timer(machine, database_url, "one", "cache", "purge")["reason"] != "fresh"
    assert timer(machine, database_url, "two", "cache", "purge")["reason"] == "fresh"


DUE_AT_ONCE = """
from atom_saas_sync.usecases.watch import jobs
jobs.first_run = lambda last_started, interval, now, jitter: now
"""
NOTHING_DONE = "another host has done it recently: nothing done"


def test_jobs_of_a_watch_leave_to_other_hosts_what_they_do(machine: Machine, db: Database, database_url: str) -> None:
    variables = {"ATOM_SAAS_DATABASE_URL": database_url, "ENABLE_SCHEDULER": "true", "ATOM_SYNC_HOST": "two"}
    with opened(database_url, host="one") as other, ExitStack() as held:
        held.enter_context(run_lock(other, "skills", command="sync skills", now=lambda: NOON, sleep=nothing))
        for kind in ("ratings", "purge", "backup"):
            note_success(db, kind)
        with machine.started("watch", "--jobs", first=DUE_AT_ONCE, **variables) as process:
            late = end_if_late(process)
            assert process.stderr is not None
            skipped = (line for line in process.stderr if NOTHING_DONE in line)
            assert len([*islice(skipped, 3)]) == 3
            # The fourth job waits for the other host's run, and finds that it has succeeded.
            note_success(db, "skills")
            held.close()
            assert "Skill Sync with Atom SaaS" in next(skipped, "")
            process.terminate()
            process.communicate()
            late.cancel()
    assert db.connection.execute("SELECT kind FROM sync_run WHERE started_by = 'schedule'").fetchall() == []


def note_success(db: Database, kind: str) -> None:
    db.connection.execute(
        "INSERT INTO sync_run (kind, status, started_at, finished_at, started_by, pid, host) "
        "VALUES (%s, 'success', now(), now(), 'timer', 1, 'one')",
        (kind,),
    )


def end_if_late(process: Forked) -> threading.Timer:
    """End a process whose log is awaited in vain."""
    timer = threading.Timer(120, process.kill)
    timer.daemon = True
    timer.start()
    return timer


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
