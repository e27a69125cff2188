"""What runs write on a server: rows, log and index pages that every other host and standby has to take."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from conftest import Machine, wait_until
from postgres_support import binaries

from atom_saas_sync.core.incoming.messages import Message, parse_frame
from atom_saas_sync.core.server_address import read_server_address
from atom_saas_sync.model import SkillFilter
from atom_saas_sync.store import engine_at
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.notifications import Notifications
from atom_saas_sync.usecases.follow_events import EventFollower

_PAGES = 3
_MEGABYTE = 1 << 20


class Watcher:
    """Looks at the server from another session."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)
        self.connection.execute("SET search_path = atom_sync")

    def number(self, question: str) -> int:
        row = self.connection.execute(question.encode()).fetchone()
        assert row is not None
        return int(row[0])

    def written(self, *tables: str) -> dict[str, int]:
        """Return how many rows of each of our tables have been updated so far, or of some also inserted."""
        # A session reports what it has written as it ends.
        wait_until(lambda: not self.number("SELECT count(*) FROM pg_stat_activity WHERE application_name ^@ 'atom'"))
        kinds = "n_tup_upd + n_tup_ins" if tables else "n_tup_upd"
        rows = self.connection.execute(
            f"SELECT relname, {kinds} FROM pg_stat_user_tables WHERE schemaname = 'atom_sync'".encode()
        )
        return {name: number for name, number in rows.fetchall() if not tables or name in tables}

    def log_position(self) -> int:
        return self.number("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")


@pytest.fixture
def watcher(database_url: str) -> Iterator[Watcher]:
    found = Watcher(database_url)
    yield found
    found.connection.close()


def sync(machine: Machine, url: str) -> dict[str, Any]:
    result = machine.command("sync", "skills", "--json", ATOM_SAAS_DATABASE_URL=url, ATOM_SAAS_SYNC_BATCH_SIZE="20")
    assert result.returncode == 0, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def test_a_run_without_changes_updates_a_row_a_page(machine: Machine, database_url: str, watcher: Watcher) -> None:
    sync(machine, database_url)
    taken = watcher.number("SELECT last_value FROM atom_sync.skill_cache_id_seq")
    sync(machine, database_url)  # pages are confirmed from now on
    before, log = watcher.written(), watcher.log_position()
    assert sync(machine, database_url)["unchanged"] == 60
    updated = {name: number - before[name] for name, number in watcher.written().items() if number > before[name]}
    updated.pop("request_budget", None)  # a row for each second in which something was requested
    assert sum(updated.values()) <= _PAGES + 20, updated
    assert watcher.log_position() - log <= _MEGABYTE // 2
    # An upsert would take a number for each row that is there already.
    machine.sandbox.patch_skill(machine.sandbox.skill_ids()[0], {"description": "other"}, push=False)
    assert sync(machine, database_url)["updated"] == 1
    assert watcher.number("SELECT last_value FROM atom_sync.skill_cache_id_seq") == taken


def test_moving_on_the_expiry_writes_no_page_of_the_search_index(
    machine: Machine, database_url: str, watcher: Watcher
) -> None:
    sync(machine, database_url)
    tomorrow = datetime.now(UTC) + timedelta(hours=20)
    watcher.connection.execute("UPDATE http_validator SET checked_at = %s WHERE page IS NOT NULL", (tomorrow,))
    before = watcher.written("skill_text", "skill_cache")
    with engine_at(read_server_address(database_url)).open() as store:
        store.catalogue(history_versions=2).refresh_expiry(tomorrow)
    after = watcher.written("skill_text", "skill_cache")
    assert (after["skill_cache"] - before["skill_cache"], after["skill_text"] - before["skill_text"]) == (60, 0)


def test_messages_without_new_words_write_no_page_of_the_search_index(
    machine: Machine, database_url: str, watcher: Watcher
) -> None:
    sync(machine, database_url)
    hot = "SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE schemaname = 'atom_sync' AND relname = 'skill_text'"
    watcher.written()
    before = watcher.number(hot)
    skills = [machine.sandbox.skill(each) for each in machine.sandbox.skill_ids()]
    changed = [{**each, "version": each["version"].replace(".", "-")} for each in skills]
    messages = [parse_frame(json.dumps({"type": "skill_update", "data": each})) for each in changed]
    with engine_at(read_server_address(database_url)).open() as store:
        follower = EventFollower(store.events(history_versions=2), strategy="remote_wins")
        follower.apply([each for each in messages if isinstance(each, Message)], datetime.now(UTC))
    watcher.written()
    assert watcher.number(hot) - before == 60, "rows are written without any index"
    assert watcher.number("SELECT count(*) FROM skill_text WHERE version LIKE '%-%'") == 60


