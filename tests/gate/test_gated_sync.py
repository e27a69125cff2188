"""Which versions a polling run serves, holds and removes under each policy (docs/TRUST.md)."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest
from conftest import Machine
from msgspec.structs import replace

from atom_saas_sync.core.gate.types import MaxChanged, Policy
from atom_saas_sync.errors import ConfigError, UsageError
from atom_saas_sync.model import RunReport
from atom_saas_sync.usecases.gate import approvals, pins_and_quarantine, scanning
from atom_saas_sync.usecases.gate.desk import GateDesk
from atom_saas_sync.usecases.gate.loading import load_gate
from atom_saas_sync.usecases.gate.reports import Decided, Target
from atom_saas_sync.usecases.gate.run import RunGate
from atom_saas_sync.usecases.ports.engine import Store

REVIEW, AGE = Policy(admission="review"), Policy(admission="age", min_age=timedelta(hours=72))
EVIL = "forbidden_word()"


class Files:
    """The gate's files of this test."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def _read(self, name: str) -> tuple[str, bytes] | None:
        return (name, self.texts[name].encode()) if name in self.texts else None

    def policy(self) -> tuple[str, bytes] | None:
        return self._read("policy.toml")

    def lock(self) -> tuple[str, bytes] | None:
        return self._read("skills.lock")

    def revocations(self) -> tuple[str, bytes] | None:
        return self._read("revocations.json")

    def stamps(self) -> object:
        return tuple(self.texts.items())


class Scan:
    """A scan command that rejects texts with certain words."""

    def __init__(self, *bad: str) -> None:
        self.bad = bad
        self.asked: list[str] = []

    def scan(
        self, scans: Iterable[tuple[str, bytes]], *, check: Callable[[], None]
    ) -> Iterable[tuple[str, bool, str | None, bool]]:
        for skill_id, document in scans:
            check()
            self.asked.append(skill_id)
            assert json.loads(document).keys() == {"skill", "served"}
            passed = not any(word.encode() in document for word in self.bad)
            yield skill_id, passed, None if passed else "bad word", False


