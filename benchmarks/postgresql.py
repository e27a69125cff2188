"""What a database on a PostgreSQL server costs: `python benchmarks/postgresql.py [PART…] [--skills N] [--runs N]`.

    syncs      first sync, no change, 1% changed, against the floor (benchmarks/postgresql_floor.py) and SQLite
    expiry     moving on when skills expire, against the bare UPDATE
    messages   batches of 100 messages, against the bare statements in a pipeline
    search     the same searches on both engines
    starts     `status --json` against the least that can be imported, connected to and asked

The server is the one of the tests (ATOM_TEST_POSTGRESQL names another), without fsync. Costs are seconds of CPU of our
process and of the server together: they depend less on what else the machine does. What is compared takes turns;
each figure is a median.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from bench import catalogue, change_one_percent, environment_of

from atom_saas_sync.core.deletions import MaxDelete
from atom_saas_sync.core.incoming.messages import Message, parse_frame
from atom_saas_sync.core.location import Location
from atom_saas_sync.core.server_address import read_server_address
from atom_saas_sync.model import SkillFilter
from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.store import engine_at
from atom_saas_sync.store.packing import pack
from atom_saas_sync.store.postgresql.words import head, texts_of, words
from atom_saas_sync.usecases.follow_events import EventFollower

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
from postgres_support import binaries, server  # noqa: E402 - of the tests

_TICKS = os.sysconf("SC_CLK_TCK")
_BATCH = 100
_BATCHES = 10  # measured together: the server's time is counted in hundredths of a second
_FLOOR_OF_STATUS = (
    "import sys, typer, msgspec, psycopg\n"
    "with psycopg.connect(sys.argv[1]) as connection: connection.execute('SELECT count(*) FROM skill_cache').fetchone()"
)
SEARCHES = ("backup", "certificate renew", "the", "invoice pri", "github ap", "no such word at all")


class Server:
    """The server, and what it has cost."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._process = int(Path(f"{url.partition('host=')[2]}/data/postmaster.pid").read_text().split()[0])
        self._connection = psycopg.connect(url, autocommit=True)
        self._own = self._connection.info.backend_pid
        self._schemas = 0

    def cpu(self) -> float:
        """Return the seconds of CPU of all its processes, those that have ended included."""
        pids = [self._process]
        for path in Path(f"/proc/{self._process}/task").glob("*/children"):
            pids += map(int, path.read_text().split())
        return sum(_seconds(pid, ended=pid == self._process) for pid in pids if pid != self._own)

    def new_schema(self) -> str:
        """Return the URL of a schema in which nothing is yet; the one before is dropped."""
        if self._schemas:
            self.sql(f"DROP SCHEMA bench_{self._schemas} CASCADE")
        self._schemas += 1
        return f"{self.url}&schema=bench_{self._schemas}"

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement and return its rows."""
        cursor = self._connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []

    def wal(self) -> int:
        """Return how many bytes of log were written so far."""
        return int(self.sql("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")[0][0])

    def rows_updated(self) -> int:
        """Return how many rows were updated in our tables so far."""
        self.sql("SELECT pg_stat_force_next_flush()")
        return int(self.sql("SELECT sum(n_tup_upd) FROM pg_stat_user_tables")[0][0] or 0)


def _seconds(pid: int, *, ended: bool) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0  # it has ended meanwhile, and counts with the process that started it
    return sum(map(int, fields[11 : 15 if ended else 13])) / _TICKS


class Cost(NamedTuple):
    """Seconds of CPU, and of the clock."""

    client: float
    server: float
    wall: float

    @property
    def cpu(self) -> float:
        """Return the seconds of CPU of both sides."""
        return self.client + self.server


def process(command: list[str], environment: dict[str, str], of: Server | None = None) -> Cost:
    """Run a command to its end."""
    server_before, started = of.cpu() if of else 0.0, time.perf_counter()
    pid = os.posix_spawn(
        command[0], command, environment, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)]
    )
    _, status, used = os.wait4(pid, 0)
    if status:
        sys.exit(f"{command[:4]} ended with {os.waitstatus_to_exitcode(status)}")
    wall = time.perf_counter() - started
    return Cost(used.ru_utime + used.ru_stime, (of.cpu() if of else 0.0) - server_before, wall)


@contextmanager
def counted(server_: Server) -> Iterator[list[Cost]]:
    """Yield a list that has the cost of the block afterwards."""
    found: list[Cost] = []
    before, client, started = server_.cpu(), time.process_time(), time.perf_counter()
    yield found
    client, wall = time.process_time() - client, time.perf_counter() - started
    found.append(Cost(client, server_.cpu() - before, wall))


def median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))


def ratio(mine: list[Cost], theirs: list[Cost]) -> float:
    """Return the median of the ratios of what took turns."""
    return statistics.median(one.cpu / other.cpu for one, other in zip(mine, theirs, strict=True))


def sync(sandbox: Sandbox, database: str, of: Server | None = None) -> Cost:
    environment = environment_of(sandbox.url, sandbox.token, "") | {"ATOM_SAAS_DATABASE_URL": database}
    return process([sys.executable, "-m", "atom_saas_sync", "sync", "skills", "--json"], environment, of)


class Arguments(NamedTuple):
    """The requested measurements."""

    skills: int
    runs: int


def measure_syncs(server_: Server, arguments: Arguments) -> None:
    costs: dict[str, list[Cost]] = {name: [] for name in ("floor", "first", "again", "changed", "sqlite")}
    rows, wal, wal_of_changes = [], [], []
    with catalogue(arguments.skills) as sandbox:
        for run in range(arguments.runs):
            floor = [sys.executable, str(HERE / "postgresql_floor.py"), sandbox.url, sandbox.token, server_.url]
            costs["floor"].append(process(floor, dict(os.environ), server_))
            server_.sql("DROP SCHEMA floor CASCADE")
            url = server_.new_schema()
            costs["first"].append(sync(sandbox, url, server_))
            server_.sql("CHECKPOINT")
            rows_before, wal_before = server_.rows_updated(), server_.wal()
            costs["again"].append(sync(sandbox, url, server_))
            rows.append(server_.rows_updated() - rows_before)
            wal.append(server_.wal() - wal_before)
            change_one_percent(sandbox, run)
            wal_before = server_.wal()
            costs["changed"].append(sync(sandbox, url, server_))
            wal_of_changes.append((server_.wal() - wal_before) / len(sandbox.skill_ids()[::100]))
            with tempfile.TemporaryDirectory() as directory:
                costs["sqlite"].append(sync(sandbox, f"{directory}/atom.db"))
    print(f"| {arguments.skills:,} skills | CPU: ours | of the server | in all | clock | ratio |")
    print("|---|---|---|---|---|---|")
    names = {"floor": "floor", "first": "first sync", "again": "no change", "changed": "1% changed"}
    for name, told in names.items():
        cost = median(costs[name])
        of, base = ("floor", "floor") if name in {"floor", "first"} else ("first", "first sync")
        print(
            f"| {told} | {cost.client:.2f} s | {cost.server:.2f} s | {cost.cpu:.2f} s | {cost.wall:.2f} s "
            f"| {ratio(costs[name], costs[of]):.3f} of the {base} |"
        )
    print(
        f"| first sync with SQLite | {median(costs['sqlite']).cpu:.2f} s |  |  |  "
        f"| {ratio(costs['first'], costs['sqlite']):.2f} times as much on the server |"
    )
    print(
        f"\nNo change: {statistics.median(rows):.0f} rows updated, {statistics.median(wal) / 1024:.0f} KB of WAL. "
        f"1% changed: {statistics.median(wal_of_changes) / 1024:.1f} KB of WAL a changed skill.",
        flush=True,
    )


def measure_expiry(server_: Server, arguments: Arguments) -> None:
    ours, bare = [], []
    with catalogue(arguments.skills) as sandbox:
        url = server_.new_schema()
        sync(sandbox, url)
        schema = url.partition("schema=")[2]
        with engine_at(read_server_address(url)).open() as store:
            rooms = store.catalogue(history_versions=2)
            for day in range(1, arguments.runs + 1):
                now = datetime.now(UTC) + timedelta(days=day)
                server_.sql(f"UPDATE {schema}.http_validator SET checked_at = '{now}' WHERE page IS NOT NULL")
                with counted(server_) as cost:
                    rooms.refresh_expiry(now)
                ours += cost
                moment = now + timedelta(hours=24, seconds=1)
                with counted(server_) as cost, psycopg.connect(server_.url) as connection:
                    connection.execute(f"UPDATE {schema}.skill_cache SET expires_at = '{moment}'".encode())
                bare += cost
    print(f"| {arguments.skills:,} skills | CPU | ratio |\n|---|---|---|")
    print(f"| bare UPDATE | {median(bare).cpu:.2f} s | |")
    print(f"| expiry refreshed | {median(ours).cpu:.2f} s | {ratio(ours, bare):.2f} |", flush=True)


_SERVED = (
    "UPDATE skill_cache AS c SET skill_data = n.t FROM unnest(%b::text[], %b::text[]) AS n (i, t) WHERE skill_id = i"
)
_BASE = "UPDATE skill_base SET wire_digest = d FROM unnest(%b::text[], %b::bytea[]) AS n (i, d) WHERE skill_id = i"
_VERSION = """
    INSERT INTO skill_version (skill_id, version, content_digest, exec_digest, ended_at, ended_by, data)
    SELECT i, '1', d, d, now(), 'superseded', p FROM unnest(%b::text[], %b::bytea[], %b::bytea[]) AS n (i, d, p)
