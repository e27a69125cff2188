"""Syncs with several connections have the same result as with one, also if something fails."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import FakeClock, Machine, wait_until
from database_rules import check_rules
from watch_support import PATIENCE, watching

from atom_saas_sync.core.deletions import MaxDelete
from atom_saas_sync.errors import AtomSyncError
from atom_saas_sync.marketplace.client import MarketplaceClient
from atom_saas_sync.marketplace.connections import Connections
from atom_saas_sync.marketplace.sharing import SharedConnections
from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.usecases.walk import PageSource, Walk

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
    no_thread_is_left()


def no_thread_is_left() -> None:
    wait_until(lambda: not any(thread.name == "fetch-ahead" for thread in threading.enumerate()), PATIENCE / 2)


class WaitingClock(FakeClock):
    """A clock whose pauses last until they are over."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeping = threading.Event()

    def sleep(self, seconds: float, over: threading.Event | None = None) -> None:
        self.sleeping.set()
        assert over is not None and over.wait(PATIENCE)
        super().sleep(seconds, over)


class HeldClock(FakeClock):
    """A clock whose pauses last until something has happened."""

    def __init__(self, happened: Callable[[], bool]) -> None:
        super().__init__()
        self._happened = happened

    def sleep(self, seconds: float, over: threading.Event | None = None) -> None:
        wait_until(self._happened)
        super().sleep(seconds, over)


