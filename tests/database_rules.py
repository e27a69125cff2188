"""Rules that hold in a database at any time, whatever happened to its writers."""

from __future__ import annotations

import functools
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from machine_databases import FileDatabase, MachineDatabase

from atom_saas_sync.core.canonical import content_digest, exec_digest
from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.store import engine_at
from atom_saas_sync.store.sqlite import lock, migrations, revisions

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_TIMES = {
    "skill_cache": ("expires_at", "created_at", "updated_at"),
    "category_cache": ("expires_at", "created_at", "updated_at"),
    "skill_base": ("confirmed_at", "deleted_at"),
    "skill_version": ("ended_at",),
    "http_validator": ("checked_at",),
    "sync_run": ("started_at", "finished_at"),
    "conflict_log": ("resolved_at", "created_at", "updated_at"),
    "skill_ratings": ("synced_at", "created_at", "updated_at"),
}
# Each query finds rows that must not exist; the text says what is wrong with them.
_NEVER = {
    "rule 1: a skill has a base and no row, and nobody is known to have removed it": """
        SELECT skill_id FROM skill_base AS b WHERE data IS NULL AND deleted_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM skill_cache AS c WHERE c.skill_id = b.skill_id)
    """,
    "rule 3: two conflicts of one skill wait": """
        SELECT skill_id FROM conflict_log WHERE NOT resolved GROUP BY skill_id HAVING count(*) > 1
    """,
    "rule 3: a conflict waits and is resolved at once, or neither": """
        SELECT id FROM conflict_log WHERE resolved != (resolved_at IS NOT NULL)
        OR resolved != (resolution_strategy IS NOT NULL) OR resolved != (resolved_by IS NOT NULL)
    """,
    "rule 4: a conflict without versions": """
        SELECT id FROM conflict_log WHERE local_data IS NULL
        OR (remote_data = '{}' AND conflict_type != 'DELETION_CONFLICT') OR remote_data IS NULL
    """,
    "rule 6: an entry lives longer than a day after it was confirmed": """
        SELECT c.skill_id FROM skill_cache AS c JOIN usable_skill AS u ON u.skill_id = c.skill_id
        WHERE u.source = 'marketplace' AND julianday(c.expires_at) > julianday(u.confirmed_at) + 1.0001
    """,
    "rule 7: a page that may answer 'not modified' is not whole": """
        SELECT resource FROM http_validator AS v WHERE page IS NOT NULL AND etag IS NOT NULL AND items <
        (SELECT count(*) FROM skill_base AS b WHERE b.page = v.page)
    """,
    "rule 7: more than one run of a kind is open": """
        SELECT kind FROM sync_run WHERE status = 'running' GROUP BY kind HAVING count(*) > 1
    """,
    "rule 7: a run has ended without an end, or the other way round": """
        SELECT id FROM sync_run WHERE (status = 'running') != (finished_at IS NULL)
    """,
    "rule 8: a counter below zero": "SELECT name FROM counter WHERE value < 0",
    "rule 10: the runs do not add up": """
        SELECT id FROM sync_state WHERE total_syncs != successful_syncs + failed_syncs
        OR (SELECT min(id) FROM sync_run) = 1 AND (  -- old runs are forgotten
            successful_syncs != (SELECT count(*) FROM sync_run WHERE kind = 'skills' AND status = 'success')
            OR failed_syncs != (SELECT count(*) FROM sync_run WHERE kind = 'skills'
                AND status NOT IN ('success', 'running')))
    """,
    "rule 10: a success that was none": """
        SELECT id FROM sync_state WHERE last_successful_sync_at IS NOT
        (SELECT finished_at FROM sync_run WHERE kind = 'skills' AND status = 'success' ORDER BY id DESC LIMIT 1)
    """,
    "rule 12: what was deleted can be used": """
        SELECT u.skill_id FROM usable_skill AS u JOIN skill_base AS b ON b.skill_id = u.skill_id
        WHERE b.deleted_at IS NOT NULL
    """,
    "rule 12: what is cached and not deleted can't be used": """
        SELECT c.skill_id FROM skill_cache AS c LEFT JOIN skill_base AS b ON b.skill_id = c.skill_id
        WHERE b.deleted_at IS NULL AND c.skill_id NOT IN (SELECT skill_id FROM usable_skill)
    """,
    "ratings: one was sent and has no name there": """
        SELECT id FROM skill_rating WHERE synced_to_saas AND remote_rating_id IS NULL AND note IS NULL
    """,
    "ratings: one was sent and counts as failed": """
        SELECT r.id FROM skill_rating AS r JOIN failed_rating_upload AS f ON f.rating_id = r.id
        WHERE r.synced_to_saas
    """,
    "ratings: no version, so no idempotency key": "SELECT id FROM skill_rating WHERE version IS NULL",
    "the triggers stand aside for nobody": "SELECT process FROM bulk_write",
    "a replacement was left in the middle": "SELECT id FROM insert_over",
}