def test_new_words_are_merged_into_the_index_a_hundred_skills_at_a_time(
    machine: Machine, database_url: str, watcher: Watcher
) -> None:
    merging = "SELECT gin_clean_pending_list('idx_skill_text_words')"
    sync(machine, database_url)
    assert watcher.number(merging) == 0, "a first run leaves nothing to merge"
    ids = machine.sandbox.skill_ids()
    assert len(ids) == 60
    known = "UPDATE fact SET value = value"
    other = known.replace("= value", "= 'some'")  # of another program
    steps = ((10, known, False), (60, known, False), (60, known, True), (10, known, False), (9, other, True))
    for number, before, is_merged in steps:
        watcher.connection.execute(f"{before} WHERE name = 'words_merged'".encode())
        for skill_id in ids[:number]:
            machine.sandbox.patch_skill(skill_id, {"description": f"word{number}{is_merged}"}, push=False)
        assert sync(machine, database_url)["updated"] == number
        with engine_at(read_server_address(database_url)).open(read_only=True) as store:
            found, _ = store.reading(datetime.now(UTC)).search(f"word{number}{is_merged}", SkillFilter(), limit=100)
        assert len(found) == number, "those that wait are found, too"
        assert (watcher.number(merging) == 0) is is_merged, number


@pytest.mark.parametrize("way", ["copy", "restore"])
def test_the_run_after_a_copy_or_a_restore_merges_all_words(
    machine: Machine, database_url: str, watcher: Watcher, way: str
) -> None:
    sync(machine, database_url)
    other = f"{database_url}&schema=other" if way == "copy" else database_url
    search_path = "other" if way == "copy" else "atom_sync"
    commands: dict[str, list[tuple[str, ...]]] = {
        "copy": [("db", "copy", "--to", other)],
        "restore": [("db", "backup", "a.dump"), ("db", "restore", "a.dump", "--yes")],
    }
    for arguments in commands[way]:
        path = f"{binaries()}:{os.environ['PATH']}"
        result = machine.command(*arguments, ATOM_SAAS_DATABASE_URL=database_url, PATH=path)
        assert result.returncode == 0, result.stderr
    assert sync(machine, other)["unchanged"] == 60
    watcher.connection.execute(f"SET search_path = {search_path}".encode())
    assert watcher.number("SELECT count(*) FROM skill_text") == 60
    assert watcher.number("SELECT gin_clean_pending_list('idx_skill_text_words')") == 0


def test_listeners_get_a_hint_with_the_run_and_the_number_of_changes(
    machine: Machine, database_url: str, watcher: Watcher
) -> None:
    watcher.connection.execute("LISTEN atom_sync")
    sync(machine, database_url)
    hints = [json.loads(each.payload) for each in watcher.connection.notifies(timeout=60, stop_after=1)]
    hints += [json.loads(each.payload) for each in watcher.connection.notifies(timeout=0)]
    run = watcher.number("SELECT max(id) FROM sync_run WHERE kind = 'skills'")
    assert {(each["schema"], each["run"]) for each in hints} == {("atom_sync", run)}
    assert sum(each["changes"] for each in hints) == 60
    sync(machine, database_url)
    assert not list(watcher.connection.notifies(timeout=0)), "nothing has changed"


def test_at_most_ten_notifications_a_second(db: Database, watcher: Watcher) -> None:
    moments = iter([0.0, 0.05, 0.11, 0.12, 0.13])
    notifications = Notifications(lambda: next(moments))
    watcher.connection.execute("LISTEN atom_sync")
    for changes in (1, 2, 3, 4):
        with db.transaction() as connection:
            notifications.send(connection, changes, in_run=False)
    with db.transaction() as connection:
        notifications.send(connection, 0, in_run=False, last=True)
    given = [json.loads(each.payload) for each in watcher.connection.notifies(timeout=60, stop_after=3)]
    assert [each["changes"] for each in given] == [1, 5, 4]
    assert {each["run"] for each in given} == {None}
