"""A machine with atom-sync: a real database, real HTTP over loopback, and a simulated clock."""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from loaded_command import Forked, run_command, start_command
from machine_databases import ENGINES, FileDatabase, new_database, running_server
from postgres_support import url_of_new_schema
from quick_disk import quick_directory
from store_rooms import Rooms
from store_worlds import Databases, Files, Schemas

from atom_saas_sync.core.outgoing import user_hasher
from atom_saas_sync.logs import set_run_id
from atom_saas_sync.marketplace.client import MarketplaceClient
from atom_saas_sync.marketplace.dialects import DIALECTS
from atom_saas_sync.model import ConflictFilter, LoggedConflict, RatingReport, RunReport, SkillFilter, Status
from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.store import engine_at
from atom_saas_sync.times import format_time
from atom_saas_sync.usecases.gate.run import RunGate
from atom_saas_sync.usecases.ports import StoredBudget
from atom_saas_sync.usecases.ports.engine import Engine, Store
from atom_saas_sync.usecases.pull_catalogue import CataloguePull, PullOptions
from atom_saas_sync.usecases.sync_ratings import RatingOptions, RatingSync

# Commands set a larger one (cli/main.py); Python's own is 700.
_OBJECTS_BEFORE_COLLECTION = 10_000
_FIXTURES_OF_ALL = {"_restored_logging", "request"}

pytest_plugins = ("server_databases",)

Json = dict[str, Any]

# Properties must not depend on the machine's speed.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")


# A real command would wait up to a minute before its 101st request.
NO_LIMITS = {"ATOM_SAAS_RATE_LIMIT_PER_MINUTE": "100000", "ATOM_SAAS_RATE_LIMIT_PER_HOUR": "100000"}


