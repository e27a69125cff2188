"""The number of round trips of a command: over a network, each costs milliseconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from conftest import Machine
from trip_counter import Trips, counted

from atom_saas_sync.core.incoming.messages import Message, parse_frame
from atom_saas_sync.core.server_address import read_server_address
from atom_saas_sync.model import SkillFilter
from atom_saas_sync.store import engine_at
from atom_saas_sync.usecases.follow_events import EventFollower

_MOST = 4
_MOST_OF_A_RUN, _MOST_OF_A_REQUEST = 64, 3
_PAGES = 3
_LOSABLE = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = off"
_WRITING = f"{_LOSABLE}; SET LOCAL atom_sync.bulk = on"
_CHANGES: dict[str, dict[str, Any]] = {
    "skill_update": {"name": "Other"},
    "rating_update": {"rating": 4, "rating_count": 7},
}
_NOW = datetime(2027, 2, 19, 12, 0, tzinfo=UTC)


@pytest.fixture
def trips(database_url: str) -> Iterator[Trips]:
    with counted(database_url) as found:
        yield found


def sync(machine: Machine, trips: Trips) -> dict[str, Any]:
    trips.forget()
    result = machine.command(
        "sync", "skills", "--json", ATOM_SAAS_DATABASE_URL=trips.url, ATOM_SAAS_SYNC_BATCH_SIZE="20"
    )
    assert result.returncode == 0, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def test_each_page_is_written_in_four_round_trips(machine: Machine, trips: Trips) -> None:
    for added, updated in ((60, 0), (0, 30), (0, 30)):  # the last time with former versions to compare with
        report = sync(machine, trips)
        assert (report["added"], report["updated"]) == (added, updated)
        pages = trips.transactions(_WRITING)
        assert len(pages) >= 3, "each page has a transaction of its own"
        assert max(map(len, pages)) <= _MOST, pages
        for skill_id in machine.sandbox.skill_ids()[::2]:
            machine.sandbox.patch_skill(skill_id, {"description": f"{added} and {updated}"}, push=False)


def test_a_sync_without_changes_takes_few_round_trips(machine: Machine, trips: Trips) -> None:
    sync(machine, trips)
    assert sync(machine, trips)["unchanged"] == 60
    _, budget = trips.connections[-2:]
    assert len(trips.all()) - len(budget) <= _MOST_OF_A_RUN
    requests = [each for each in trips.transactions(_LOSABLE) if each[0] in budget]
    assert 1 <= len(requests) <= 2 * _PAGES
    assert max(map(len, requests)) <= _MOST_OF_A_REQUEST, requests


def test_a_batch_of_messages_is_applied_in_four_round_trips(machine: Machine, trips: Trips) -> None:
    sync(machine, trips)
    ids = iter(machine.sandbox.skill_ids())
    with engine_at(read_server_address(trips.url)).open() as store:
        follower = EventFollower(store.events(history_versions=2), strategy="remote_wins")
        for kind in ("skill_update", "rating_update", "skill_update", "skill_delete"):
            messages = [_message(kind, next(ids)) for _ in range(5)]
            trips.forget()
            follower.apply(messages, _NOW)
            (batch,) = trips.transactions(_WRITING)
            assert len(batch) <= _MOST, batch


def test_a_search_takes_two_round_trips_and_other_reads_one(machine: Machine, trips: Trips) -> None:
    sync(machine, trips)
    with engine_at(read_server_address(trips.url)).open(read_only=True) as store:
        reading, skill_id = store.reading(_NOW), machine.sandbox.skill_ids()[0]
        name = machine.sandbox.skill(skill_id)["name"]
        questions: list[tuple[int, Callable[[], object]]] = [
            (2, lambda: reading.search(name, SkillFilter(), limit=20)[0]),
            (1, lambda: reading.search("%%%", SkillFilter())[1] == 0),
            (1, lambda: reading.list_skills(SkillFilter())),
            (1, lambda: reading.skill(skill_id)),
            (1, lambda: store.catalogue(history_versions=2).digests_on_page(1)),
        ]
        for most, ask in questions:
            trips.forget()
            assert ask()
            assert len(trips.all()) <= most, trips.all()


def test_status_takes_three_round_trips(machine: Machine, trips: Trips) -> None:
    sync(machine, trips)
    trips.forget()
    result = machine.command("status", "--json", ATOM_SAAS_DATABASE_URL=trips.url)
    assert json.loads(result.stdout)["cache"]["skills_count"] == 60
    assert len(trips.all()) <= 3, trips.all()


def test_status_of_no_tables_says_so_and_logs_nothing(machine: Machine, postgresql_url: str) -> None:
    result = machine.command("status", ATOM_SAAS_DATABASE_URL=postgresql_url)
    assert (result.returncode, result.stderr) == (0, "")
    assert "does not exist yet or has no tables of atom-sync" in result.stdout


def _message(kind: str, skill_id: str) -> Message:
    fields = _CHANGES.get(kind, {})
    sent = f"{_NOW:%Y-%m-%dT%H:%M:%SZ}"
    message = parse_frame(json.dumps({"type": kind, "data": {"skill_id": skill_id, **fields}, "timestamp": sent}))
    assert isinstance(message, Message)
    return message
