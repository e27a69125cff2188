"""Syncs with several connections do what those with one do, only sooner; also when something fails on the way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Machine, wait_until
from database_rules import check_rules

from atom_saas_sync.core.deletions import MaxDelete
from atom_saas_sync.sandbox import Sandbox

SKILLS, PAGE, PAGES = 60, 5, 12
LATENCY = 0.03
"""Long enough for another connection to be used."""


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Machine]:
    """Return a machine far from its marketplace."""
    with Sandbox(skills=SKILLS, seed=5, latency=LATENCY) as sandbox:
        machine = Machine(sandbox, tmp_path)
        machine.follow_clock()
        yield machine
    wait_until(lambda: not any(thread.name == "fetch-ahead" for thread in threading.enumerate()))


def cached(machine: Machine) -> int:
    return int(machine.sql("SELECT count(*) FROM skill_cache")[0][0])


def asked_pages(machine: Machine) -> list[int]:
    """Return the pages that have been asked for since the last call."""
    pages = [int(each.query.split("page=")[1].split("&")[0]) for each in machine.sandbox.requests("list")]
    machine.sandbox.journal.reset()
    return pages


def test_pages_are_fetched_side_by_side(far: Machine) -> None:
    report = far.pull(page_size=PAGE, connections=6)
    assert (report.status, report.counts.added, cached(far)) == ("success", SKILLS, SKILLS)
    assert 2 <= far.sandbox.counters()["connections_max"] <= 6
    assert sorted(asked_pages(far)) == [*range(1, PAGES + 2)], "each once, and the empty one that ends the list"


def test_pages_of_last_time_are_asked_for_from_the_start_and_not_sent_again(far: Machine) -> None:
    far.pull(page_size=PAGE)
    asked_pages(far)
    report = far.pull(page_size=PAGE, connections=6)
    assert (report.status, report.counts.not_modified, report.counts.unchanged) == ("success", PAGES + 2, SKILLS)
    assert sorted(asked_pages(far)) == [*range(1, PAGES + 2)]


def test_with_one_connection_pages_are_asked_for_in_order(far: Machine) -> None:
    far.pull(page_size=PAGE)
    assert far.sandbox.counters()["connections_max"] == 1
    assert asked_pages(far) == [*range(1, PAGES + 2)]


def test_a_list_that_became_shorter_is_read_to_its_new_end(far: Machine) -> None:
    far.pull(page_size=PAGE)
    for skill_id in far.sandbox.skill_ids()[20:]:
        far.sandbox.delete_skill(skill_id)
    report = far.pull(page_size=PAGE, connections=6, max_delete=MaxDelete(number=40))
    assert (report.status, report.counts.deleted, cached(far)) == ("success", 40, 20)


@pytest.mark.parametrize("value", ["add", "remove"])
def test_a_list_that_changes_while_it_is_read_is_read_again(far: Machine, value: str) -> None:
    far.sandbox.fault("drift", endpoint="list", value=value, after=4, times=1)
    report = far.pull(page_size=PAGE, connections=6)
    assert report.status == "success"
    assert cached(far) == len(far.sandbox.skill_ids())


def test_one_page_of_six_fails_and_the_others_are_kept(far: Machine) -> None:
    far.sandbox.fault("error", endpoint="list", page=4, status=500)
    report = far.pull(page_size=PAGE, connections=6)
    assert (report.status, report.reasons, report.exit_code) == ("partial", ("api_error",), 69)
    assert report.error is not None and report.error.message.startswith("could not fetch page 4: ")
    assert cached(far) == SKILLS - PAGE
    far.sandbox.clear_faults()
    assert far.pull(page_size=PAGE, connections=6).counts.added == PAGE


def test_a_pause_that_is_asked_of_one_holds_for_all(far: Machine) -> None:
    far.sandbox.fault("error", endpoint="list", page=3, status=429, retry_after=9, times=1)
    report = far.pull(page_size=PAGE, connections=6)
    assert (report.status, cached(far)) == ("success", SKILLS)
    assert 9.0 in far.clock.slept


@pytest.mark.parametrize("page", [1, 5])
def test_a_refused_token_ends_it_and_deletes_nothing(far: Machine, page: int) -> None:
    far.pull(page_size=PAGE)
    asked_pages(far)
    far.sandbox.delete_skill(far.sandbox.skill_ids()[-1])
    far.sandbox.fault("error", endpoint="list", page=page, status=401)
    report = far.pull(page_size=PAGE, connections=6)
    assert (report.exit_code, report.reasons) == (77, ("auth",))
    assert (cached(far), report.counts.deleted) == (SKILLS, 0)
    asked = asked_pages(far)
    assert asked.count(page) == 1
    assert max(asked) <= page + 6, "none beyond those under way"


def test_a_signal_in_the_middle_keeps_what_was_read(far: Machine) -> None:
    assert far.command("sync", "skills", ATOM_SAAS_SYNC_BATCH_SIZE=str(PAGE)).returncode == 0
    far.sandbox.delete_skill(far.sandbox.skill_ids()[0])
    asked_pages(far)
    far.sandbox.fault("hang", endpoint="list", after=6)
    with far.started("sync", "skills", ATOM_SAAS_SYNC_BATCH_SIZE=str(PAGE)) as process:
        wait_until(lambda: len(far.sandbox.requests("list")) >= 9)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert cached(far) == SKILLS
    assert check_rules(far.database) == []


# Deletions


def test_deletions_are_confirmed_side_by_side(far: Machine) -> None:
    far.pull(page_size=PAGE)
    gone = far.sandbox.skill_ids()[::5]
    for skill_id in gone:
        far.sandbox.delete_skill(skill_id)
    far.sandbox.journal.reset()
    report = far.pull(page_size=PAGE, connections=6, max_delete=MaxDelete(number=len(gone)))
    assert (report.status, report.counts.deleted, report.proof.confirmations) == ("success", len(gone), len(gone))
    assert sorted(entry.path.rpartition("/")[2] for entry in far.sandbox.requests("skill")) == sorted(gone)
    assert 2 <= far.sandbox.counters()["connections_max"] <= 6


def test_a_confirmation_that_fails_deletes_only_what_is_proved_gone(far: Machine) -> None:
    far.pull(page_size=PAGE)
    gone = far.sandbox.skill_ids()[::5]
    for skill_id in gone:
        far.sandbox.delete_skill(skill_id)
    far.sandbox.fault("error", endpoint="skill", skill_id=gone[3], status=401)
    report = far.pull(page_size=PAGE, connections=6, max_delete=MaxDelete(number=len(gone)))
    assert report.exit_code == 77
    left = {name for (name,) in far.sql("SELECT skill_id FROM skill_cache")}
    proved = {each.path.rpartition("/")[2] for each in far.sandbox.requests("skill") if each.status == 404}
    assert gone[3] in left
    assert left == {*far.sandbox.skill_ids(), *gone} - proved
