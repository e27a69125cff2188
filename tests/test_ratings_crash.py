"""Each rating is stored exactly once, whatever happens to the process; and two runs never send at the same time."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from conftest import Machine, wait_until
from loaded_command import Forked

from atom_saas_sync.sandbox import Sandbox

_LATE = 120


def prepare(machine: Machine, number: int) -> None:
    """Store pending ratings, as the Atom backend would."""
    assert machine.command("db", "upgrade").returncode == 0
    skills = machine.sandbox.skill_ids()
    with machine.database.transaction() as execute:
        for each in range(number):
            execute(
                "INSERT INTO skill_rating (skill_id, user_id, rating) VALUES (?, ?, 4)",
                skills[each % len(skills)],
                f"user{each}",
            )


def assert_all_are_there_once(machine: Machine, number: int) -> None:
    there = Counter((each["skill_id"], each["user_id"]) for each in machine.sandbox.ratings())
    assert len(there) == number and set(there.values()) == {1}
    stored = [request for request in machine.sandbox.requests("ratings") if request.status == 409]
    assert stored == [], "every repeated request came with the key of the first"
    sent = Counter(
        (request.body["user_id"], request.headers["idempotency-key"])
        for request in machine.sandbox.requests("ratings")
        if request.body
    )
    assert len(sent) == number, "one key for each rating, in all runs"
    assert machine.sql("SELECT count(*) FROM skill_rating WHERE NOT synced_to_saas OR remote_rating_id IS NULL") == [
        (0,)
    ]
    assert machine.sql("SELECT count(*) FROM failed_rating_upload") == [(0,)]


def kill_during_uploads(machine: Machine, number: int, kills: int, seed: int) -> None:
    """Kill the upload at `kills` random moments, each while ratings are on their way, then let it end.

    A moment is counted in requests. Commits come each tenth of a second, so an early moment is before the first, a
    late one between or after some; which of them it is depends on how many ratings the kills to come still need.
    """
    chance = random.Random(seed)
    prepare(machine, number)
    # A run that is killed before its first answer never hears of the declared limit.
    limits = {"ATOM_SAAS_RATE_LIMIT_PER_MINUTE": "100000", "ATOM_SAAS_RATE_LIMIT_PER_HOUR": "100000"}
    for kill in range(kills):
        late = pending(machine) > _LATE + (number - _LATE) * (kills - kill) / kills
        requests = len(machine.sandbox.requests("ratings")) + chance.randint(1, _LATE if late else 5)
        with machine.started("sync", "ratings", **limits) as process:
            wait_until(partial(has_come_far, machine, process, requests), timeout=60)
            process.send_signal(signal.SIGKILL)
            assert process.wait(timeout=60) == -signal.SIGKILL, "it was at work"
        assert pending(machine) > 0
    final = machine.command("sync", "ratings", "--json", **limits)
    assert final.returncode == 0, final.stderr
    assert json.loads(final.stdout)["pending"] == 0
    assert_all_are_there_once(machine, number)


def pending(machine: Machine) -> int:
    return int(machine.sql("SELECT count(*) FROM skill_rating WHERE synced_to_saas = FALSE")[0][0])


def has_come_far(machine: Machine, process: Forked, requests: int) -> bool:
    return len(machine.sandbox.requests("ratings")) >= requests or process.poll() is not None


def test_killed_at_ten_moments_each_rating_is_there_once(machine: Machine) -> None:
    machine.sandbox.set_clock_offset(0)
    machine.sandbox.set_latency(0.01)
    try:
        kill_during_uploads(machine, number=200, kills=10, seed=4)
    finally:
        machine.sandbox.set_latency(0)


@pytest.mark.soak
def test_killed_at_two_hundred_moments_each_of_500_is_there_once(tmp_path: Path) -> None:
    with Sandbox(skills=60, seed=3, latency=0.02) as sandbox:
        kill_during_uploads(Machine(sandbox, tmp_path), number=500, kills=200, seed=5)


def test_restarts_and_a_server_that_stores_and_drops_leave_one_rating(machine: Machine) -> None:
    machine.sandbox.set_clock_offset(0)
    prepare(machine, 1)
    machine.sandbox.fault("store_then_drop", endpoint="ratings")
    for _ in range(2):
        with machine.started("sync", "ratings", "--retry-failed") as process:
            before = len(machine.sandbox.requests("ratings"))
            wait_until(lambda before=before: len(machine.sandbox.requests("ratings")) > before)
            process.send_signal(signal.SIGKILL)
    machine.sandbox.clear_faults()
    assert machine.command("sync", "ratings", "--retry-failed").returncode == 0
    assert_all_are_there_once(machine, 1)


def test_the_second_of_two_concurrent_runs_exits_with_75(machine: Machine) -> None:
    machine.sandbox.set_clock_offset(0)
    prepare(machine, 20)
    machine.sandbox.fault("delay", endpoint="ratings", seconds=1.0, times=10)
    with machine.started("sync", "ratings") as first:
        wait_until(lambda: bool(machine.sandbox.requests("ratings")))
        second = machine.command("sync", "ratings", "--json")
        assert second.returncode == 75
        document = json.loads(second.stdout)
        assert (document["status"], document["error"]["type"], document["pending"]) == ("locked", "locked", 0)
        assert first.wait(timeout=60) == 0
    assert_all_are_there_once(machine, 20)
    assert machine.sandbox.counters()["connections_max"] <= 10


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_upload_cleanly_and_the_next_run_continues(
    machine: Machine, number: signal.Signals, exit_code: int
) -> None:
    machine.sandbox.set_clock_offset(0)
    machine.sandbox.set_latency(0.02)
    prepare(machine, 300)
    try:
        with machine.started("sync", "ratings", "--json") as process:
            wait_until(lambda: len(machine.sandbox.requests("ratings")) > 20)
            process.send_signal(number)
            output, errors = process.communicate(timeout=60)
    finally:
        machine.sandbox.set_latency(0)
    assert process.returncode == exit_code, errors
    document = json.loads(output)
    assert (document["status"], document["error"]["type"]) == ("partial", "interrupted")
    assert document["uploaded"] + document["pending"] == 300
    # Exchanges under way are cut: the marketplace may have taken up to ten ratings of which no receipt came.
    assert 0 <= len(machine.sandbox.ratings()) - document["uploaded"] <= 10
    assert machine.command("sync", "ratings").returncode == 0
    assert_all_are_there_once(machine, 300)


def test_a_deadline_ends_the_upload_quietly_and_the_next_run_continues(machine: Machine) -> None:
    machine.sandbox.set_clock_offset(0)
    machine.sandbox.set_latency(0.02)
    prepare(machine, 400)
    try:
        ended = machine.command("sync", "ratings", "--json", "--deadline", "0.4")
    finally:
        machine.sandbox.set_latency(0)
    assert ended.returncode == 75, ended.stderr
    document = json.loads(ended.stdout)
    assert (document["error"]["type"], document["failed"]) == ("deadline", 0)
    assert document["uploaded"] + document["pending"] == 400
    assert "trying again" not in ended.stderr
    assert machine.command("sync", "ratings").returncode == 0
    assert_all_are_there_once(machine, 400)
