"""Kill real commands at chosen points and random times, and check the state that they leave."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from conftest import Machine, wait_until
from database_rules import check_ratings, check_rules, counters
from loaded_command import Forked, start_command
from machine_databases import FileDatabase
from watch_support import watching

from atom_saas_sync.sandbox import Sandbox

TRAP = Path(__file__).with_name("trap.py").read_text("utf-8")
PAGE = {"ATOM_SAAS_SYNC_BATCH_SIZE": "20"}
LIMITS = {"ATOM_SAAS_RATE_LIMIT_PER_MINUTE": "100000", "ATOM_SAAS_RATE_LIMIT_PER_HOUR": "100000"}
RATINGS = 30


@dataclass(frozen=True)
class Scenario:
    """A command, the state before it, and the required state after it was killed and run once more."""

    arguments: tuple[str, ...]
    finish: Callable[[Machine], None]
    prepare: Callable[[Machine], None] = lambda _machine: None
    """Creates the initial state, once; each trial gets a copy."""
    meanwhile: Callable[[Machine], None] = lambda _machine: None
    """What the marketplace and users do before the command, in each trial."""
    while_it_runs: Callable[[Machine, Forked], None] = lambda _machine, _process: None
    exit_code: int = 0
    """How it ends if it is not killed."""
    variables: dict[str, str] = field(default_factory=dict)


class Trials:
    """The trials of one scenario."""

    def __init__(self, scenario: Scenario, sandbox: Sandbox, directory: Path) -> None:
        self._scenario = scenario
        self._sandbox = sandbox
        self._directory = directory
        self._number = 0
        self.killed = 0
        self.late = 0
        self.seconds = 1.0  # a run that is not killed works
        self.length = 0  # the number of points of a run that is not killed; 0: it has no end
        self.points: Counter[str] = Counter()
        self._template = Machine(sandbox, directory / "template")
        self._template.directory.mkdir()
        sandbox.reset()
        scenario.prepare(self._template)

    def pass_points(self) -> list[str]:
        """Return the points that a run passes if it is not killed."""
        machine = self._new_machine()
        process = self._start(machine, 0)
        began = _first_point(machine, process)
        self._scenario.while_it_runs(machine, process)
        assert process.wait(timeout=60) == self._scenario.exit_code, "the scenario itself must work"
        points = _reached(machine)
        self.length = len(points)
        # Some commands end before their first point is seen.
        self.seconds = max(0.003, (machine.directory / "trace").stat().st_mtime - began)
        return points

    def kill_at(self, *points: int) -> None:
        """Kill runs on one database at these points, one after the other; check the state each time.

        One more run then completes the work.
        """
        machine = self._new_machine()
        for point in points:
            before = counters(machine.database)
            process = self._start(machine, point)
            self._scenario.while_it_runs(machine, process)
            process.wait(timeout=60)
            if process.returncode != -signal.SIGKILL:
                assert process.returncode == self._scenario.exit_code
                self.late += 1
            else:
                self._look(machine, before, _reached(machine)[-1])
        self._complete(machine)

    def kill_after(self, seconds: float) -> None:
        """Kill a run this long after its first write; it counts if it had not ended."""
        machine = self._new_machine()
        before = counters(machine.database)
        process = self._start(machine, 0)
        feeder = threading.Thread(target=self._scenario.while_it_runs, args=(machine, process))
        feeder.start()
        _first_point(machine, process)
        time.sleep(seconds)  # the time of the kill, not a synchronisation
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        feeder.join()
        if process.returncode != -signal.SIGKILL or self._was_done(machine):
            self.late += 1
        else:
            self._look(machine, before, "at random")
        self._complete(machine)

    def _was_done(self, machine: Machine) -> bool:
        """Tell whether the process had passed its last point, so that only its exit was left."""
        return len(_reached(machine)) >= self.length > 0

    def _new_machine(self) -> Machine:
        self._number += 1
        self._sandbox.reset()
        directory = self._directory / f"trial-{self._number}"
        shutil.copytree(self._template.directory, directory)
        machine = Machine(self._sandbox, directory)
        self._scenario.meanwhile(machine)
        return machine

    def _start(self, machine: Machine, point: int) -> Forked:
        (machine.directory / "trace").unlink(missing_ok=True)
        with (machine.directory / "output").open("wb") as output:
            return start_command(
                *self._scenario.arguments,
                environment=machine.environment(
                    CRASH_TRACE=str(machine.directory / "trace"),
                    CRASH_AT=str(point),
                    **LIMITS,
                    **self._scenario.variables,
                ),
                directory=machine.directory,
                stdout=output.fileno(),
                stderr=output.fileno(),
                first=TRAP,
            )

    def _look(self, machine: Machine, before: Counter[str], point: str) -> None:
        _must_be_right(machine, before, f"{' '.join(self._scenario.arguments)}, killed {point}")
        self.points[point] += 1
        self.killed += 1

    def _complete(self, machine: Machine) -> None:
        before = counters(machine.database)
        self._scenario.finish(machine)
        _must_be_right(machine, before, f"{' '.join(self._scenario.arguments)}, run once more")
        shutil.rmtree(machine.directory)


def kill_at_random(trials: Trials, number: int, seed: int) -> None:
    """Kill runs at this many random times."""
    chance = random.Random(seed)
    for _ in range(number):
        trials.kill_after(chance.random() * trials.seconds)


def _first_point(machine: Machine, process: Forked) -> float:
    """Wait until the process has begun to write, and return the time."""
    trace, end = machine.directory / "trace", time.monotonic() + 30
    while not (trace.exists() and trace.stat().st_size) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.0005)  # the pause of a bounded poll; some commands work for a few milliseconds
    return time.time()


def _must_be_right(machine: Machine, before: Counter[str], where: str) -> None:
    findings = check_rules(machine.database, before=before) + check_ratings(machine.sandbox)
    assert not findings, (findings, where)


def _reached(machine: Machine) -> list[str]:
    trace = machine.directory / "trace"
    return trace.read_text(encoding="utf-8").splitlines() if trace.exists() else []


# Initial states


def synced(machine: Machine) -> None:
    """Fetch the catalogue."""
    run(machine, "sync", "skills", **PAGE)


def settled(machine: Machine) -> None:
    """Fetch the catalogue, and checkpoint it into the database file."""
    synced(machine)
    machine.sql("PRAGMA wal_checkpoint(TRUNCATE)")


def rated(machine: Machine) -> None:
    """Add ratings to send: most are new, some are for unknown skills, some exist at the marketplace."""
    run(machine, "db", "upgrade")
    with closing(sqlite3.connect(machine.database_path)) as connection, connection:
        connection.executemany(
            "INSERT INTO skill_rating (skill_id, user_id, rating) VALUES (?, ?, 4)",
            [(machine.sandbox.skill_ids()[each], f"user{each}") for each in range(RATINGS)],
        )
        connection.execute("INSERT INTO skill_rating (skill_id, user_id, rating) VALUES ('nothing', 'user', 4)")


def with_open_conflicts(machine: Machine) -> None:
    """Fetch the catalogue, and create open conflicts."""
    settled(machine)
    edit_and_change(machine)
    machine.command("sync", "skills", "--strategy", "manual", **PAGE, **LIMITS)
    assert machine.sql("SELECT count(*) FROM conflict_log WHERE resolved = FALSE") == [(CONFLICTS,)]
    machine.sql("PRAGMA wal_checkpoint(TRUNCATE)")


def with_some_migrations(machine: Machine) -> None:
    """Create a database of an older version, with skills."""
    settled(machine)
    run(machine, "db", "downgrade", "0001_catalogue", "--yes")
    for copy in machine.directory.glob("*.bak"):
        copy.unlink()


def with_old_copies(machine: Machine) -> None:
    """Create yesterday's backup and metrics."""
    settled(machine)
    run(machine, "db", "backup", "copy.db")
    (machine.directory / "atom.prom").write_text(OLD_METRICS, encoding="utf-8")
    machine.sql("UPDATE sync_state SET user_id = 'of today'")