class MeetingClock(FakeClock):
    """A clock whose pauses last until two threads are in one."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._pausing: set[int] = set()

    def sleep(self, seconds: float, over: threading.Event | None = None) -> None:
        with self._changed:
            self._pausing.add(threading.get_ident())
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: len(self._pausing) > 1, PATIENCE)
            super().sleep(seconds, over)


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
    # The first page, which tells how many there are, comes after another one has been asked for.
    far.sandbox.fault("error", endpoint="list", page=1, status=503, times=1)
    far.clock = HeldClock(lambda: len(far.sandbox.requests("list")) > 1)
    report = far.pull(page_size=PAGE, connections=6)
    assert (report.status, report.counts.not_modified, report.counts.unchanged) == ("success", PAGES + 2, SKILLS)
    assert sorted(asked_pages(far)) == [1, *range(1, PAGES + 2)]


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


def test_a_skill_that_two_pages_show_is_not_missed_when_they_are_read_again(far: Machine) -> None:
    def fifth_page_came_and_first_skill_went() -> bool:
        came = any(each.query.startswith("page=5&") and each.status for each in far.sandbox.requests("list"))
        if came:
            far.sandbox.delete_skill(far.sandbox.skill_ids()[0])
        return came

    # The first skill of the fifth page comes to the end of the fourth one, which is answered later, and stays.
    shown_twice = far.sandbox.skill_ids()[4 * PAGE]
    far.sandbox.fault("error", endpoint="list", page=4, status=503, times=1)
    far.clock = HeldClock(fifth_page_came_and_first_skill_went)
    report = far.pull(page_size=PAGE, connections=6)
    assert (report.status, report.proof.walks) == ("success", 2)
    assert far.sql(f"SELECT count(*) FROM skill_cache WHERE skill_id = '{shown_twice}'")[0][0] == 1
    assert cached(far) == SKILLS - 1


def test_one_page_of_six_fails_and_the_others_are_kept(far: Machine) -> None:
    far.sandbox.fault("error", endpoint="list", page=4, status=500)
    report = far.pull(page_size=PAGE, connections=6)
    assert (report.status, report.reasons, report.exit_code) == ("partial", ("api_error",), 69)
    assert report.error is not None and report.error.message.startswith("could not fetch page 4: ")
    assert cached(far) == SKILLS - PAGE
    far.sandbox.clear_faults()
    assert far.pull(page_size=PAGE, connections=6).counts.added == PAGE


def test_a_pause_that_is_asked_of_one_holds_for_all(far: Machine) -> None:
    far.clock = MeetingClock()
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
    # All skills are on one page, so that only confirmations use a second connection.
    report = far.pull(page_size=2 * SKILLS, connections=6, max_delete=MaxDelete(number=len(gone)))
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


def test_the_end_of_a_walk_ends_the_pauses_of_its_pages(far: Machine) -> None:
    clock = far.clock = WaitingClock()
    far.sandbox.fault("error", endpoint="list", page=2, status=503, times=1)
    with far.client() as (client, _):
        source = PageSource(client, clock, {}, PAGE)
        walk = Walk(source, records={}, page_size=PAGE, connections=2, check=lambda: None)
        with walk.pages() as pages:
            next(pages)
            assert clock.sleeping.wait(PATIENCE)
        no_thread_is_left()
    assert asked_pages(far).count(2) == 1


def test_a_refused_token_ends_the_pauses_of_other_pages(far: Machine) -> None:
    far.clock = WaitingClock()
    far.sandbox.fault("error", endpoint="list", page=2, status=503, times=1)
    far.sandbox.fault("error", endpoint="list", page=3, status=401)
    assert far.pull(page_size=PAGE, connections=6).exit_code == 77
    assert asked_pages(far).count(2) == 1


def test_a_refused_token_ends_the_pauses_of_other_confirmations(far: Machine) -> None:
    far.pull(page_size=PAGE)
    first, second = far.sandbox.skill_ids()[:2]
    for skill_id in (first, second):
        far.sandbox.delete_skill(skill_id)
    far.clock = WaitingClock()
    far.sandbox.fault("error", endpoint="skill", skill_id=first, status=503, times=1)
    far.sandbox.fault("error", endpoint="skill", skill_id=second, status=401)
    report = far.pull(page_size=PAGE, connections=6, max_delete=MaxDelete(number=2))
    assert (report.exit_code, cached(far)) == (77, SKILLS)


# One bound for the process


def test_clients_of_one_process_share_their_connections(far: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, close, closed = SharedConnections(), Connections.close, list[Connections]()

    def noted(connections: Connections) -> None:
        closed.append(connections)
        close(connections)

    monkeypatch.setattr(Connections, "close", noted)
    found: list[str] = []

    def ask(skill_ids: list[str]) -> None:
        with (
            shared.lend(far.sandbox.url, None, most=2) as connections,
            far.client(connections=connections) as (client, _),
        ):
            found.extend(skill_id for skill_id in skill_ids if client.get_skill(skill_id) is not None)

    ids = far.sandbox.skill_ids()[:24]
    threads = [threading.Thread(target=ask, args=(ids[first::8],)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(found) == sorted(ids)
    assert far.sandbox.counters()["connections_max"] == 2
    assert len(closed) == 1, "only the last client closes them; the server also closes idle ones on its own"
    assert far.sandbox.wait_for(lambda: far.sandbox.counters()["connections_open"] == 0)


def test_a_client_that_waits_for_a_connection_still_has_its_deadline(far: Machine) -> None:
    ended: dict[str, str] = {}
    with (
        SharedConnections().lend(far.sandbox.url, None, most=1) as connections,
        far.client(connections=connections, timeout_seconds=2 * PATIENCE) as (first, _),
        far.client(connections=connections, timeout_seconds=2 * PATIENCE, deadline=far.clock.elapsed + 9) as (
            second,
            _,
        ),
    ):

        def ask(client: MarketplaceClient, endpoint: str) -> None:
            try:
                client.list_skills(1, PAGE) if endpoint == "list" else client.get_skill(far.sandbox.skill_ids()[0])
            except AtomSyncError as error:
                ended[endpoint] = error.kind

        far.sandbox.fault("hang", endpoint="list")
        asking = [threading.Thread(target=ask, args=each) for each in ((first, "list"), (second, "skill"))]
        asking[0].start()
        wait_until(lambda: far.sandbox.requests("list"))
        asking[1].start()
        far.clock.move(seconds=10)
        asking[1].join(PATIENCE)
        assert ended == {"skill": "deadline"}
        first.stop(signal.SIGTERM)
        asking[0].join(PATIENCE)
    assert ended["list"] == "interrupted"
    assert far.sandbox.requests("skill") == []


def test_the_websocket_of_watch_counts_as_one_connection(far: Machine) -> None:
    with watching(far, ATOM_SAAS_SYNC_BATCH_SIZE=str(PAGE), ATOM_SAAS_SYNC_CONNECTIONS="2"):
        assert cached(far) == SKILLS
        assert far.sandbox.counters()["connections_max"] == 1