"""
_MARK = """
    INSERT INTO last_message AS m (kind, key, sent_at, applied_at, deleted)
    SELECT 'skill', i, now(), now(), false FROM unnest(%b::text[]) AS n (i)
    ON CONFLICT (kind, key) DO UPDATE SET applied_at = excluded.applied_at
"""
_COUNTER = "UPDATE counter SET value = value + %s WHERE name = 'atom_saas_websocket_messages_total'"
# New words wait in a list of four megabytes until a writer merges them into the index, once in about ten batches: each
# side merges its own, or the one whose turn it is by chance would pay for both.
_MERGE = "SELECT gin_clean_pending_list(name::regclass) FROM unnest(%b::text[]) AS name"
_WORDS = """
    UPDATE skill_text SET head = h::tsvector, words = array_to_tsvector(string_to_array(w, ' '))
    FROM unnest(%b::text[], %b::text[], %b::text[]) AS n (i, h, w) WHERE skill_id = i
"""


def measure_messages(server_: Server, arguments: Arguments) -> None:
    print(
        f"| batches of {_BATCH}, of CPU | ours a second | client + server | bare pipeline | client + server | ratio |"
    )
    print("|---|---|---|---|---|---|")
    with catalogue(min(arguments.skills, 2000)) as sandbox:
        url = server_.new_schema()
        sync(sandbox, url)
        with engine_at(read_server_address(url)).open() as store, psycopg.connect(server_.url) as connection:
            connection.execute(f"SET search_path = {url.partition('schema=')[2]}".encode())
            connection.execute("SET synchronous_commit = off")
            connection.execute("SET atom_sync.bulk = on")
            connection.commit()
            follower = EventFollower(
                store.events(history_versions=10), strategy="remote_wins", max_delete=MaxDelete(number=1)
            )
            numbers = itertools.count(1)
            for kind in ("unchanged text", "new text"):
                messages = _batches(sandbox, kind, numbers)
                ours, bare = [], []
                for _ in range(3 * arguments.runs):
                    batches, others = ([next(messages) for _ in range(_BATCHES)] for _ in range(2))
                    with counted(server_) as cost:
                        for _, frames in batches:
                            found = [each for frame in frames if isinstance(each := parse_frame(frame), Message)]
                            follower.apply(found, datetime.now(UTC))
                        _merge(connection)
                    ours += cost
                    with counted(server_) as cost:
                        for some, frames in others:
                            _write_bare(connection, some, frames, with_words=kind == "new text")
                        _merge(connection)
                    bare += cost
                mine, theirs = (_speed(median(each)) for each in (ours, bare))
                print(f"| {kind} | {mine} | {theirs} | {1 / ratio(ours, bare):.2f} |", flush=True)


def _batches(sandbox: Sandbox, kind: str, numbers: Iterator[int]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield batches of messages, each about other versions: the ids of its skills, and the frames."""
    ids = sandbox.skill_ids()
    for number in numbers:
        some = [ids[(number * _BATCH + each) % len(ids)] for each in range(_BATCH)]
        yield some, [_frame(sandbox.skill(each), number, kind) for each in some]