OLD_METRICS = "# of yesterday\n"
CONFLICTS = 4

# Changes before the command


def change(machine: Machine) -> None:
    """Change, add and delete skills at the marketplace."""
    sandbox = machine.sandbox
    ids = sandbox.skill_ids()
    for skill_id in ids[::6]:
        sandbox.patch_skill(skill_id, {"description": f"changed {skill_id}"}, push=False)
    for skill_id in ids[1:20:6]:
        sandbox.delete_skill(skill_id, push=False)
    for number in range(3):
        sandbox.put_skill({"skill_id": f"new-{number}", "name": f"New {number}"}, push=False)
    sandbox.patch_skill(ids[2], {"code": "print('republished')"}, push=False)


def edit_and_change(machine: Machine) -> None:
    """Also change the same skills on both sides."""
    edited = machine.sandbox.skill_ids()[: 6 * CONFLICTS : 6]
    for skill_id in edited:
        machine.edit(skill_id, description="mine", tags=["mine"])
    change(machine)


def flood(machine: Machine, process: Forked) -> None:
    """Send changes until the process is dead."""
    sandbox = machine.sandbox
    wait_until(lambda: sandbox.counters()["ws_open"] == 1 or process.poll() is not None, timeout=30)
    for _ in range(200):
        if process.poll() is not None:
            break
        with suppress(OSError, TimeoutError, CancelledError):
            sandbox.flood(100, timeout=5)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)


