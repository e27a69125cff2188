"""The store as its contract sees it (usecases/ports/): its rooms by name, and another program that holds the lock.

The one engine is SQLite. The contract's tests use nothing but what is declared here, so that another engine needs only
its own `Rooms`.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from atom_saas_sync.core.canonical import version_from_fields
from atom_saas_sync.core.plan import plan_listed
from atom_saas_sync.core.plan.listed import kept_base
from atom_saas_sync.core.plan.sides import Sides
from atom_saas_sync.core.plan.steps import life_here, served
from atom_saas_sync.model import Action, Outcome, SkillState, SkillVersion, Status, Strategy
from atom_saas_sync.store.sqlite.catalogue import Catalogue
from atom_saas_sync.store.sqlite.conflicts import ConflictLog
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.history import History
from atom_saas_sync.store.sqlite.lifetime import Lifetime
from atom_saas_sync.store.sqlite.lock import holder, run_lock
from atom_saas_sync.store.sqlite.ratings import Ratings
from atom_saas_sync.store.sqlite.reading import Reading
from atom_saas_sync.store.sqlite.realtime import RealtimeStore, Schedule
from atom_saas_sync.store.sqlite.rebind import rebind
from atom_saas_sync.store.sqlite.requests import RequestBudget
from atom_saas_sync.store.sqlite.run_log import RunHistory
from atom_saas_sync.store.sqlite.runs import Runs
from atom_saas_sync.store.sqlite.status import read_status
from atom_saas_sync.store.sqlite.upkeep import SQLiteUpkeep
from atom_saas_sync.store.sqlite.websocket_switch import WebSocketSwitch
from atom_saas_sync.usecases import ports

NOW = datetime(2026, 2, 19, 12, 0, tzinfo=UTC)
HERE = "https://market.example"
LIST = "list?page="
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)

_WAIT_SECONDS = 0.02
_HOLDER = """
import sqlite3, sys
for path in sys.stdin:
    connection = sqlite3.connect(path.rstrip("\\n"), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    print("held", flush=True)
    sys.stdin.readline()
    connection.execute("ROLLBACK")
    connection.close()
    print("free", flush=True)
"""


class LockHolder:
    """Another process, which takes a database's write lock and writes nothing."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @contextmanager
    def holding(self, path: Path) -> Iterator[None]:
        self._ask(str(path), "held")
        try:
            yield
        finally:
            self._ask("", "free")

    def end(self) -> None:
        self._process.communicate(timeout=60)

    def _ask(self, line: str, answer: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == f"{answer}\n"


class Rooms:
    """The rooms of one SQLite database, which wait for the lock only a moment."""

    def __init__(self, path: Path, holder_of_lock: LockHolder) -> None:
        self._path = path
        self._lock_holder = holder_of_lock
        self._database = database = Database.open(path, busy_timeout_seconds=_WAIT_SECONDS)
        self._log_database = Database.open(path, busy_timeout_seconds=_WAIT_SECONDS)
        self.catalogue: ports.StoredCatalogue = Catalogue(database, history_versions=2)
        self.edits: ports.EditableCatalogue = Catalogue(database, history_versions=2)
        self.conflicts: ports.ListedConflicts = ConflictLog(database, history_versions=2)
        self.events: ports.StoredEvents = RealtimeStore(database, history_versions=2)
        self.state: ports.StateStore = RealtimeStore(database)
        self.switch: ports.StoredSwitch = WebSocketSwitch(database)
        self.upkeep: ports.StoreUpkeep = SQLiteUpkeep(self._log_database)
        self.jobs: ports.JobStore = Schedule(database)
        self.ratings: ports.StoredRatings = Ratings(database)
        self.own_ratings: ports.PersonsRatings = Ratings(database)
        self.lifetime: ports.StoredLifetime = Lifetime(database)
        self.figures: ports.CacheFigures = Lifetime(database)
        self.history: ports.StoredHistory = History(database)
        self.runs: ports.StoredRuns = Runs(database, marketplace=HERE)
        self.run_history: ports.StoredRunHistory = RunHistory(database)
        self.budget: ports.StoredBudget = self.new_budget()

    def close(self) -> None:
        self.budget.close()
        self._database.close()
        self._log_database.close()

    def new_budget(self, *, per_minute: int = 8, per_hour: int = 20) -> ports.StoredBudget:
        return RequestBudget(
            self._path,
            per_minute=per_minute,
            per_hour=per_hour,
            marketplace=HERE,
            busy_timeout_seconds=_WAIT_SECONDS,
        )

    def new_runs(self) -> ports.StoredRuns:
        return Runs(self._database, marketplace=HERE)

    def reading(self, now: datetime = NOW) -> ports.StoredReading:
        return Reading(self._database, now=now)

    def status(self, now: datetime = NOW) -> Status:
        return read_status(self._path, now=now, per_minute=8, per_hour=20)

    def rebind(self, marketplace: str, *, deletions: int) -> None:
        rebind(self._database, marketplace, deletions=deletions, actor="ada", now=NOW)

    def exclusive(self, kind: str) -> AbstractContextManager[None]:
        return run_lock(self._path, kind, command="a test", now=lambda: "", sleep=lambda _: None)

    def holder(self, kind: str) -> Mapping[str, Any] | None:
        return holder(self._path, kind)

    def locked(self) -> AbstractContextManager[None]:
        """Let another process hold the lock of all who write."""
        return self._lock_holder.holding(self._path)

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return all rows of all tables, whatever they mean."""
        with closing(sqlite3.connect(self._path)) as connection:
            connection.text_factory = bytes
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
            return {
                name.decode(): connection.execute(f'SELECT * FROM "{name.decode()}"').fetchall() for (name,) in names
            }

    # What tests begin with

    def show(
        self,
        *versions: SkillVersion,
        page: int = 1,
        etag: str | None = '"1"',
        strategy: Strategy = "manual",
        now: datetime = NOW,
    ) -> list[Action]:
        """Take a page of the list with these skills, as a run does; return what was planned."""
        with self.catalogue.batch() as batch:
            known = batch.known([each.skill_id for each in versions])
            actions = [plan_listed(known.get(each.skill_id), each, strategy, now) for each in versions]
            batch.apply(actions, now, page=page)
            ids = {each.skill_id for each in versions}
            batch.record_page(page, ids, list_key=LIST, etag=etag, total=len(ids), now=now)
            return actions

    def edit(self, *versions: SkillVersion, now: datetime = NOW) -> None:
        """Write these texts as a person does."""
        with self.edits.batch() as batch:
            known = batch.known([each.skill_id for each in versions])
            for each in versions:
                sides = Sides(known.get(each.skill_id) or SkillState(each.skill_id))
                write = served(sides, each.text, each.fields, life=life_here(sides))
                effects = write, *kept_base(sides, each.text)
                batch.apply([Action(each.skill_id, Outcome.UPDATED, effects)], now, actor="ada")

    def carry_out(self, *actions: Action, now: datetime = NOW) -> None:
        """Carry out actions in one transaction."""
        with self.catalogue.batch() as batch:
            batch.apply(actions, now)

    def shown(self, names: Iterable[str] = "abcdefgh") -> dict[str, str]:
        """Return name and source of the skills that readers see."""
        found = (self.reading().skill(name) for name in names)
        return {each.skill_id: each.source for each in found if each is not None}


def skill(skill_id: str, **fields: Any) -> SkillVersion:
    return version_from_fields(skill_id, {"skill_id": skill_id, "name": skill_id, "version": "1.0.0", **fields})


def copy_of(template: Path, directory: Path) -> Path:
    """Copy a database that nobody has open: to make one takes fifty times as long."""
    return Path(shutil.copy(template, directory / "atom.db"))