def _merge(connection: psycopg.Connection[Any]) -> None:
    """Merge the new words into the indexes."""
    connection.execute(_MERGE, (["idx_skill_text_head", "idx_skill_text_words"],))
    connection.commit()


def _write_bare(connection: psycopg.Connection[Any], some: list[str], frames: list[str], *, with_words: bool) -> None:
    fields = [json.loads(each)["data"] for each in frames]
    texts = [json.dumps(each, ensure_ascii=False) for each in fields]
    digests = [sha256(each.encode()).digest() for each in texts]
    with connection.transaction(), connection.pipeline():
        connection.execute(_SERVED, (some, texts))
        connection.execute(_BASE, (some, digests))
        connection.execute(_VERSION, (some, digests, [pack(each.encode()) for each in texts]))
        if with_words:
            found = [texts_of(each) for each in fields]
            heads, all_words = map(head, found), (" ".join(words(each)) for each in found)
            connection.execute(_WORDS, (some, list(heads), list(all_words)))
        connection.execute(_MARK, (some,))
        connection.execute(_COUNTER, (_BATCH,))


def _speed(cost: Cost) -> str:
    number = _BATCH * _BATCHES
    one = 1_000_000 / number
    return f"{number / cost.cpu:,.0f} | {one * cost.client:.0f} + {one * cost.server:.0f} µs"