_OBJECTS = (
    "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~' "
    "AND tbl_name != '_sqlite_migrations'"
)


# What those of them are on a server that SQLite has in words of its own; None: there is no such thing.
_NEVER_ON_SERVER = {
    "rule 6: an entry lives longer than a day after it was confirmed": """
        SELECT c.skill_id FROM skill_cache AS c JOIN usable_skill AS u ON u.skill_id = c.skill_id
        WHERE u.source = 'marketplace' AND c.expires_at > u.confirmed_at + interval '1 day 10 seconds'
    """,
    "rule 10: a success that was none": """
        SELECT id FROM sync_state WHERE last_successful_sync_at IS DISTINCT FROM
        (SELECT finished_at FROM sync_run WHERE kind = 'skills' AND status = 'success' ORDER BY id DESC LIMIT 1)
    """,
    "the triggers stand aside for nobody": None,
    "a replacement was left in the middle": None,
}


def check_rules(database: MachineDatabase, *, before: Counter[str] | None = None, idle: bool = True) -> list[str]:
    """Return the violated rules.

    `before` has earlier values of the counters, which only grow. `idle`: no process uses the database, so no lock may
    be held.
    """
    if not isinstance(database, FileDatabase):
        return list(_findings_on_server(database, before or Counter(), idle=idle))
    if not database.path.exists():
        return []
    with closing(sqlite3.connect(database.path, timeout=60)) as connection:
        connection.row_factory = sqlite3.Row
        return list(_findings(connection, database.path, before or Counter(), idle=idle))


def counters(database: MachineDatabase) -> Counter[str]:
    """Return the stored counters."""
    if not database.exists("counter"):
        return Counter()
    rows = database.sql("SELECT name || labels, value FROM counter", ())
    return Counter({name: value for name, value in rows if "fallback_seconds" not in name})


def _findings_on_server(database: MachineDatabase, before: Counter[str], *, idle: bool) -> Iterator[str]:
    if not database.exists():
        return
    with engine_at(database.location).open(read_only=True) as store:
        if idle:
            for kind in ("skills", "ratings", "watch"):
                if store.holder(kind) is not None:
                    yield f"rule 9: the lock for {kind} outlived its process"
        for finding in store.maintenance().check(quick=False, signer=None):
            yield f"db check: {finding.message}"
    with database.transaction() as execute:
        execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")  # one snapshot for all queries
        for what, query in {**_NEVER, **_NEVER_ON_SERVER}.items():
            if query is not None and (rows := execute(query)):
                yield f"{what}: {[row[0] for row in rows][:5]}"
        yield from _wrong_digests(execute(_VERSIONS))
        yield from _shrunk(dict(execute("SELECT name || labels, value FROM counter")), before)


def _findings(connection: sqlite3.Connection, path: Path, before: Counter[str], *, idle: bool) -> Iterator[str]:
    yield from _pages(connection)
    if idle:
        for kind in ("skills", "ratings", "watch"):
            if lock.holder(path, kind) is not None:
                yield f"rule 9: the lock for {kind} outlived its process"
    try:
        applied = [row[0] for row in connection.execute("SELECT name FROM _sqlite_migrations")]
    except sqlite3.OperationalError:
        applied = []
    yield from _schema(connection, applied)
    if tuple(applied) != revisions.NAMES:
        return
    connection.execute("BEGIN")  # one snapshot for all queries
    for what, query in _NEVER.items():
        if rows := connection.execute(query).fetchall():
            yield f"{what}: {[row[0] for row in rows][:5]}"
    yield from _versions(connection)
    yield from _times(connection)
    yield from _counters(connection, before)
    connection.execute("ROLLBACK")
    if idle:  # it writes, so it blocks other writers
        yield from _search_structure(connection)
    yield from _search_index(connection)


def _pages(connection: sqlite3.Connection) -> Iterator[str]:
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield f"integrity: {line}"
    for row in connection.execute("PRAGMA foreign_key_check"):
        yield f"foreign key: {tuple(row)}"


