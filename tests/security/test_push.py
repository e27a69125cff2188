"""Messages of a malicious marketplace: their limits on the cache and the log."""

from __future__ import annotations

import json
import logging
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import Json, Machine, wait_until
from watch_support import PATIENCE, counter, messages, stop, watching

from atom_saas_sync.core.incoming.messages import Message, parse_frame
from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.times import format_time
from atom_saas_sync.usecases import follow_events
from atom_saas_sync.usecases.follow_events import MOST_ADDED_AN_HOUR, EventFollower
from atom_saas_sync.usecases.limited_log import LINES_A_SECOND, LimitedLog

HOUR = timedelta(hours=1)
QUARTER = 15
"""Of the sandbox's 60 skills."""


@pytest.fixture
def machine(sandbox: Sandbox, tmp_path: Path) -> Machine:
    """Return a machine that shares the real time with the sandbox."""
    return Machine(sandbox, tmp_path)


def deletion(skill_id: str) -> Json:
    return {"type": "skill_delete", "data": {"skill_id": skill_id}, "timestamp": format_time(datetime.now(UTC))}


def update(skill_id: str, sent: str | None = None, **fields: object) -> Json:
    data = {"skill_id": skill_id, "name": skill_id, **fields}
    return {"type": "skill_update", "data": data, "timestamp": sent or format_time(datetime.now(UTC))}


def push(machine: Machine, sandbox: Sandbox, *told: Json) -> None:
    """Push messages, and wait until they are applied."""
    before = messages(machine, "category_update")
    for each in told:
        sandbox.push(each)
    sandbox.push({"type": "category_update", "data": {"name": "Marker"}})
    wait_until(lambda: messages(machine, "category_update") > before, PATIENCE)


# Deletions


def test_messages_can_not_empty_the_cache(machine: Machine, sandbox: Sandbox) -> None:
    ids = sandbox.skill_ids()
    with watching(machine) as process:
        push(machine, sandbox, *map(deletion, ids))
        assert len(machine.cached()) == len(ids) - QUARTER
        assert machine.sql("SELECT count(*) FROM usable_skill") == [(len(ids) - QUARTER,)]
        logged = stop(process)
    assert [line.split("skill_delete: deleted ")[1] for line in logged.splitlines() if "deleted" in line] == ids[
        :QUARTER
    ]
    left = sum(int(number) for number in re.findall(r"left (\d+) deletions by messages to the next poll", logged))
    assert left
    # The hour continues after a restart; the first poll restores skills that were never withdrawn.
    with watching(machine) as process:
        assert machine.cached() == machine.listed()
        push(machine, sandbox, deletion(ids[30]))
        assert ids[30] in machine.cached()
        # A poll finds and confirms real deletions.
        sandbox.delete_skill(ids[30])
        assert machine.command("sync", "skills").returncode == 0
        assert ids[30] not in machine.cached()


def follow(machine: Machine, told: list[Json], now: datetime) -> None:
    parsed = [parse_frame(json.dumps(each)) for each in told]
    with machine.store() as store:
        follower = EventFollower(store.events(history_versions=10), strategy="remote_wins")
        follower.apply([each for each in parsed if isinstance(each, Message)], now)


def test_the_hour_slides_and_skills_of_messages_raise_no_limit(machine: Machine, sandbox: Sandbox) -> None:
    machine.pull()
    ids = sandbox.skill_ids()
    now = datetime.now(UTC)
    planted = [f"planted-{number}" for number in range(400)]
    follow(machine, [update(name) for name in planted], now)
    follow(machine, [deletion(name) for name in ids[:4]], now)
    follow(machine, [deletion(name) for name in ids[4:8]], now + HOUR / 2)
    follow(machine, [deletion(name) for name in ids[8:20]], now + HOUR)
    assert len(machine.cached()) == 400 + len(ids) - QUARTER
    follow(machine, [deletion(name) for name in ids[8:20]], now + HOUR + timedelta(minutes=2))
    assert len(machine.cached()) == 400 + len(ids) - 18
    follow(machine, [deletion(name) for name in ids[8:40]], now + 3 * HOUR)
    assert len(machine.cached()) == 400 + len(ids) - 28
    # With a clock that is set back, the hour does not last for days.
    follow(machine, [deletion(name) for name in ids[28:38]], now - 24 * HOUR)
    assert len(machine.cached()) == 400 + len(ids) - 38