class FakeClock:
    """A clock that only moves when told to, or by sleeping; it records the sleeps."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 2, 19, 12, 0, tzinfo=UTC)
        self.elapsed = 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.elapsed

    def sleep(self, seconds: float, over: threading.Event | None = None) -> None:  # noqa: ARG002 - it takes no time
        self.slept.append(seconds)
        self.move(seconds=seconds)

    def move(self, **duration: float) -> None:
        step = timedelta(**duration)
        self.moment += step
        self.elapsed += step.total_seconds()


_KEPT: dict[tuple[str, str], object] = {}


class Machine:
    """Runs atom-sync against a sandbox, in this process (with the simulated clock) or as the real command."""

    engine_name = "sqlite"  # pytest_configure sets it from `--engine`

    def __init__(self, sandbox: Sandbox, directory: Path) -> None:
        self.sandbox = sandbox
        self.directory = directory
        self.database = new_database(self.engine_name, directory)
        self.clock = FakeClock()
        self.umask = -1  # this process's value

    @property
    def database_path(self) -> Path:
        """Return the file of the database, for tests about files: they are marked `sqlite`."""
        assert isinstance(self.database, FileDatabase), "there is no file: use machine.store(), or mark the test sqlite"
        return self.database.path

    @property
    def engine(self) -> Engine:
        """Return the store's front door, before it is opened."""
        return engine_at(self.database.location)

    def store(self, **options: Any) -> Store:
        """Open the database, creating it if it does not exist. `options` are those of Engine.open."""
        self.database.prepare()
        return self.engine.open(**options)

    def budget(self, *, per_minute: int = 100_000, per_hour: int = 100_000, marketplace: str = "") -> StoredBudget:
        """Open the request budget, as each process does."""
        return self.engine.request_budget(per_minute=per_minute, per_hour=per_hour, marketplace=marketplace)

    def fill(self) -> None:
        """Set up the state after a first sync; the sandbox and the clock must be unused."""
        self.keep("first sync", self.pull)

    def keep(self, name: str, make: Callable[[], object]) -> None:
        """Create the database with `make`; later tests with this name get a copy."""
        kept = _KEPT.get((name, self.sandbox.url))
        if kept is None:
            make()
            _KEPT[name, self.sandbox.url] = self.database.save()
        else:
            self.database.restore(kept)

    def follow_clock(self) -> None:
        """Set the sandbox's clock to the simulated one."""
        self.sandbox.set_clock_offset((self.clock.now() - datetime.now(UTC)).total_seconds())

    @contextmanager
    def client(
        self,
        *,
        url: str | None = None,
        token: str | None = None,
        dialect: str = "v1",
        per_minute: int = 100_000,
        per_hour: int = 100_000,
        **options: Any,
    ) -> Iterator[tuple[MarketplaceClient, StoredBudget]]:
        """Open a client of the sandbox, or of `url`, and its budget; `options` are further ones of the client."""
        budget = self.budget(per_minute=per_minute, per_hour=per_hour)
        client = MarketplaceClient(
            base_url=url or self.sandbox.url,
            token=token or self.sandbox.token,
            instance_id="test",
            dialect=DIALECTS[dialect],
            clock=self.clock,
            budget=budget,
            random=lambda: 0.5,
            **{"timeout_seconds": 5, **options},
        )
        try:
            yield client, budget
        finally:
            client.close()
            budget.close()

    def pull(
        self,
        *,
        url: str | None = None,
        dialect: str = "v1",
        token: str | None = None,
        timeout_seconds: float = 5,
        per_minute: int = 100_000,
        per_hour: int = 100_000,
        deadline: float | None = None,
        started_by: str = "tester",
        check: Any = lambda: None,
        history_versions: int = 10,
        signer: Any = None,
        gate: Callable[[Store], RunGate] | None = None,
        connections: int = 1,
        **options: Any,
    ) -> RunReport:
        """Make one run in this process; `options` are the fields of PullOptions.

        Without a gate, everything is admitted.
        """
        options = {"strategy": "remote_wins", "page_size": 1000, **options}
        with (
            self.store() as store,
            self.client(
                url=url,
                token=token,
                dialect=dialect,
                per_minute=per_minute,
                per_hour=per_hour,
                timeout_seconds=timeout_seconds,
                deadline=deadline,
            ) as (client, _),
        ):
            return CataloguePull(
                marketplace=client,
                catalogue=store.catalogue(history_versions=history_versions, signer=signer),
                runs=store.runs(),
                clock=self.clock,
                options=PullOptions(**options),
                check=check,
                connections=connections,
                gate=None if gate is None else gate(store),
            ).run(started_by=started_by)

    def send_ratings(
        self,
        *,
        url: str | None = None,
        token: str | None = None,
        dialect: str = "v1",
        per_minute: int = 100_000,
        hashed: bool = False,
        workers: int = 10,
        **options: Any,
    ) -> RatingReport:
        """Make one run of the ratings in this process; `options` are the fields of RatingOptions."""
        token = token or self.sandbox.token
        with (
            self.store() as store,
            self.client(url=url, token=token, dialect=dialect, per_minute=per_minute) as (client, budget),
        ):
            return RatingSync(
                marketplace=client,
                ratings=store.ratings(),
                runs=store.runs(),
                budget=budget,
                clock=self.clock,
                options=RatingOptions(**options),
                check=lambda: None,
                sent_user=user_hasher(token) if hashed else str,
                workers=workers,
            ).run(started_by="tester")

    def environment(self, **variables: str) -> dict[str, str]:
        """Return a clean environment for the real command."""
        return {
            "PATH": ":".join(filter(None, (self.database.programs(), os.environ["PATH"]))),
            "HOME": str(self.directory),
            "ATOM_SAAS_API_URL": self.sandbox.url,
            "ATOM_SAAS_WS_URL": self.sandbox.ws_url,
            "ATOM_SAAS_API_TOKEN": self.sandbox.token,
            "ATOM_SAAS_DATABASE_URL": self.database.url,
            "PAGER": "cat",
            **NO_LIMITS,
            **variables,
        }

    def command(
        self, *arguments: str, stdin: str | None = None, first: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end; `first` is Python code to execute before, in its process."""
        return run_command(
            *arguments,
            environment=self.environment(**variables),
            directory=self.directory,
            stdin=stdin or "",
            umask=self.umask,
            first=first,
        )

    def python(self, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python code in a process of its own, with the environment of the command."""
        return run_command(
            environment=self.environment(**variables), directory=self.directory, umask=self.umask, code=code
        )

    def hurried(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command with a clock whose pauses take no time, so that retries are fast."""
        return run_command(
            *arguments, environment=self.environment(**variables), directory=self.directory, hurried=True
        )

    def peak_of_a_sync(self, **variables: str) -> tuple[subprocess.CompletedProcess[str], float]:
        """Run `sync skills --json`; return its result and its peak memory in MiB.

        The peak is measured in the child: the kernel's figure for a child begins with its parent's memory.
        """
        result = self.python(
            "import runpy, sys; sys.argv = ['atom-sync', 'sync', 'skills', '--json']\n"
            "try: runpy.run_module('atom_saas_sync', run_name='__main__')\n"
            "finally: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)",
            PYTHONUTF8="1",  # a real start: a fork begins with the memory of its parent
            **variables,
        )
        return result, int(result.stderr.split()[-1]) / 1024

    @contextmanager
    def started(self, *arguments: str, first: str = "", **variables: str) -> Iterator[Forked]:
        """Start the command, and end it after the block; `first` is Python code to execute before, in its process."""
        process = start_command(
            *arguments,
            environment=self.environment(**variables),
            directory=self.directory,
            umask=self.umask,
            first=first,
        )
        try:
            yield process
        finally:
            process.kill()
            print(process.communicate(timeout=60)[1])  # noqa: T201 - shown if the test fails

    def sql(self, statement: str, *values: Any, on_server: str | None = None) -> list[Any]:
        """Do what another program would do with the database, committed at once.

        It is SQL that both engines understand, or that of SQLite, and `on_server` that of PostgreSQL.
        """
        is_file = isinstance(self.database, FileDatabase)
        return self.database.sql(statement if is_file else on_server or statement, values)

    def unseen_sql(self, statement: str, *values: Any) -> None:
        """Do the same past our triggers: what a program may do that has all rights."""
        self.database.sql(statement, values, unseen=True)

    @contextmanager
    def running(self, kind: str) -> Iterator[None]:
        """Hold the lock of a run of this kind during the block."""
        with (
            self.store() as store,
            store.exclusive(kind, command=kind, now=lambda: format_time(self.clock.now()), sleep=self.clock.sleep),
        ):
            yield

    def found(self, text: str) -> list[str]:
        """Return the ids that a search finds."""
        with self.store() as store:
            return [each.skill_id for each in store.reading(self.clock.now()).search(text, SkillFilter())[0]]

    def status(self, now: datetime | None = None, *, per_minute: int = 100_000, per_hour: int = 100_000) -> Status:
        """Return the state that `status` shows."""
        return self.engine.status(
            now or self.clock.now(),
            per_minute=per_minute,
            per_hour=per_hour,
            admission="open",
            admission_scope="all",
        )

    def conflicts(self) -> list[LoggedConflict]:
        """Return the whole conflict log, oldest first."""
        with self.store(read_only=True) as store:
            log = store.conflicts(history_versions=10)
            ids = [each.id for done in (False, True) for each in log.list_conflicts(ConflictFilter(resolved=done))]
            return [found for each in sorted(ids) if (found := log.conflict(each)) is not None]

    def cached(self) -> dict[str, Json]:
        """Return all cached skills."""
        return {row[0]: json.loads(row[1]) for row in self.sql("SELECT skill_id, skill_data FROM skill_cache")}

    def edit(self, skill_id: str, **fields: Any) -> None:
        """Edit a cached skill as the Atom backend does."""
        data = json.loads(self.sql("SELECT skill_data FROM skill_cache WHERE skill_id = ?", skill_id)[0][0])
        self.sql("UPDATE skill_cache SET skill_data = ? WHERE skill_id = ?", json.dumps({**data, **fields}), skill_id)

    def listed(self) -> dict[str, Json]:
        """Return the marketplace's skills."""
        return {skill_id: self.sandbox.skill(skill_id) for skill_id in self.sandbox.skill_ids()}


def without_capabilities(*numbers: int) -> str:
    """Return code that drops these capabilities of root from the process that executes it."""
    return f"""
import ctypes
header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the same of the higher 32
libc = ctypes.CDLL(None)
assert libc.capget(header, data) == 0
for number in range(3):
    data[number] &= ~{sum(1 << number for number in numbers)}
assert libc.capset(header, data) == 0
"""


def on_a_terminal(
    machine: Machine, arguments: list[str], answers: list[tuple[str, str]], *, exit_code: int = 0, **variables: str
) -> str:
    """Run a command on a terminal, answer its questions (text shown, answer), and return all its output."""
    leader, follower = os.openpty()
    process = start_command(
        *arguments,
        environment=machine.environment(TERM="dumb", **variables),
        directory=machine.directory,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        new_session=True,  # password prompts use the session's terminal, if it has one
    )
    os.close(follower)
    left, said, end = list(answers), "", time.monotonic() + 60
    try:
        while time.monotonic() < end:
            if not select.select([leader], [], [], 1)[0]:
                continue
            try:
                read = os.read(leader, 65536)
            except OSError:  # the other side has closed
                break
            if not read:
                break
            said += read.decode(errors="replace")
            if left and left[0][0] in said:
                os.write(leader, f"{left.pop(0)[1]}\n".encode())
        assert process.wait(timeout=30) == exit_code, said
    finally:
        process.kill()
        process.wait(10)
        os.close(leader)
    assert left == []
    return said


def wait_until(condition: Any, timeout: float = 60.0) -> None:
    """Wait for an action of another process; fail the test if it never happens."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            pytest.fail("waited in vain")
        time.sleep(0.01)  # the pause of a bounded poll, not a synchronisation


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option to run all tests that use a database on the other engine."""
    parser.addoption("--engine", choices=ENGINES, default="sqlite", help="the engine of the machines' databases")


def pytest_configure(config: pytest.Config) -> None:
    """Set the engine before tests are collected, and the place of their directories."""
    Machine.engine_name = config.getoption("--engine")
    if place := quick_directory():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(place))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Iterator[None]:
    """Leave what is imported and collected, millions of objects that stay, to no garbage collection."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--engine postgresql`, select the tests that use a database, and say why some are left out."""
    if Machine.engine_name == "sqlite":
        longer = [each for each in items if each.get_closest_marker("postgresql")]
        config.hook.pytest_deselected(items=longer)
        items[:] = [each for each in items if not each.get_closest_marker("postgresql")]
        return
    left = [each for each in items if not _has_database(each)]
    config.hook.pytest_deselected(items=left)
    items[:] = [each for each in items if _has_database(each)]
    for each in items:
        for mark in each.iter_markers("sqlite"):
            each.add_marker(pytest.mark.skip(reason=f"SQLite alone: {mark.args[0]}"))


def _has_database(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or "store/sqlite" in item.nodeid:
        return False
    if "postgresql_server" in item.fixturenames:
        return True
    if "store/contract" in item.nodeid or "store/postgresql" in item.nodeid:
        return "sqlite" not in item.keywords
    return hasattr(item.module, "Machine") and bool(set(item.fixturenames) - _FIXTURES_OF_ALL)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report how many inputs the fuzzers have tried (`make fuzz`)."""
    inputs = sys.modules.get("inputs")
    if inputs is not None and inputs.FACTOR:
        terminalreporter.section("inputs tried")
        for name, number in sorted(inputs.tried.items()):
            terminalreporter.write_line(f"{number:>10,}  {name}")
        terminalreporter.write_line(f"{sum(inputs.tried.values()):>10,}  in all")


@pytest.fixture
def patient_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let suggestions take as long as they need: at a prompt they give up after 50 ms, which a busy machine exceeds."""
    places = "atom_saas_sync.store.sqlite.suggestions", "atom_saas_sync.store.postgresql.suggestions"
    monkeypatch.setattr(f"{places[0]}._SECONDS", 60)
    monkeypatch.setattr(f"{places[1]}._WAIT", "SET LOCAL statement_timeout = '60s'")
    monkeypatch.setattr(f"{places[1]}._CONNECT_SECONDS", "60")


@pytest.fixture(scope="session")
def _shared_sandbox() -> Iterator[Sandbox]:
    with Sandbox(skills=60, seed=3) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_shared_sandbox: Sandbox) -> Sandbox:
    """Return a sandbox with 60 skills in its initial state."""
    _shared_sandbox.reset()
    return _shared_sandbox


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Remove log handlers of commands that a test runs in this process: their stream is closed soon."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, threading.excepthook, sys.unraisablehook)
    yield
    root.handlers[:], root.level, sys.excepthook, threading.excepthook, sys.unraisablehook = before
    logging.captureWarnings(capture=False)
    set_run_id(None)


@pytest.fixture
def machine(sandbox: Sandbox, tmp_path: Path) -> Machine:
    """Return a machine with an empty disk and that sandbox."""
    machine = Machine(sandbox, tmp_path)
    machine.follow_clock()
    return machine


@pytest.fixture(scope="session")
def postgresql_server() -> str:
    """Return the URL of a PostgreSQL server for the tests of this process; without a server they fail."""
    return running_server()


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """Return the URL of an empty schema for this test."""
    return url_of_new_schema(postgresql_server)


@pytest.fixture(scope="session")
def _files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    files = Files(tmp_path_factory.mktemp("files"))
    yield files
    files.end()


@pytest.fixture(scope="session")
def _schemas(postgresql_server: str) -> Iterator[Databases]:
    schemas = Schemas(url_of_new_schema(postgresql_server))
    yield schemas
    schemas.end()


@pytest.fixture(params=["_files", "_schemas"], ids=["sqlite", "postgresql"])
def databases(request: pytest.FixtureRequest) -> Databases:
    """Return databases of one engine; a server is started when the first test needs it."""
    found: Databases = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def store(databases: Databases, tmp_path: Path) -> Iterator[Rooms]:
    """Return an empty store, with the verbs of its contract."""
    rooms = databases.new(tmp_path)
    yield rooms
    rooms.close()
