"""`status`: for people, for programs and for monitoring, on real databases."""

from __future__ import annotations

import json
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine

from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.model import Status
from atom_saas_sync.sandbox import Sandbox

NOW = datetime(2026, 2, 19, 12, 1, tzinfo=UTC)


def read(machine: Machine, now: datetime = NOW) -> Status:
    return machine.status(now, per_minute=100, per_hour=1000)


def document(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def test_without_a_database_it_reports_never_synced_and_creates_none(machine: Machine) -> None:
    result = machine.command("status", "--check")
    assert result.returncode == 3
    assert "never synced" in result.stdout
    assert "Traceback" not in result.stderr
    assert not machine.database.exists()
    metrics = machine.command("metrics", "--json")
    assert json.loads(metrics.stdout)["reasons"] == ["never_synced"]
    assert machine.command("metrics").stdout.startswith("# never_synced\n# HELP ")
    assert not machine.database.exists()


def test_after_a_sync_it_says_what_there_is(machine: Machine) -> None:
    machine.fill()
    status = read(machine)
    assert status.skills == 60
    assert status.categories == machine.sql("SELECT count(*) FROM category_cache")[0][0] > 0
    assert status.sync.status == "idle"
    assert status.sync.last_successful_sync_at == datetime(2026, 2, 19, 12, tzinfo=UTC)
    assert status.last_runs["skills"].status == "success"
    assert status.running == frozenset()
    assert not status.migrations_pending


def test_programs_get_one_document_and_the_exit_code(machine: Machine) -> None:
    machine.sandbox.set_clock_offset(0)
    assert machine.command("sync", "skills", "--json").returncode == 0
    result = machine.command("status", "--json", "--check")
    assert result.returncode == 0
    assert result.stderr == ""
    found = document(result)
    assert found["cache"]["skills_count"] == 60
    assert found["sync"]["total_syncs"] == 1
    assert found["health"] == {"status": "healthy", "reasons": [], "messages": [], "notices": []}
    assert found["database"]["size_bytes"] > 0


def test_an_old_sync_is_unhealthy_with_its_reason_on_standard_error(machine: Machine) -> None:
    machine.pull()  # by the made-up clock, in February
    result = machine.command("status", "--json", "--check")
    assert result.returncode == 3
    assert document(result)["health"]["reasons"] == ["sync_stale"]
    assert "the last successful sync was" in result.stderr
    assert machine.command("status", "--json").returncode == 0


@pytest.mark.parametrize("columns", ["80", "140"])
def test_the_screen_fits_and_says_what_is_wrong_in_words(machine: Machine, columns: str) -> None:
    machine.command("sync", "skills")
    machine.command("sync", "skills", ATOM_SAAS_API_TOKEN="at_saas_wrong")
    result = machine.command("status", COLUMNS=columns)
    assert max(map(len, result.stdout.splitlines())) <= int(columns)
    assert "unhealthy" in result.stdout
    assert "refused the" in result.stdout
    assert "●✕" in result.stdout


def test_the_last_state_of_a_killed_run_is_not_believed(machine: Machine) -> None:
    machine.fill()
    machine.sql("UPDATE sync_run SET status = 'running'")
    status = read(machine)
    assert status.sync.status == "error"
    assert status.sync.last_error == "the process was killed"


def test_a_running_run_is_recognized_by_its_lock(machine: Machine) -> None:
    machine.fill()
    with machine.running("skills"):
        assert read(machine).running == {"skills"}
    assert read(machine).running == frozenset()


def test_conflicts_edits_ratings_and_republications_are_counted(machine: Machine) -> None:
    machine.fill()
    first, second, *_ = machine.sandbox.skill_ids()
    machine.edit(first, description="mine")
    machine.edit(second, description="mine too")
    machine.sandbox.patch_skill(second, {"description": "theirs"})
    machine.pull(strategy="manual")
    machine.sql("INSERT INTO skill_rating (skill_id, user_id, rating) VALUES (?, 'u', 5)", first)
    for user in ("v", "w"):
        machine.sql("INSERT INTO skill_rating (skill_id, user_id, rating) VALUES (?, ?, 4)", first, user)
    machine.sql("UPDATE skill_rating SET synced_to_saas = TRUE WHERE user_id = 'v'")
    machine.sql(
        "INSERT INTO failed_rating_upload (rating_id, error_message, failed_at) "
        "VALUES ('1', 'no', '2026-02-19T12:00:00Z')"
    )
    machine.sql("INSERT INTO counter VALUES ('republished', '{}', 2)")
    status = read(machine)
    assert status.modified_skills == 2
    assert sum(status.conflicts_open.values()) == 1
    assert (status.ratings_pending, status.ratings_synced, status.ratings_failed) == (1, 1, 1)
    assert status.republished == 2


def test_the_requests_that_are_free_are_those_of_the_window(machine: Machine) -> None:
    machine.fill()
    # The sandbox has declared a limit; without one, ours hold.
    machine.sql("DELETE FROM fact WHERE name = 'rate_limit'")
    used = machine.sql("SELECT sum(requests) FROM request_budget")[0][0]
    assert read(machine, machine.clock.now()).rate_limit_remaining == 100 - used
    minutes_later = machine.clock.now() + timedelta(minutes=2)
    assert read(machine, minutes_later).rate_limit_remaining == 100

    def put_fact(name: str, value: str) -> None:
        machine.sql(
            "INSERT INTO fact VALUES (?, ?, '2026-01-01T00:00:00Z') ON CONFLICT (name) DO UPDATE SET value = ?2",
            name,
            value,
        )

    declared = {"limit": 50, "window": 60, "until": minutes_later.timestamp() + 30, "pause_until": 0}
    for marketplace, free in (("https://elsewhere.example", 100), (machine.sandbox.url, 50)):
        put_fact("marketplace", machine.sandbox.url)
        fact = json.dumps({**declared, "marketplace": marketplace})
        put_fact("rate_limit", fact)
        assert read(machine, minutes_later).rate_limit_remaining == free


@pytest.mark.sqlite("its older migrations")
def test_for_an_older_database_only_the_revision_is_shown(machine: Machine) -> None:
    machine.command("db", "upgrade", "0002_sync_state")
    status = read(machine)
    assert status.revision == "0002_sync_state"
    assert status.migrations_pending
    result = machine.command("status", "--check", "--json")
    assert (result.returncode, document(result)["health"]["reasons"]) == (3, ["migrations_pending"])


@pytest.mark.sqlite("a file that is no database")
def test_newer_databases_and_other_files_are_refused(machine: Machine, tmp_path: Path) -> None:
    machine.fill()
    machine.sql(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) "
        "VALUES ('atom_saas_sync', '9999_future', '2026-01-01 00:00:00')"
    )
    with pytest.raises(DatabaseError, match="newer"):
        read(machine)
    other = tmp_path / "other.db"
    other.write_text("this is no database, but it is long enough to be taken for one" * 20, encoding="utf-8")
    assert machine.command("--database", str(other), "status").returncode == 74


