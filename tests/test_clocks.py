"""Wrong clocks, and corrected ones: nothing waits until a time set by a wrong clock."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from conftest import FakeClock, Machine
from database_rules import check_rules

from atom_saas_sync.core.incoming.messages import Message, parse_frame
from atom_saas_sync.usecases.follow_events import EventFollower
from atom_saas_sync.usecases.schedule import first_run

YEAR = 365


class ClockSetBack(FakeClock):
    """A clock that goes back a minute with each reading."""

    def now(self) -> datetime:
        self.moment -= timedelta(minutes=1)
        return self.moment


def change_everything(machine: Machine) -> None:
    ids = machine.sandbox.skill_ids()
    machine.sandbox.patch_skill(ids[0], {"description": "changed", "updated_at": "2020-01-01T00:00:00Z"}, touch=False)
    machine.sandbox.delete_skill(ids[1])
    machine.sandbox.put_skill({"skill_id": "new", "name": "New"})


@pytest.mark.parametrize("days", [-YEAR, -1, 1, YEAR])
def test_a_sync_after_the_clock_was_set_by_days(machine: Machine, days: int) -> None:
    assert machine.pull(page_size=20).status == "success"
    change_everything(machine)
    machine.clock.move(days=days)
    assert machine.pull(page_size=20).status == "success"
    assert machine.cached() == machine.listed()
    assert check_rules(machine.database) == []


def test_a_clock_that_keeps_running_backwards(machine: Machine) -> None:
    machine.clock = ClockSetBack()
    for _ in range(2):
        report = machine.pull(page_size=20)
        assert (report.status, report.duration_seconds >= 0) == ("success", True)
        change_everything(machine)
        machine.sandbox.patch_skill("new", {"description": "newer"})
        assert machine.pull(page_size=20).status == "success"
        assert machine.cached() == machine.listed()
        machine.sandbox.reset()
    assert {run.status for run in machine.status().runs} == {"success"}


def test_a_pause_that_was_declared_in_a_future_that_never_was_does_not_last(machine: Machine) -> None:
    now = machine.clock.now()
    budget = machine.budget(per_minute=10, per_hour=100)
    try:
        future = now + timedelta(days=YEAR)
        assert budget.take(future) == 0
        budget.learn(future, limit=50, remaining=0, reset_seconds=60)
        assert budget.take(future) == pytest.approx(60)
        assert budget.take(now) == 0
        assert budget.free(now) == 9
    finally:
        budget.close()


def test_messages_of_a_future_that_never_was_do_not_keep_polls_off(machine: Machine) -> None:
    machine.fill()
    ids = machine.sandbox.skill_ids()
    messages = []
    for skill_id in ids[:2]:
        told = {"type": "skill_update", "data": {"skill_id": skill_id, "name": "Told"}}
        message = parse_frame(json.dumps(told))
        assert isinstance(message, Message)
        messages.append(message)
    with machine.store() as store:
        future = machine.clock.now() + timedelta(days=YEAR)
        EventFollower(store.events(history_versions=10), strategy="remote_wins").apply(messages, future)
    change_everything(machine)
    assert machine.pull().status == "success"
    assert machine.cached() == machine.listed()


def test_a_rating_that_failed_in_a_future_that_never_was_is_due(machine: Machine) -> None:
    machine.sandbox.set_clock_offset(0)
    machine.command("db", "upgrade")
    machine.sql(
        "INSERT INTO skill_rating (skill_id, user_id, rating) VALUES (?, 'a', 4)", machine.sandbox.skill_ids()[0]
    )
    failed_at = f"{datetime.now(UTC) + timedelta(days=YEAR):%Y-%m-%dT%H:%M:%SZ}"
    machine.sql(
        "INSERT INTO failed_rating_upload (rating_id, error_message, failed_at, next_retry_at) VALUES (1, 'x', ?1, ?1)",
        failed_at,
    )
    ended = machine.command("sync", "ratings", "--json")
    assert (ended.returncode, json.loads(ended.stdout)["uploaded"]) == (0, 1)


def test_a_job_that_last_started_in_the_future_starts_now() -> None:
    now = FakeClock().now()
    quarter = timedelta(minutes=15)
    assert first_run(now + timedelta(days=YEAR), quarter, now, 0.0) == now
    assert first_run(now - timedelta(minutes=5), quarter, now, 0.0) == now + timedelta(minutes=10)


@pytest.mark.parametrize("days", [-4000, 4000])
def test_doctor_names_a_wrong_system_time(machine: Machine, days: int) -> None:
    machine.sandbox.set_clock_offset(-days * 86400)
    ended = machine.command("doctor", "--json")
    found = {each["check"]: each for each in json.loads(ended.stdout)["findings"]}
    assert found["clock"]["verdict"] == "problem"
    assert ended.returncode == 1