# One more run


def run(machine: Machine, *arguments: str, **variables: str) -> None:
    """Run a command that must succeed."""
    ended = machine.command(*arguments, **LIMITS, **variables)
    assert ended.returncode == 0, ended.stderr


def sync_once_more(machine: Machine) -> None:
    """The next sync equals the marketplace."""
    run(machine, "sync", "skills", **PAGE)
    assert_equal(machine)


def first_sync_once_more(machine: Machine) -> None:
    """Like `equal`, and each skill was counted once."""
    sync_once_more(machine)
    assert items(machine) == {"added": 60}


def items(machine: Machine) -> dict[str, int]:
    """Return how many skills were counted as added, updated and deleted."""
    rows = machine.sql(
        "SELECT labels ->> 'action', CAST(value AS INTEGER) FROM counter "
        "WHERE name = 'atom_saas_sync_items_total' AND labels ->> 'type' = 'skill'"
    )
    return {action: number for action, number in rows if action in {"added", "updated", "deleted"}}


def assert_equal(machine: Machine) -> None:
    """The cache has exactly the skills and categories that the marketplace lists."""
    assert machine.cached() == machine.listed()
    listed = {each["name"] for each in machine.sandbox.state.category_list()}
    assert {row[0] for row in machine.sql("SELECT category_name FROM category_cache")} == listed


def sync_conflicts_once_more(machine: Machine) -> None:
    """Also, each conflict was logged and counted once."""
    sync_once_more(machine)
    assert machine.sql("SELECT count(*), count(DISTINCT skill_id), sum(resolved) FROM conflict_log") == [
        (CONFLICTS, CONFLICTS, CONFLICTS)
    ]
    assert machine.sql("SELECT sum(value) FROM counter WHERE name = 'atom_saas_conflicts_detected_total'") == [
        (CONFLICTS,)
    ]
    assert machine.sql("SELECT sum(value) FROM counter WHERE name = 'republished'") == [(1,)]
    assert items(machine) == {"added": 60 + 3, "updated": 10 + 1, "deleted": 4}


def send_once_more(machine: Machine) -> None:
    """The next upload sends the remaining ratings."""
    ended = machine.command("sync", "ratings", "--json", **LIMITS)
    assert json.loads(ended.stdout)["pending"] == 0, ended.stderr
    assert len(machine.sandbox.ratings()) == RATINGS
    assert machine.sql("SELECT count(*) FROM skill_rating WHERE synced_to_saas = TRUE") == [(RATINGS,)]
    assert machine.sql("SELECT error_type, retry_count >= max_retries FROM failed_rating_upload") == [("api_error", 1)]
    sent = Counter(
        (request.body["user_id"], request.headers["idempotency-key"])
        for request in machine.sandbox.requests("ratings")
        if request.body and request.method == "POST"
    )
    assert len(sent) == RATINGS + 1, "one key for each rating, in all runs"


def watch_once_more(machine: Machine) -> None:
    """The next start of the service catches up."""
    with watching(machine, **LIMITS):
        wait_until(lambda: machine.cached() == machine.listed())


def purge_once_more(machine: Machine) -> None:
    """Everything was removed or nothing; the next purge removes the rest, and a sync restores it."""
    left = len(machine.cached())
    assert left in (0, len(machine.listed())), left
    run(machine, "cache", "purge", "--all")
    assert machine.cached() == {}
    sync_once_more(machine)