def test_a_locked_database_can_be_read(machine: Machine) -> None:
    machine.fill()
    with machine.database.writing("UPDATE sync_run SET status = 'failed', error_message = 'not committed'"):
        assert read(machine).sync.last_error is None


def test_watching_is_for_people(machine: Machine) -> None:
    assert machine.command("status", "--watch", "--json").returncode == 2


def test_hostile_text_reaches_no_terminal(machine: Machine, sandbox: Sandbox) -> None:
    machine.fill()
    machine.sql(
        "UPDATE sync_run SET status = 'failed', error_type = 'api_error', error_message = ?", "\x1b]0;owned\x07\x1b[2J"
    )
    result = machine.command("status", FORCE_COLOR="")
    assert "\x1b" not in result.stdout
    assert "owned" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_live_screen_runs_until_it_is_stopped(machine: Machine, number: signal.Signals) -> None:
    with machine.started("status", "--watch", "0.2") as process:
        assert process.stdout is not None
        assert "unhealthy" in process.stdout.readline()
        process.send_signal(number)
        assert process.wait(60) == 0


def test_the_first_process_of_a_container_obeys_sigterm(machine: Machine) -> None:
    code = (
        "import os, signal\n"
        "from atom_saas_sync.cli import main\n"
        "os.getpid = lambda: 1\n"
        "main._run = lambda as_json: signal.raise_signal(signal.SIGTERM)\n"
        "main.run()"
    )
    assert machine.python(code).returncode == 143


def wait(machine: Machine, **reasons: str) -> None:
    """Hold a version of each of these skills since 11:00, as a run does."""
    for name, reason in reasons.items():
        machine.sql(
            "INSERT INTO skill_offer (skill_id, wire_digest, content_digest, exec_digest, version, kind, reason, "
            "first_seen_at, offered_at, confirmed_at, data) "
            "VALUES (?1, x'', x'', x'', '1', ?2, ?3, ?4, ?4, ?4, x'')",
            name,
            "refuse" if reason == "rejected" else "hold",
            reason,
            "2026-02-19T11:00:00.500000Z",
        )


def test_waiting_updates_do_not_make_it_unhealthy(machine: Machine) -> None:
    machine.fill()
    wait(machine, a="review", b="age", c="rejected")
    trust = read(machine).trust
    assert (trust.waiting, trust.tripped, trust.oldest_waiting_at) == (
        2,
        0,
        datetime(2026, 2, 19, 11, 0, 0, 500_000, UTC),
    )
    assert trust.waiting_by_reason == {"age": 1, "review": 1}
    found = document(machine.command("status", "--json"))
    assert found["trust"] == {
        "policy": "open",
        "scope": "all",
        "waiting": 2,
        "oldest_waiting_at": "2026-02-19T11:00:00Z",
        "tripped": 0,
        "quarantined": 0,
        "revocations": 0,
        "pinned": 0,
    }
    assert "updates_tripped" not in found["health"]["notices"]


def test_an_update_that_needs_a_decision_is_a_notice(machine: Machine) -> None:
    machine.fill()
    wait(machine, a="republished", b="age", c="lookalike")
    settings = {"ATOM_SYNC_ADMISSION": "review", "ATOM_SYNC_ADMISSION_SCOPE": "executable"}
    result = machine.command("status", "--json", **settings)
    found = document(result)
    assert (found["trust"]["policy"], found["trust"]["scope"]) == ("review", "executable")
    assert (found["trust"]["waiting"], found["trust"]["tripped"]) == (3, 2)
    assert "updates_tripped" in found["health"]["notices"]
    screen = machine.command("status", **settings).stdout
    assert "2 updates need a decision: 1 lookalike, 1 republished" in " ".join(screen.split())
    assert "policy review, executable fields only; 3 waiting (1 age, 1 lookalike, 1 republished)" in " ".join(
        screen.split()
    )
