"""Killing real commands, and the sessions that they have on a server, and looking at what they leave behind."""

from __future__ import annotations

import functools
import json
import random
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from conftest import Machine, wait_until
from crash_support import LIMITS, PAGE
from database_rules import check_ratings, check_rules, counters
from loaded_command import Forked, start_command
from machine_databases import FileDatabase
from server_support import opened

from atom_saas_sync.core.server_address import read_server_address
from atom_saas_sync.errors import AtomSyncError
from atom_saas_sync.store import open_store
from atom_saas_sync.store.postgresql.lock import holder
from atom_saas_sync.usecases.copy_database import copy_database

TRAP = Path(__file__).with_name("server_trap.py").read_text("utf-8")
LOCK_SECONDS = 30
"""What a host that is gone held is free within so many seconds."""
_KINDS = ("skills", "ratings", "watch")
_SURVIVED = {0, 1, 74, 75}  # it connected again, or says that the connection broke, or that it was overtaken
_BURSTS = 12


@dataclass(frozen=True)
class Scenario:
    """A command, and what the marketplace and others do before it."""

    arguments: tuple[str, ...]
    meanwhile: Callable[[ServerTrials], None] = lambda _trials: None
    while_it_runs: Callable[[Machine, Forked], None] = lambda _machine, _process: None
    points: int = 0
    """How many points it may be killed at, if it never ends on its own."""
    needs_rows: bool = True
    variables: dict[str, str] = field(default_factory=dict)


