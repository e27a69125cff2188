"""Requests that come at the same time share a reading of the database."""

from __future__ import annotations

import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest
from conftest import Machine, wait_until
from web_support import served

from atom_saas_sync.web.sharing import Shared

_PATHS = ("/health/ready", "/health/sync", "/metrics/sync", "/")


class Readings:
    """A function that takes as long as the test wants, and what it has read."""

    def __init__(self) -> None:
        self.world = 0
        self.begun = 0
        self.may_end = threading.Event()

    def read(self) -> int:
        found = self.world
        self.begun += 1
        assert self.may_end.wait(60)
        if found < 0:
            raise ValueError("negative")
        return found


def waiting() -> int:
    """Return how many threads have asked for a reading and wait."""
    return sum(
        frame.f_code is threading.Condition.wait.__code__
        and any(each.f_code is Shared.get.__code__ for each, _ in traceback.walk_stack(frame))
        for frame in sys._current_frames().values()  # noqa: SLF001 - shows who waits without asking them
    )


def test_who_comes_later_gets_a_newer_reading_and_no_more_than_two_are_made_at_once() -> None:
    readings = Readings()
    shared = Shared(readings.read, at_once=2)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(shared.get)
        wait_until(lambda: readings.begun == 1)
        readings.world = 1
        second = threads.submit(shared.get)
        wait_until(lambda: readings.begun == 2)
        readings.world = 2
        others = [threads.submit(shared.get) for _ in range(4)]
        wait_until(lambda: waiting() == 2 + 4)
        assert readings.begun == 2
        readings.may_end.set()
        assert (first.result(60), second.result(60), [each.result(60) for each in others]) == (0, 1, [2] * 4)
    assert readings.begun == 3


def test_a_failed_reading_fails_for_each_who_shares_it_and_not_for_the_next() -> None:
    readings = Readings()
    readings.world = -1
    readings.may_end.set()
    shared = Shared(readings.read, at_once=1)
    with ThreadPoolExecutor() as threads:
        for each in [threads.submit(shared.get) for _ in range(4)]:
            with pytest.raises(ValueError, match="negative"):
                each.result(60)
    readings.world = 3
    assert shared.get() == 3


def test_many_probes_at_once_open_two_connections_to_a_server(machine: Machine, postgresql_url: str) -> None:
    variables = {"ATOM_SAAS_DATABASE_URL": postgresql_url, "ATOM_SYNC_HOST": "probed"}
    schema = postgresql_url.partition("schema=")[2]
    assert machine.command("sync", "skills", **variables).returncode == 0
    with psycopg.connect(postgresql_url.partition("&schema=")[0], autocommit=True) as watcher:

        def sessions() -> int:
            rows = watcher.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'atom-sync/serve-health'"
            )
            return int(rows.fetchall()[0][0])

        def probe(number: int) -> int:
            return httpx.get(f"{base}{_PATHS[number % len(_PATHS)]}", timeout=60).status_code

        with served(machine, **variables) as server, ThreadPoolExecutor(24) as threads:
            base = str(server.client.base_url).rstrip("/")
            with psycopg.connect(postgresql_url.partition("&schema=")[0]) as other:
                other.execute(f"LOCK TABLE {schema}.counter IN ACCESS EXCLUSIVE MODE".encode())
                probes = [threads.submit(probe, number) for number in range(24)]
                wait_until(lambda: sessions() >= 2)
            most = 0
            while not all(each.done() for each in probes):
                most = max(most, sessions())
            assert [each.result() for each in probes] == [200] * 24
            assert most <= 2
