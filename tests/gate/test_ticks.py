"""The periodic work of `watch` for the gate: usecases/gate/ticking.py."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from conftest import Machine
from msgspec.structs import replace
from test_gated_sync import AGE, Gated, Scan, change, revoke

from atom_saas_sync.core.gate.types import MaxChanged, Policy
from atom_saas_sync.usecases.gate import scanning
from atom_saas_sync.usecases.gate.current import CurrentGate
from atom_saas_sync.usecases.gate.ticking import GateTicks


@pytest.fixture
def gated(machine: Machine) -> Gated:
    machine.fill()
    found = Gated(machine)
    found.policy = AGE
    found.sync()
    return found


@pytest.fixture
def ticks(gated: Gated) -> Iterator[GateTicks]:
    with gated.machine.store() as store:
        desk = gated.desk(store)
        yield GateTicks(desk, CurrentGate(desk, gated.files), gated.machine.clock)


def test_a_due_version_is_admitted_by_the_next_tick(gated: Gated, ticks: GateTicks) -> None:
    first = gated.machine.sandbox.skill_ids()[0]
    change(gated, first)
    gated.sync()
    ticks.tick()
    assert gated.waiting() == {first: "age"}
    gated.machine.clock.move(hours=72)
    ticks.tick()
    assert (gated.served(first), gated.waiting()) == ("9.0.0", {})


def test_what_is_due_is_scanned_by_the_tick_after_it(gated: Gated) -> None:
    first, second = gated.machine.sandbox.skill_ids()[:2]
    gated.policy, gated.scanner = replace(AGE, scan_command=("scan",)), Scan("forbidden_word")
    change(gated, first, code="forbidden_word()")
    change(gated, second)
    gated.sync()
    with gated.machine.store() as store:
        desk = gated.desk(store)
        ticks = GateTicks(desk, CurrentGate(desk, gated.files), gated.machine.clock)
        ticks.tick()
        ticks.scan()
        assert gated.scanner.asked == []
        gated.machine.clock.move(hours=72)
        ticks.tick()
        assert gated.waiting() == {first: "scan", second: "scan"}
        ticks.scan()
    assert (gated.waiting(), gated.served(second)) == ({first: "scan"}, "9.0.0")


def test_a_scan_admits_nothing_by_a_clock_that_was_set_back(gated: Gated) -> None:
    first = gated.machine.sandbox.skill_ids()[0]
    gated.policy, gated.scanner = replace(AGE, scan_command=("scan",)), Scan()
    change(gated, first)
    gated.sync()
    gated.machine.clock.move(hours=90)
    with gated.machine.store() as store:
        desk = gated.desk(store)
        ticks = GateTicks(desk, CurrentGate(desk, gated.files), gated.machine.clock)
        ticks.tick()
        assert gated.waiting() == {first: "scan"}
        gated.machine.clock.move(hours=-10)
        ticks.scan()
        assert (gated.scanner.asked, gated.waiting()) == ([first], {first: "clock"})
        gated.decide(scanning.rescan, [first])
        assert gated.waiting() == {first: "clock"}


def test_a_revocations_file_that_changes_counts_at_once(gated: Gated, ticks: GateTicks) -> None:
    ticks.tick()
    first = gated.machine.sandbox.skill_ids()[0]
    revoke(gated, {"id": first})
    ticks.tick()
    assert gated.served(first) is None
    assert gated.machine.sql("SELECT skill_id FROM gate_revocation") == [(first,)]


def test_an_invalid_file_admits_nothing_and_is_noted_until_it_is_valid(gated: Gated, ticks: GateTicks) -> None:
    first = gated.machine.sandbox.skill_ids()[0]
    change(gated, first)
    gated.sync()
    gated.files.texts["revocations.json"] = "{"
    gated.machine.clock.move(hours=72)
    ticks.tick()
    assert gated.waiting() == {first: "revocations"}
    revoke(gated)
    ticks.tick()
    assert (gated.waiting(), gated.served(first)) == ({}, "9.0.0")


def test_under_open_a_tick_writes_nothing(machine: Machine) -> None:
    machine.fill()
    gated = Gated(machine)
    gated.policy = Policy()
    before = machine.database.rows()
    with machine.store() as store:
        desk = gated.desk(store)
        GateTicks(desk, CurrentGate(desk, gated.files), machine.clock).tick()
    assert machine.database.rows() == before


def test_messages_are_abnormal_only_by_changes_in_scope_that_are_new(gated: Gated) -> None:
    gated.policy = Policy(
        admission="age", min_age=timedelta(hours=72), scope="executable", max_changed=MaxChanged(number=2)
    )
    ids, clock = gated.machine.sandbox.skill_ids()[:3], gated.machine.clock

    def abnormal() -> bool:
        with gated.machine.store() as store:
            return CurrentGate(gated.desk(store), gated.files).get(clock.now()).abnormal

    gated.sync()
    for each in ids:
        change(gated, each, "9.0.0", description="Other words")
    gated.sync()
    assert [gated.served(each) for each in ids] == ["9.0.0"] * 3
    assert not abnormal(), "words are out of scope"
    for each in ids[:2]:
        change(gated, each, "9.1.0", code=f"print({each!r})")
    gated.sync()
    assert not abnormal(), "two are allowed"
    clock.move(minutes=10)
    change(gated, ids[2], "9.1.0", code="print(3)")
    gated.sync()
    assert abnormal()
    clock.move(hours=73)
    gated.sync()
    assert [gated.served(each) for each in ids] == ["9.1.0"] * 3
    assert not abnormal(), "they were seen days ago"