def test_an_edited_skill_that_is_to_go_counts_too(machine: Machine, sandbox: Sandbox) -> None:
    machine.pull()
    ids = sandbox.skill_ids()
    for name in ids[:20]:
        machine.edit(name, description="ours")
    follow(machine, [deletion(name) for name in ids], datetime.now(UTC))
    assert len(machine.cached()) == len(ids) - QUARTER


# Additions


@pytest.mark.parametrize(("size", "most"), [(10, MOST_ADDED_AN_HOUR), (20_000, 2**20 // 20_000)])
def test_what_messages_add_is_limited(
    machine: Machine,
    sandbox: Sandbox,
    size: int,
    most: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(follow_events, "MOST_BYTES_ADDED_AN_HOUR", 2**20)
    machine.pull()
    known, now = sandbox.skill_ids(), datetime.now(UTC)

    def plant(hour: str, at: datetime) -> None:
        """Offer ten more than may be added; each batch is a follower of its own, as after a restart."""
        for first in range(0, most + 10, 100):
            names = [f"{hour}-{number}" for number in range(first, min(first + 100, most + 10))]
            follow(machine, [update(name, code="x" * size) for name in names], at)

    def planted(hour: str) -> int:
        return sum(name.startswith(f"{hour}-") for name in machine.cached())

    plant("now", now)
    assert most - 1 <= planted("now") <= most
    limit = f"at most {MOST_ADDED_AN_HOUR} skills and categories (1 MiB) within an hour"
    assert any(limit in line for line in caplog.messages)
    # Neither a known skill nor a deletion is limited; a new category is.
    follow(machine, [update(known[0], name="told", description="y" * size), deletion(known[1])], now)
    follow(machine, [update("now-0", name="told")], now)
    follow(machine, [{"type": "category_update", "data": {"name": "Planted", "description": "x" * size}}], now)
    assert machine.cached()[known[0]]["name"] == machine.cached()["now-0"]["name"] == "told"
    assert known[1] not in machine.cached()
    assert not machine.sql("SELECT 1 FROM category_cache WHERE category_name = 'Planted'")
    plant("then", now + HOUR + timedelta(minutes=2))
    assert most - 1 <= planted("then") <= most


def test_deletions_of_unknown_skills_leave_a_limited_number_of_marks(machine: Machine) -> None:
    machine.pull()
    now = datetime.now(UTC)
    for first in range(0, MOST_ADDED_AN_HOUR + 300, 100):
        follow(machine, [deletion(f"unknown-{number}") for number in range(first, first + 100)], now)
    assert machine.sql("SELECT count(*) FROM last_message") == [(MOST_ADDED_AN_HOUR,)]


def test_the_next_poll_adds_what_messages_left(machine: Machine, sandbox: Sandbox) -> None:
    names = [f"new-{number:04}" for number in range(MOST_ADDED_AN_HOUR + 50)]
    with watching(machine) as process:
        push(machine, sandbox)  # a new category
        for name in names:
            sandbox.put_skill({"skill_id": name, "name": name})
        push(machine, sandbox, update(sandbox.skill_ids()[0], name="known"))
        assert len(machine.cached().keys() & set(names)) == MOST_ADDED_AN_HOUR - 1
        logged = stop(process)
    assert re.search(r"left \d+ additions by messages to the next poll", logged)
    assert machine.command("sync", "skills").returncode == 0
    assert machine.cached() == machine.listed()


# Times


@pytest.mark.parametrize("future", ["8998-01-01T00:00:00Z", "2399-12-31T23:59:59+14:00", 4102444800])
def test_a_future_timestamp_does_not_pin_a_skill_forever(machine: Machine, sandbox: Sandbox, future: str | int) -> None:
    gone, changed, told, rated = sandbox.skill_ids()[:4]
    for name in (gone, changed):
        sandbox.patch_skill(name, {"updated_at": future}, push=False)
    rating = {"skill_id": rated, "rating": 5, "rating_count": 1, "average_rating": 1.0}
    now = format_time(datetime.now(UTC))
    with watching(machine):
        push(
            machine,
            sandbox,
            deletion(gone),
            update(changed, name="changed", updated_at=now),
            {**update(told, name="first", updated_at=future), "timestamp": future},
            update(told, name="second", updated_at=now),
            {"type": "rating_update", "data": rating, "timestamp": future},
            {"type": "rating_update", "data": {**rating, "average_rating": 2.0}, "timestamp": now},
            {"type": "category_update", "data": {"name": "C", "description": "1"}, "timestamp": future},
            {"type": "category_update", "data": {"name": "C", "description": "2"}, "timestamp": now},
        )
        cached = machine.cached()
    assert gone not in cached
    assert (cached[changed]["name"], cached[told]["name"]) == ("changed", "second")
    assert cached[rated]["average_rating"] == 2.0
    (category,) = machine.sql("SELECT category_data FROM category_cache WHERE category_name = 'C'")
    assert json.loads(category[0])["description"] == "2"


def test_a_deletion_is_older_than_no_skill_but_than_messages(machine: Machine, sandbox: Sandbox) -> None:
    first, second = sandbox.skill_ids()[:2]
    old = {"timestamp": "2001-01-01T00:00:00Z"}
    with watching(machine):
        push(machine, sandbox, update(second, name="told"), deletion(second) | old, deletion(first) | old)
        assert first not in machine.cached()
        assert machine.cached()[second]["name"] == "told"


# The log


def test_each_change_by_a_message_is_a_line(machine: Machine, sandbox: Sandbox) -> None:
    first, second, third = sandbox.skill_ids()[:3]
    long = "x" * 250
    with watching(machine) as process:
        push(
            machine,
            sandbox,
            update(first, code="import os"),
            update("planted", code="import os"),
            update(long),
            deletion(second),
            deletion("unknown"),
            {"type": "rating_update", "data": {"skill_id": third, "rating": 5, "rating_count": 77}},
        )
        logged = stop(process)
    found = [line.partition(" info ")[2] for line in logged.splitlines() if re.search(r" info \w+_\w+: ", line)]
    assert found == [
        f"skill_update: updated {first}",
        "skill_update: added planted",
        f"skill_update: added {long[:79]}…",
        f"skill_delete: deleted {second}",
        f"rating_update: updated {third}",
        "category_update: updated Marker",
    ]


@pytest.mark.parametrize(
    ("told", "line", "more"),
    [
        ("{", "dropped a malformed message", r"dropped (\d+) more malformed messages"),
        ("update", "_update: ", r"(\d+) more changes by messages"),
    ],
)
def test_a_flood_fills_no_journal(machine: Machine, sandbox: Sandbox, told: str, line: str, more: str) -> None:
    with watching(machine) as process:
        push(machine, sandbox)
        began = time.monotonic()
        for number in range(2000):
            sandbox.push(told if told == "{" else json.dumps(update(f"planted-{number % 50}", description=str(number))))
        push(machine, sandbox)
        seconds = time.monotonic() - began
        logged = stop(process)
    lines = sum(line in each and "Marker" not in each for each in logged.splitlines())
    assert lines + sum(map(int, re.findall(more, logged))) == 2000
    assert lines <= LINES_A_SECOND * (seconds + 2)
    assert counter(machine, "atom_saas_websocket_messages_invalid_total") == (2000 if told == "{" else 0)


@pytest.fixture
def limited(caplog: pytest.LogCaptureFixture) -> tuple[LimitedLog, list[float]]:
    caplog.set_level(logging.INFO)
    clock = [100.0]
    return LimitedLog(logging.getLogger("test"), logging.INFO, "%d more", most=2, clock=lambda: clock[0]), clock


def test_some_lines_a_second_and_the_number_of_the_others(
    limited: tuple[LimitedLog, list[float]], caplog: pytest.LogCaptureFixture
) -> None:
    log, clock = limited

    def said(at: float, lines: int) -> list[str]:
        caplog.clear()
        clock[0] = at
        for number in range(lines):
            log.say("line %d", number)
        log.log_suppressed()
        return caplog.messages

    assert said(100.0, 2) == ["line 0", "line 1"]
    assert said(100.9, 3) == []
    assert said(101.0, 0) == ["3 more"]
    assert said(101.5, 3) == ["line 0", "line 1"]
    assert said(102.6, 1) == ["1 more", "line 0"]
    assert said(102.7, 2) == ["line 0"]
    log.log_suppressed(at_once=True)
    assert caplog.messages == ["line 0", "1 more"]
    assert said(90.0, 1) == ["line 0"]  # a clock that went back