class ServerTrials:
    """Kills on one database, each after the one before; nobody tidies up in between."""

    def __init__(self, machine: Machine, url: str, *, seed: int) -> None:
        self.machine = machine
        self.url = url
        self.chance = random.Random(seed)
        self.killed: Counter[str] = Counter()
        self.late = 0
        self._lengths: dict[str, int] = {}
        self._before: Counter[str] = Counter()
        self._trace = machine.directory / "trace"

    def kill(self, name: str, how: str, point: int = 0) -> None:
        """Kill a command at a point, or at one by chance, and check what is left."""
        scenario = SCENARIOS[name]
        point = point or self.chance.randint(1, scenario.points or self._length(name))
        scenario.meanwhile(self)
        process = self._start(scenario, point, how)
        scenario.while_it_runs(self.machine, process)
        code = process.wait(timeout=120)
        text = (self.machine.directory / "output").read_text("utf-8")
        assert "Traceback" not in text, text
        if len(self._reached()) >= point:
            assert code == -signal.SIGKILL if how == "client" else code in _SURVIVED, (name, how, point, code, text)
            self.killed[f"{name}, {how}"] += 1
        else:
            assert code in {0, int(name == "ratings")}, (name, point, code, text)
            self.late += 1
        # A server that restarts may lose what was committed asynchronously within the last second.
        self.check(f"{name}, {how} killed at {point}", counts=how != "backend")

    def check(self, where: str, *, counts: bool = True) -> None:
        """Check all rules of the database, and that no lock outlives its process."""
        wait_until(self._is_up, timeout=LOCK_SECONDS)
        with opened(self.url) as database:
            wait_until(lambda: not any(holder(database, kind) for kind in _KINDS), timeout=LOCK_SECONDS)
        findings, now = broken_rules(self.url, self._before if counts else Counter())
        findings += check_ratings(self.machine.sandbox)
        assert not findings, (findings, where)
        self._before = now

    def complete(self) -> None:
        """Run the work once more; then everything is what the marketplace has, but for local edits."""
        self.run("sync", "ratings", may_be_partial=True)  # a skill that was rated may have been deleted since
        self.run("sync", "skills", "--strategy", "remote_wins")
        self.run("conflicts", "resolve", "--all", "--strategy", "remote_wins")
        rows = self.sql(
            "SELECT skill_id, coalesce(b.data, c.skill_data) FROM skill_base AS b "
            "LEFT JOIN skill_cache AS c USING (skill_id) WHERE b.deleted_at IS NULL"
        )
        assert {skill_id: json.loads(str(text)) for skill_id, text in rows} == self.machine.listed()
        self.check("completed")

    def run(self, *arguments: str, may_be_partial: bool = False) -> None:
        """Run a command that must succeed."""
        ended = self.machine.command(*arguments, ATOM_SAAS_DATABASE_URL=self.url, **LIMITS, **PAGE)
        assert ended.returncode in {0, int(may_be_partial)}, ended.stdout + ended.stderr

    def sql(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """Do what another program does, with plain SQL."""
        schema = read_server_address(self.url).schema
        with psycopg.connect(self.url.partition("&schema=")[0], autocommit=True) as connection:
            connection.execute(f"SET search_path = {schema}".encode())
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def _length(self, name: str) -> int:
        """Return how many points the command passes when nobody kills it."""
        if name not in self._lengths:
            SCENARIOS[name].meanwhile(self)
            process = self._start(SCENARIOS[name], 0, "client")
            assert process.wait(timeout=120) in {0, 1}, (self.machine.directory / "output").read_text("utf-8")
            self._lengths[name] = len(self._reached())
        return self._lengths[name]

    def _start(self, scenario: Scenario, point: int, how: str) -> Forked:
        self._trace.unlink(missing_ok=True)
        with (self.machine.directory / "output").open("wb") as output:
            return start_command(
                *scenario.arguments,
                environment=self.machine.environment(
                    ATOM_SAAS_DATABASE_URL=self.url,
                    CRASH_TRACE=str(self._trace),
                    CRASH_AT=str(point),
                    CRASH_HOW=how,
                    **LIMITS,
                    **scenario.variables,
                ),
                directory=self.machine.directory,
                stdout=output.fileno(),
                stderr=output.fileno(),
                first=TRAP,
            )

    def _reached(self) -> list[str]:
        return self._trace.read_text("utf-8").splitlines() if self._trace.exists() else []

    def _is_up(self) -> bool:
        with suppress(AtomSyncError):
            opened(self.url, read_only=True).close()
            return True
        return False


def broken_rules(url: str, before: Counter[str]) -> tuple[list[str], Counter[str]]:
    """Return what is wrong with a database on a server, and its counters.

    The rules are those of a file: everything is copied into one, which also compares all digests.
    """
    with tempfile.TemporaryDirectory() as directory, open_store(read_server_address(url), migrate=False) as store:
        wrong = [f"{each.check}: {each.message}" for each in store.maintenance().check(quick=False, signer=None)]
        path = Path(directory) / "copy.db"
        path.touch(mode=0o600)
        path.write_bytes(_empty_file())
        with open_store(path) as copy:
            copy_database(store, copy)
        file = FileDatabase(path)
        return wrong + check_rules(file, before=before), counters(file)


@functools.cache
def _empty_file() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "empty.db"
        open_store(path).close()
        return path.read_bytes()


# What happens before


def change_both(trials: ServerTrials) -> None:
    """Change skills at the marketplace, and edit some of the same ones here."""
    change_there(trials)
    sandbox = trials.machine.sandbox
    sandbox.delete_skill(trials.chance.choice(sandbox.skill_ids()), push=False)
    sandbox.put_skill({"skill_id": f"new-{trials.chance.random()}", "name": "New"}, push=False)
    for skill_id in trials.chance.sample(sandbox.skill_ids(), 9):
        mine = json.dumps(f"mine {trials.chance.random()}")
        trials.sql(
            "UPDATE skill_cache SET skill_data = "
            "jsonb_set(skill_data::jsonb, '{description}', %s::jsonb)::text WHERE skill_id = %s",
            mine,
            skill_id,
        )


def change_there(trials: ServerTrials) -> None:
    """Change skills at the marketplace."""
    for skill_id in trials.chance.sample(trials.machine.sandbox.skill_ids(), 20):
        text = f"changed {trials.chance.random()}"
        trials.machine.sandbox.patch_skill(skill_id, {"description": text}, push=False)


def rate(trials: ServerTrials) -> None:
    """Write ratings as another program does."""
    skills = trials.chance.sample(trials.machine.sandbox.skill_ids(), 9)
    trials.sql(
        "INSERT INTO skill_ratings (skill_id, user_id, rating) SELECT unnest(%s::text[]), %s, 4",
        skills,
        f"user {trials.chance.random()}",
    )


def send_messages(machine: Machine, process: Forked) -> None:
    """Send changes until the process is dead, or stop it: it reconnects after its session was ended."""
    sandbox = machine.sandbox
    wait_until(lambda: sandbox.counters()["ws_open"] == 1 or process.poll() is not None, timeout=60)
    for _ in range(_BURSTS):
        if process.poll() is not None:
            return
        with suppress(OSError, TimeoutError, CancelledError):
            sandbox.flood(25, timeout=5)
    process.send_signal(signal.SIGTERM)


SCENARIOS = {
    "sync": Scenario(("sync", "skills", "--strategy", "manual"), change_both, variables=PAGE),
    "ratings": Scenario(("sync", "ratings"), rate),
    "watch": Scenario(("watch",), change_there, send_messages, points=300),
    "resolve": Scenario(("conflicts", "resolve", "--all", "--strategy", "merge"), change_both),
    "purge": Scenario(("cache", "purge", "--all")),
}