class Gated:
    """A machine whose runs go through a gate, in this process and with its clock."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.policy = Policy()
        self.files = Files()
        self.scanner: Scan | None = None

    def desk(self, opened: Store) -> GateDesk:
        store = opened.gate(history_versions=10)
        return GateDesk(store, lambda: load_gate(self.policy, self.files, store), "remote_wins", self.scanner)

    def sync(self, *, adopting: str | None = None, **options: Any) -> RunReport:
        def gate(store: Store) -> RunGate:
            dry_run = bool(options.get("dry_run"))
            return RunGate(self.desk(store), self.machine.clock.now(), dry_run=dry_run, adopting=adopting)

        self.machine.follow_clock()
        self.machine.clock.move(seconds=1)
        return self.machine.pull(gate=gate, **options)

    def decide(self, verb: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self.machine.clock.move(seconds=1)
        with self.machine.store() as store:
            return verb(self.desk(store), *arguments, actor="ada", now=self.machine.clock.now(), **options)

    def approve(self, *skill_ids: str) -> Decided:
        decided: Decided = self.decide(approvals.approve, [Target(each) for each in skill_ids], note=None)
        return decided

    def waiting(self) -> dict[str, str]:
        rows = self.machine.sql("SELECT skill_id, reason FROM skill_offer WHERE kind = 'hold'")
        return {row[0]: row[1] for row in rows}

    def served(self, skill_id: str, field: str = "version") -> Any:
        skill = self.machine.cached().get(skill_id)
        return None if skill is None else skill.get(field)


@pytest.fixture
def gated(machine: Machine) -> Gated:
    machine.fill()
    return Gated(machine)


@pytest.fixture
def first(gated: Gated) -> str:
    return gated.machine.sandbox.skill_ids()[0]


def counts(report: RunReport) -> tuple[int, int, int, int]:
    found = report.counts
    return found.updates_admitted, found.updates_held, found.updates_refused, found.updates_waiting


def change(gated: Gated, skill_id: str, version: str = "9.0.0", **fields: Any) -> None:
    gated.machine.sandbox.put_skill({**gated.machine.cached()[skill_id], "version": version, **fields})


def test_under_review_what_is_served_stays_until_exactly_that_version_is_approved(gated: Gated, first: str) -> None:
    gated.policy, before = REVIEW, gated.served(first)
    gated.sync()
    change(gated, first)
    gated.machine.sandbox.put_skill({"skill_id": "new", "name": "New"})
    report = gated.sync()
    assert (counts(report), report.status, report.exit_code) == ((0, 2, 0, 2), "success", 0)
    assert report.counts.unchanged == len(gated.machine.sandbox.skill_ids()) - 2
    assert (gated.served(first), gated.served("new")) == (before, None)
    assert gated.waiting() == {first: "review", "new": "review"}
    again = gated.sync()
    assert (again.counts.not_modified, counts(again)) == (2, (0, 0, 0, 2)), "a held page answers 304"
    assert gated.approve(first, "new").success
    assert (gated.served(first), gated.waiting()) == ("9.0.0", {})
    after = gated.sync()
    assert (after.counts.not_modified, counts(after), after.counts.deleted) == (2, (0, 0, 0, 0), 0)


def test_a_republished_version_that_is_held_and_approved_counts_once(gated: Gated, first: str) -> None:
    gated.policy = REVIEW
    gated.sync()
    change(gated, first, gated.served(first), code="print(666)")
    assert gated.sync().counts.republished == 1
    assert gated.waiting() == {first: "republished"}
    assert gated.approve(first).success
    gated.sync()
    assert gated.machine.sql("SELECT value FROM counter WHERE name = 'republished'") == [(1,)]


def test_skills_served_before_the_policy_are_adopted(gated: Gated) -> None:
    gated.policy = REVIEW
    gated.sync()
    rows = gated.machine.sql("SELECT admitted_by, count(*) FROM usable_skill GROUP BY 1")
    assert rows == [("adopted", len(gated.machine.sandbox.skill_ids()))]


def test_volatile_fields_of_the_served_version_follow_while_another_waits(gated: Gated, first: str) -> None:
    gated.policy = REVIEW
    gated.sync()
    change(gated, first, average_rating=1.5, rating_count=77)
    gated.sync()
    assert (gated.served(first, "rating_count"), gated.served(first) != "9.0.0") == (77, True)


def test_a_withdrawn_skill_waits_no_more(gated: Gated) -> None:
    gated.policy = REVIEW
    gated.sync()
    gated.machine.sandbox.put_skill({"skill_id": "new", "name": "New"})
    gated.sync()
    gated.machine.sandbox.delete_skill("new")
    gated.sync()
    assert gated.waiting() == {}


def test_by_age_a_version_is_served_once_it_is_old_enough_also_behind_304(gated: Gated, first: str) -> None:
    gated.policy = AGE
    gated.sync()
    change(gated, first)
    assert counts(gated.sync()) == (0, 1, 0, 1)
    gated.machine.clock.move(hours=71)
    assert counts(gated.sync()) == (0, 0, 0, 1)
    gated.machine.clock.move(hours=1)
    report = gated.sync()
    assert (counts(report), report.counts.not_modified) == ((1, 0, 0, 0), 2)
    assert gated.served(first) == "9.0.0"


def test_a_clock_that_was_set_back_admits_nothing_by_age(gated: Gated, first: str) -> None:
    gated.policy = AGE
    gated.sync()
    change(gated, first)
    gated.sync()
    gated.machine.clock.move(hours=80)
    moment = gated.machine.clock.now()
    gated.policy = Policy(admission="age", min_age=timedelta(days=30))
    gated.sync()
    gated.machine.clock.moment = moment - timedelta(hours=1)
    gated.policy = AGE
    report = gated.sync()
    assert (report.reasons, gated.waiting(), report.status) == (("clock",), {first: "clock"}, "success")


@pytest.mark.parametrize(("limit", "admitted"), [(MaxChanged(number=2), False), (MaxChanged(number=3), True)])
def test_too_many_changed_skills_are_all_held(gated: Gated, limit: MaxChanged, admitted: bool) -> None:
    gated.policy = Policy(max_changed=limit)
    changed = gated.machine.sandbox.skill_ids()[:3]
    for each in changed:
        change(gated, each)
    gated.machine.sandbox.put_skill({"skill_id": "new", "name": "New"})
    report = gated.sync()
    assert gated.served("new", "name") == "New", "new skills do not count"
    if admitted:
        assert (counts(report), gated.waiting()) == ((4, 0, 0, 0), {})
        return
    assert (counts(report), report.reasons, report.exit_code) == ((1, 3, 0, 3), ("updates_tripped",), 0)
    gated.policy = Policy()
    assert gated.sync().counts.updates_waiting == 3, "until a person decides"
    assert gated.approve(*changed).success


def test_adopt_admits_what_the_first_sync_brings_and_only_that(machine: Machine) -> None:
    gated = Gated(machine)
    gated.policy = REVIEW
    report = gated.sync(adopting="ada")
    number = len(machine.sandbox.skill_ids())
    assert report.counts.added == number
    assert machine.sql("SELECT admitted_by, count(*) FROM usable_skill GROUP BY 1") == [("ada", number)]
    with pytest.raises(UsageError, match="--adopt"):
        gated.sync(adopting="ada")


def test_a_fresh_database_serves_nothing_until_it_is_admitted(machine: Machine) -> None:
    gated = Gated(machine)
    gated.policy = REVIEW
    report = gated.sync()
    assert (machine.cached(), report.counts.updates_held) == ({}, len(machine.sandbox.skill_ids()))


def test_fail_on_held(gated: Gated, first: str) -> None:
    gated.policy = REVIEW
    gated.sync()
    change(gated, first)
    report = gated.sync(fail_on_held=True)
    assert (report.reasons, report.exit_code) == (("updates_waiting",), 4)


def test_a_dry_run_says_what_would_be_held_and_writes_nothing(gated: Gated, first: str) -> None:
    gated.policy = REVIEW
    gated.sync()
    change(gated, first)
    report = gated.sync(dry_run=True)
    assert [(each.skill_id, each.not_admitted_because) for each in report.plan] == [(first, "review")]
    assert gated.waiting() == {}


def revoke(gated: Gated, *entries: dict[str, str]) -> None:
    gated.files.texts["revocations.json"] = json.dumps({"revocations": entries})


def test_the_revocations_file_takes_out_what_is_served_without_the_marketplace(gated: Gated, first: str) -> None:
    revoke(gated, {"id": first})
    report = gated.sync(url="http://127.0.0.1:1")
    assert (report.error is not None, gated.served(first)) == (True, None)
    assert gated.machine.sql("SELECT skill_id, reason FROM gate_quarantine") == [(first, "revoked")]
    gated.sync()
    gated.sync(force=True)
    assert gated.served(first) is None
    assert gated.decide(pins_and_quarantine.release, [first]).refused[0].reason == "revoked"
    del gated.files.texts["revocations.json"]
    gated.sync()
    assert gated.served(first) is None, "it stays in quarantine until it is released"
    assert gated.decide(pins_and_quarantine.release, [first]).done == (first,)
    assert gated.served(first) is not None


def test_an_edit_of_a_revoked_version_is_quarantined_byte_for_byte(gated: Gated, first: str) -> None:
    text = json.dumps({**gated.machine.cached()[first], "code": "mine"})
    gated.machine.sql("UPDATE skill_cache SET skill_data = ? WHERE skill_id = ?", text, first)
    revoke(gated, {"id": first})
    gated.sync()
    assert gated.machine.sql("SELECT skill_data, served_source FROM gate_quarantine") == [(text, "edited")]
    assert gated.served(first) is None


def test_plain_sql_cannot_bring_a_revoked_skill_back(gated: Gated, first: str) -> None:
    [row] = gated.machine.sql("SELECT skill_data, expires_at FROM skill_cache WHERE skill_id = ?", first)
    revoke(gated, {"id": first})
    gated.sync()
    for take_out in (gated.sync, lambda: gated.decide(pins_and_quarantine.quarantine, ["nothing"], note=None)):
        gated.machine.sql("INSERT INTO skill_cache (skill_id, skill_data, expires_at) VALUES (?, ?, ?)", first, *row)
        assert gated.served(first) is not None
        take_out()
        assert gated.served(first) is None


def test_an_invalid_revocations_file_ends_a_run_and_the_last_list_stays_in_force(gated: Gated, first: str) -> None:
    revoke(gated, {"id": first})
    gated.sync()
    gated.files.texts["revocations.json"] = "{"
    with pytest.raises(ConfigError):
        gated.sync()
    assert gated.machine.sql("SELECT skill_id FROM gate_revocation") == [(first,)]


def test_a_rule_that_denies_puts_into_quarantine_what_is_served(gated: Gated, first: str) -> None:
    gated.files.texts["policy.toml"] = f'[[rule]]\nid = "{first}"\nadmission = "deny"\n'
    gated.sync()
    assert gated.machine.sql("SELECT skill_id, reason FROM gate_quarantine") == [(first, "denied")]


def test_a_version_that_fails_the_scan_waits_and_is_scanned_once(gated: Gated, first: str) -> None:
    gated.policy, gated.scanner = Policy(scan_command=("scan",)), Scan("forbidden_word")
    second = gated.machine.sandbox.skill_ids()[1]
    change(gated, first, code=EVIL)
    change(gated, second)
    assert counts(gated.sync()) == (1, 1, 0, 1)
    assert (gated.waiting(), gated.served(second)) == ({first: "scan"}, "9.0.0")
    gated.sync()
    assert sorted(gated.scanner.asked) == sorted([first, second])
    gated.scanner.bad = ()
    assert gated.decide(scanning.rescan, None).passed == (first,)
    assert gated.served(first) == "9.0.0"


def test_manual_quarantine_holds_every_offer_and_release_restores_the_same_bytes(gated: Gated, first: str) -> None:
    [(text,)] = gated.machine.sql("SELECT skill_data FROM skill_cache WHERE skill_id = ?", first)
    change_later = gated.machine.cached()[first]
    assert gated.decide(pins_and_quarantine.quarantine, [first], note="odd").done == (first,)
    gated.machine.sandbox.put_skill({**change_later, "version": "9.0.0"})
    gated.sync()
    assert (gated.served(first), gated.waiting()) == (None, {first: "quarantined"})
    assert gated.decide(pins_and_quarantine.release, [first]).done == (first,)
    assert gated.machine.sql("SELECT skill_data FROM skill_cache WHERE skill_id = ?", first) == [(text,)]
    gated.sync()
    assert gated.served(first) == "9.0.0", "what waited is judged at the next run"


def test_a_pin_puts_a_former_version_back_and_its_removal_acts_at_the_next_run(gated: Gated, first: str) -> None:
    before = gated.served(first)
    change(gated, first)
    gated.sync()
    assert gated.decide(pins_and_quarantine.add_pin, f"{first}@{before}", note=None).success
    assert (gated.served(first), gated.waiting()) == (before, {first: "pinned"})
    gated.sync()
    assert gated.served(first) == before
    assert gated.approve(first).refused[0].reason == "pinned"
    gated.decide(pins_and_quarantine.remove_pin, [first])
    gated.sync()
    assert (gated.served(first), gated.waiting()) == ("9.0.0", {})


def test_a_page_that_stays_unchanged_for_a_week_is_fetched_whole_once(gated: Gated) -> None:
    gated.sync()
    gated.machine.clock.move(days=6)
    assert gated.sync().counts.not_modified == 2
    gated.machine.clock.move(days=2)
    assert gated.sync().counts.not_modified == 1, "the categories"
    assert gated.sync().counts.not_modified == 2


def test_under_open_without_exceptions_nothing_is_written_for_the_gate(gated: Gated, first: str) -> None:
    change(gated, first)
    gated.sync()
    tables = ("skill_offer", "gate_decision", "gate_pin", "gate_revocation", "gate_quarantine", "gate_scan")
    assert [gated.machine.sql(f"SELECT count(*) FROM {each}") for each in tables] == [[(0,)]] * len(tables)
    assert gated.machine.sql("SELECT name FROM fact WHERE name LIKE 'gate%'") == []
    assert gated.served(first) == "9.0.0"


def test_a_released_skill_lives_no_longer_than_the_marketplace_confirmed_it(gated: Gated, first: str) -> None:
    gated.sync()
    assert gated.decide(pins_and_quarantine.quarantine, [first], note=None).success
    gated.machine.clock.move(hours=10)
    assert gated.decide(pins_and_quarantine.release, [first]).success
    confirmed, expires = gated.machine.sql(
        "SELECT confirmed_at, expires_at FROM usable_skill JOIN skill_cache USING (skill_id) WHERE skill_id = ?", first
    )[0]
    assert datetime.fromisoformat(expires) == datetime.fromisoformat(confirmed) + timedelta(hours=24)


@pytest.mark.parametrize(("limit", "admitted"), [(2, 0), (3, 3)])
def test_versions_parked_by_a_killed_run_count_in_the_next_one(
    gated: Gated, monkeypatch: pytest.MonkeyPatch, limit: int, admitted: int
) -> None:
    gated.policy = Policy(max_changed=MaxChanged(number=limit))
    gated.sync()
    before, changed = gated.machine.cached(), gated.machine.sandbox.skill_ids()[::25]
    for each in changed:
        change(gated, each)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(RunGate, "finish", lambda *_args, **_options: os.kill(os.getpid(), signal.SIGKILL))
        gated.sync()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert gated.waiting() == dict.fromkeys(changed, "abnormal")
    assert gated.machine.cached() == before
    gated.machine.clock.move(minutes=15)
    report = gated.sync()
    assert report.counts.not_modified == 2
    assert (report.counts.updates_waiting, report.counts.updates_admitted) == (len(changed) - admitted, admitted)
    assert [gated.served(each) for each in changed].count("9.0.0") == admitted


def test_under_age_a_version_is_scanned_when_it_is_due_and_not_before(gated: Gated, first: str) -> None:
    gated.policy, gated.scanner = AGE, Scan("forbidden_word")
    gated.sync()
    gated.policy = replace(AGE, scan_command=("scan",))
    second = gated.machine.sandbox.skill_ids()[1]
    change(gated, first, code=EVIL)
    change(gated, second)
    gated.sync()
    assert (gated.waiting(), gated.scanner.asked) == ({first: "age", second: "age"}, [])
    gated.machine.clock.move(hours=72)
    assert counts(gated.sync()) == (1, 0, 0, 1)
    assert (gated.waiting(), gated.served(second)) == ({first: "scan"}, "9.0.0")
    assert sorted(gated.scanner.asked) == sorted([first, second])
    gated.sync()
    assert len(gated.scanner.asked) == 2, "the verdict is remembered"