def _frame(fields: dict[str, Any], number: int, kind: str) -> str:
    changed = {"version": f"9.{number}.0", "metadata": {"number": number}}
    if kind == "new text":
        changed["description"] = f"{fields.get('description') or ''} update {number:x}"
        changed["code"] = f"{fields.get('code') or ''}\n\ndef update_{number:x}():\n    return {number!r}\n"
    moment = f"{datetime.now(UTC) + timedelta(seconds=number):%Y-%m-%dT%H:%M:%SZ}"
    data = {**fields, **changed, "updated_at": moment}
    return json.dumps({"type": "skill_update", "data": data, "timestamp": moment}, ensure_ascii=False)


def measure_search(server_: Server, arguments: Arguments) -> None:
    print(
        f"| search in {arguments.skills:,} skills | found | SQLite | PostgreSQL | ratio | slowest |\n"
        "|---|---|---|---|---|---|"
    )
    with catalogue(arguments.skills) as sandbox, tempfile.TemporaryDirectory() as directory:
        urls = [f"{directory}/atom.db", server_.new_schema()]
        for each in urls:
            sync(sandbox, each)
        locations: list[Location] = [Path(urls[0]), read_server_address(urls[1])]
        stores = [engine_at(each).open() for each in locations]
        for text in SEARCHES:
            times: tuple[list[float], list[float]] = [], []
            ids: list[list[str]] = []
            for turn in range(10 * arguments.runs):
                for store, of in zip(stores, times, strict=True):
                    started = time.perf_counter()
                    found, _ = store.reading(datetime.now(UTC)).search(
                        text, SkillFilter(), limit=100_000 if not turn else 20
                    )
                    if turn:
                        of.append(1000 * (time.perf_counter() - started))
                    else:
                        ids.append(sorted(each.skill_id for each in found))
            one, other = map(statistics.median, times)
            same = "" if ids[0] == ids[1] else f" ({len(ids[1])} on the server)"
            print(
                f"| {text} | {len(ids[0]):,}{same} | {one:.1f} ms | {other:.1f} ms | {other / one:.2f} "
                f"| {max(times[1]):.0f} ms |",
                flush=True,
            )
        for store in stores:
            store.close()


def measure_starts(server_: Server, arguments: Arguments) -> None:
    with catalogue(1000) as sandbox:
        url = server_.new_schema()
        sync(sandbox, url)
        environment = environment_of(sandbox.url, sandbox.token, "") | {"ATOM_SAAS_DATABASE_URL": url}
        schema = url.partition("schema=")[2]
        path = f"{server_.url}&options=-csearch_path%3D{schema}"
        ours, bare = [], []
        for _ in range(3 * arguments.runs):
            bare.append(process([sys.executable, "-c", _FLOOR_OF_STATUS, path], environment, server_))
            ours.append(process([sys.executable, "-m", "atom_saas_sync", "status", "--json"], environment, server_))
    print("| start | CPU | ratio |\n|---|---|---|")
    print(f"| imports, connection, one query | {1000 * median(bare).cpu:.0f} ms | |")
    print(f"| `status --json` | {1000 * median(ours).cpu:.0f} ms | {ratio(ours, bare):.2f} |", flush=True)


PARTS: dict[str, Callable[[Server, Arguments], None]] = {
    "syncs": measure_syncs,
    "expiry": measure_expiry,
    "messages": measure_messages,
    "search": measure_search,
    "starts": measure_starts,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="all by default")
    parser.add_argument("--skills", type=int, default=5000, help="size of the catalogue")
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    with server(binaries(), "wal_level=replica") as url:
        started = Server(url)
        for part in given.parts or PARTS:
            print(f"\n## {part}\n", flush=True)
            PARTS[part](started, Arguments(given.skills, given.runs))


if __name__ == "__main__":
    main()
