"""`jobs`: the next runs and their source, and the emergency stop; `watch --jobs`, which runs them."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine, wait_until
from hypothesis import given
from hypothesis import strategies as st
from watch_support import PATIENCE, runs, stop, wait_for_catch_up, wait_for_state, watching

from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.usecases.schedule import first_run, next_run, poll_is_due, spread


@pytest.fixture
def machine(sandbox: Sandbox, tmp_path: Path) -> Machine:
    """Return a machine that shares the real time with the sandbox."""
    return Machine(sandbox, tmp_path)


def jobs(machine: Machine, *arguments: str) -> Any:
    result = machine.command("jobs", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_without_timers_and_watch_there_are_no_jobs(machine: Machine) -> None:
    assert jobs(machine) == {"success": True, "jobs": [], "total": 0, "source": None, "stopped": False}
    assert "No scheduled jobs" in machine.command("jobs").stdout


AT_ONCE = "import random; random.random = lambda: 0.0"  # each job otherwise waits for up to two minutes


def test_watch_runs_them_and_says_when(machine: Machine) -> None:
    settings = {"ENABLE_SCHEDULER": "true", "ATOM_SAAS_SYNC_INTERVAL_MINUTES": "5"}
    settings["STATE_DIRECTORY"] = str(machine.directory)  # where the backups of a server go
    with watching(machine, "--jobs", first=AT_ONCE, **settings) as process:
        wait_until(lambda: jobs(machine)["total"] == 4)
        shown = jobs(machine)
        assert shown["source"] == "watch"
        by_id = {job["id"]: job for job in shown["jobs"]}
        assert by_id["skill-sync-atom-saas"]["minutes"] == 5
        assert by_id["skill-sync-atom-saas"]["trigger"] == "interval"
        assert by_id["rating-sync-atom-saas"]["minutes"] == 30
        for job in by_id.values():
            # Its first run may be over already.
            ahead = datetime.fromisoformat(job["next_run_time"]) - datetime.now(UTC)
            assert abs(ahead) < timedelta(minutes=8 + job["minutes"])
        assert "Rating Sync with Atom SaaS" in machine.command("jobs").stdout
        done = "SELECT DISTINCT kind FROM sync_run WHERE status = 'success' AND {} ORDER BY 1"
        by_jobs = done.format("started_by = 'schedule'")
        # On a server, the job finds that the skills have just been synced, if the connection came first.
        by_any = done.format("(started_by = 'schedule' OR kind = 'skills')")
        made = [("backup",), ("purge",), ("ratings",), ("skills",)]
        wait_until(lambda: machine.sql(by_jobs, on_server=by_any) == made)
        logged = stop(process)
    (backup,) = (machine.directory / "backups").iterdir()
    assert f"Backup completed: {backup}, 0 older ones removed" in logged
    assert "Initialized skill sync with 5 minute interval" in logged
    assert "Initialized rating sync with 30 minute interval" in logged
    assert "Sync completed: 60 skills, 24 categories" in logged
    assert jobs(machine)["jobs"] == []


def test_other_intervals_are_taken_over_while_it_runs(machine: Machine) -> None:
    env_file = machine.directory / ".env"

    def minutes() -> list[int]:
        return [row[0] for row in machine.sql("SELECT minutes FROM scheduled_job WHERE id LIKE 'skill-%'")]

    env_file.write_text("ENABLE_SCHEDULER=true\nATOM_SAAS_SYNC_INTERVAL_MINUTES=5\n", encoding="utf-8")
    with watching(machine, "--jobs") as process:
        wait_until(lambda: minutes() == [5])
        env_file.write_text("ENABLE_SCHEDULER=true\nATOM_SAAS_SYNC_INTERVAL_MINUTES=7\n", encoding="utf-8")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: minutes() == [7])
        env_file.write_text("ENABLE_SCHEDULER=false\n", encoding="utf-8")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: minutes() == [])
        logged = stop(process)
    assert "Initialized skill sync with 7 minute interval" in logged
    assert "ENABLE_SCHEDULER is not true" in logged


def test_jobs_planned_by_a_killed_watch_are_not_shown(machine: Machine) -> None:
    with watching(machine, "--jobs", ENABLE_SCHEDULER="true") as process:
        wait_until(lambda: jobs(machine)["total"] == 4)
        process.kill()
        process.communicate(timeout=PATIENCE)
    wait_until(lambda: jobs(machine)["jobs"] == [])  # a server takes a moment to notice


def test_jobs_need_the_scheduler_to_be_enabled(machine: Machine) -> None:
    with watching(machine, "--jobs") as process:
        logged = stop(process)
    assert "ENABLE_SCHEDULER is not true: no periodic job will run" in logged
    assert "Initialized" not in logged


def test_the_emergency_stop_keeps_everything_scheduled_off(machine: Machine, sandbox: Sandbox) -> None:
    assert jobs(machine, "stop") == {"success": True, "stopped": True, "changed": True}
    assert jobs(machine, "stop")["changed"] is False
    assert jobs(machine)["stopped"] is True
    result = machine.command("sync", "skills", "--scheduled", "--json", ENABLE_SCHEDULER="true")
    assert (result.returncode, json.loads(result.stdout)["reasons"]) == (0, ["stopped"])
    with machine.started("watch") as process:
        wait_for_state(machine, connected=1)
        first = sandbox.skill_ids()[0]
        sandbox.patch_skill(first, {"name": "by message"})
        wait_until(lambda: machine.cached().get(first, {}).get("name") == "by message")
        assert runs(machine) == []
        assert jobs(machine, "start")["changed"] is True
        wait_for_catch_up(machine)
        stop(process)
    assert jobs(machine, "start")["changed"] is False
    assert [row[0] for row in machine.sql("SELECT action FROM audit_log ORDER BY id")] == ["jobs stop", "jobs start"]


# When


NOW = datetime(2026, 2, 19, 12, 0, tzinfo=UTC)
moments = st.integers(-100_000, 100_000).map(lambda seconds: NOW + timedelta(seconds=seconds))
intervals = st.integers(5, 1440).map(lambda minutes: timedelta(minutes=minutes))


@given(st.none() | moments, intervals, st.floats(0, 1))
def test_the_first_run_is_never_in_the_past_nor_sooner_than_its_interval(
    last: datetime | None, interval: timedelta, jitter: float
) -> None:
    planned = first_run(last, interval, NOW, jitter)
    due = NOW if last is None or last > NOW else max(NOW, last + interval)  # else of a clock that was set back
    assert due <= planned <= due + spread(interval)


@given(moments, intervals)
def test_runs_keep_their_distance_and_missed_ones_are_made_up_for_once(planned: datetime, interval: timedelta) -> None:
    following = next_run(planned, interval, NOW)
    assert following > NOW or following == planned + interval
    assert (following - planned) % interval == timedelta(0)
    assert following > planned


def test_a_poll_is_due_if_no_other_process_polled() -> None:
    interval = timedelta(minutes=15)
    assert poll_is_due(None, interval, NOW)
    assert not poll_is_due(NOW - timedelta(minutes=15), interval, NOW)  # a timer may be a little late
    assert poll_is_due(NOW - timedelta(minutes=19), interval, NOW)
    assert poll_is_due(NOW + timedelta(minutes=1), interval, NOW)  # the clock was set back