@functools.cache
def _objects(applied: tuple[str, ...]) -> set[tuple[str, str]]:
    with closing(migrations.build(applied)) as model:
        return {tuple(row) for row in model.execute(_OBJECTS)}


def _schema(connection: sqlite3.Connection, applied: list[str]) -> Iterator[str]:
    """Each migration was applied completely or not at all."""
    wanted, ours = _objects(tuple(applied)), _objects(revisions.NAMES)
    actual = {tuple(row) for row in connection.execute(_OBJECTS)}
    if half := wanted ^ (actual & (ours | wanted)):  # other programs may have their own tables
        yield f"rule 7: half a migration: {sorted(half)[:5]}"


def _versions(connection: sqlite3.Connection) -> Iterator[str]:
    """Digests match their texts (rules 1 and 11), and texts are complete."""
    yield from _wrong_digests(connection.execute(_VERSIONS))


_VERSIONS = """
    SELECT b.skill_id, coalesce(b.data, c.skill_data) AS text, b.content_digest, b.exec_digest
    FROM skill_base AS b LEFT JOIN skill_cache AS c ON c.skill_id = b.skill_id WHERE b.deleted_at IS NULL
"""


def _wrong_digests(rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    for skill_id, text, of_content, of_code in rows:
        if text is None:
            continue  # reported elsewhere
        fields: dict[str, Any] = json.loads(text)
        if content_digest(fields) != of_content:
            yield f"rule 1: the base of {skill_id} is not what the marketplace sent"
        if exec_digest(fields) != of_code:
            yield f"rule 11: the executable digest of {skill_id} is of something else"


def _times(connection: sqlite3.Connection) -> Iterator[str]:
    for table, columns in _TIMES.items():
        for column in columns:
            for (moment,) in connection.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL"):
                if not _TIME.fullmatch(str(moment)):
                    yield f"{table}.{column} holds {moment!r}, which is no UTC time"


def _counters(connection: sqlite3.Connection, before: Counter[str]) -> Iterator[str]:
    yield from _shrunk(dict(connection.execute("SELECT name || labels, value FROM counter").fetchall()), before)


def _shrunk(now: dict[str, float], before: Counter[str]) -> Iterator[str]:
    for name, value in before.items():
        if now.get(name, 0) < value:
            yield f"rule 8: {name} went from {value} to {now.get(name, 0)}"


def _search_structure(connection: sqlite3.Connection) -> Iterator[str]:
    try:
        connection.execute("INSERT INTO skill_fts(skill_fts) VALUES ('integrity-check')")
    except sqlite3.DatabaseError as error:
        yield f"search index: {error}"
    finally:
        connection.rollback()


def _search_index(connection: sqlite3.Connection) -> Iterator[str]:
    """Compare the index, word by word, with a rebuilt one."""
    statement = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'skill_fts'").fetchone()[0]
    connection.execute(statement.replace("TABLE skill_fts", "TABLE temp.anew"))
    connection.execute(
        "INSERT INTO temp.anew(rowid, name, description, tags, category, code) "
        "SELECT id, name, description, tags, category, code FROM skill_text"
    )
    for name, table in (("found", "main, skill_fts"), ("wanted", "temp, anew")):
        connection.execute(f"CREATE VIRTUAL TABLE temp.{name} USING fts5vocab({table}, instance)")
    for one, other in (("found", "wanted"), ("wanted", "found")):
        rows = connection.execute(
            f"SELECT term, doc, col FROM (SELECT * FROM temp.{one} EXCEPT SELECT * FROM temp.{other}) LIMIT 3"
        ).fetchall()
        if rows:
            yield f"search index: only among the words {one}: {[tuple(row) for row in rows]}"
    # Row 1 has the numbers of entries and words, used for ranking: double insertions and removals show there.
    totals = [
        connection.execute(f"SELECT block FROM {table} WHERE id = 1").fetchone()[0].rstrip(b"\0")
        for table in ("main.skill_fts_data", "temp.anew_data")
    ]
    if totals[0] != totals[1]:
        yield f"search index: its totals are {totals[0].hex()}, not {totals[1].hex()}"
    connection.rollback()


def check_ratings(sandbox: Sandbox) -> list[str]:
    """Return the violated rules for ratings at the marketplace: each exists once."""
    there = Counter((each["skill_id"], each["user_id"]) for each in sandbox.ratings())
    return [f"ratings: {who} is there {number} times" for who, number in there.items() if number > 1]