def resolve_once_more(machine: Machine) -> None:
    """All conflicts were resolved or none."""
    waiting = machine.sql("SELECT count(*) FROM conflict_log WHERE resolved = FALSE")[0][0]
    assert waiting in (0, CONFLICTS)
    run(machine, "conflicts", "resolve", "--all", "--strategy", "merge")
    assert machine.sql("SELECT count(*) FROM conflict_log WHERE resolved = TRUE") == [(CONFLICTS,)]
    settled_by_people = machine.sql("SELECT count(*) FROM audit_log WHERE action LIKE '%resolve%'")
    assert settled_by_people == [(CONFLICTS,)]


def upgrade_once_more(machine: Machine) -> None:
    """Copies made by the upgrade are complete; the next command upgrades, and a sync completes the cache."""
    for copy in machine.directory.glob("*.bak"):
        assert check_rules(FileDatabase(copy)) == []
    run(machine, "db", "upgrade")
    sync_once_more(machine)


def back_up_once_more(machine: Machine) -> None:
    """The backup is yesterday's or today's, and complete; the next one is today's."""
    copy = machine.directory / "copy.db"
    assert check_rules(FileDatabase(copy)) == []
    assert _owner(copy) in (None, "of today")
    run(machine, "db", "backup", "copy.db", "--force")
    assert check_rules(FileDatabase(copy)) == []
    assert _owner(copy) == "of today"


def restore_once_more(machine: Machine) -> None:
    """The database is today's or the backup, and complete; the next restore completes."""
    assert _owner(machine.database_path) in (None, "of today")
    for kept in machine.directory.glob("*.bak"):
        assert check_rules(FileDatabase(kept)) == []
    run(machine, "db", "restore", "copy.db", "--yes")
    assert _owner(machine.database_path) is None
    assert list(machine.directory.glob("atom.db.restoring*")) == []
    sync_once_more(machine)


def write_metrics_once_more(machine: Machine) -> None:
    """The file has the old text or the new one, never a part."""
    path = machine.directory / "atom.prom"
    text = path.read_text(encoding="utf-8")
    assert list(machine.directory.glob("*.prom")) == [path]
    run(machine, "metrics", "--textfile", "atom.prom")
    assert text == OLD_METRICS or _metrics(text) == _metrics(path.read_text(encoding="utf-8"))
    assert os.stat(path).st_mode & 0o777 == 0o644  # noqa: PTH116 - short


def _metrics(text: str) -> list[str]:
    return [line.split(" ")[0] for line in text.splitlines() if not line.startswith("#")]


def _owner(copy: Path) -> str | None:
    with closing(sqlite3.connect(copy)) as connection:
        owner: str | None = connection.execute("SELECT user_id FROM sync_state").fetchone()[0]
        return owner


SCENARIOS = {
    "first sync": Scenario(("sync", "skills"), first_sync_once_more, variables=PAGE),
    "sync of changes": Scenario(
        ("sync", "skills", "--textfile", "atom.prom"),
        sync_conflicts_once_more,
        prepare=settled,
        meanwhile=edit_and_change,
        variables=PAGE,
    ),
    "ratings": Scenario(("sync", "ratings"), send_once_more, prepare=rated, exit_code=1),
    "watch": Scenario(("watch",), watch_once_more, prepare=settled, meanwhile=change, while_it_runs=flood),
    "upgrade": Scenario(("db", "upgrade"), upgrade_once_more, prepare=with_some_migrations),
    "downgrade": Scenario(("db", "downgrade", "base", "--yes"), upgrade_once_more, prepare=settled),
    "backup": Scenario(("db", "backup", "copy.db", "--force"), back_up_once_more, prepare=with_old_copies),
    "restore": Scenario(("db", "restore", "copy.db", "--yes"), restore_once_more, prepare=with_old_copies),
    "textfile": Scenario(("metrics", "--textfile", "atom.prom"), write_metrics_once_more, prepare=with_old_copies),
    "purge": Scenario(("cache", "purge", "--all"), purge_once_more, prepare=settled),
    "resolve": Scenario(
        ("conflicts", "resolve", "--all", "--strategy", "merge"), resolve_once_more, prepare=with_open_conflicts
    ),
}
