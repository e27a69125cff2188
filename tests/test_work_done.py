"""How much work a sync does, counted: what makes it slower shows here, whatever the machine is doing besides.

The figures are exact. Who changes one has made a sync do more or less, and says why.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine

from atom_saas_sync.core import canonical, incoming
from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.store.database import Database
from atom_saas_sync.usecases import walk

SKILLS, PAGE = 400, 100
WRITTEN = ("skill_cache", "skill_base", "skill_fts", "skill_version", "http_validator", "category_cache")


class Work:
    """What a run has done."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def statement(self, text: str, rows: int = 1) -> None:
        words = text.split()
        if words[0] in {"COMMIT", "SELECT"}:
            self.counts[words[0]] += 1
        if words[0] in {"INSERT", "UPDATE", "DELETE"}:
            table = words[1] if words[0] == "UPDATE" else words[2]
            if table in WRITTEN:
                self.counts[f"{words[0]} {table}"] += rows


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    work = Work()

    class Counting(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            cursor = super().execute(sql, *parameters)
            if sql.lstrip().startswith(("INSERT", "UPDATE", "DELETE")):
                work.statement(sql, cursor.rowcount)
            else:
                work.statement(sql)
            return cursor

        def executemany(self, sql: str, parameters: Iterable[Any]) -> sqlite3.Cursor:
            rows = list(parameters)
            work.statement(sql, len(rows))
            return super().executemany(sql, rows)

    real_connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: real_connect(*a, **{"factory": Counting, **k}))

    def counting_sha256(data: bytes) -> Any:
        work.counts["digests"] += 1
        return sha256(data)

    def counting_decode(raw: bytes | str) -> Any:
        work.counts["skills parsed"] += 1
        work.counts["bytes parsed"] += len(raw)
        return real_decode(raw)

    real_decode = canonical.decode_with_shape
    for module in (walk, incoming, canonical):
        monkeypatch.setattr(module, "sha256", counting_sha256)
    for module in (incoming, canonical):
        monkeypatch.setattr(module, "decode_with_shape", counting_decode)
    yield work
    monkeypatch.undo()


@pytest.fixture
def stocked(tmp_path: Path) -> Iterator[Machine]:
    with Sandbox(skills=SKILLS, seed=3) as sandbox:
        machine = Machine(sandbox, tmp_path)
        machine.follow_clock()
        Database.open(machine.database_path).close()
        yield machine


def done(machine: Machine, work: Work) -> dict[str, int]:
    """Make a run; return what it has done, but for what stays the same from run to run."""
    work.counts.clear()
    before = len(machine.sandbox.requests())
    report = machine.pull(page_size=PAGE)
    assert report.status == "success"
    requests = machine.sandbox.requests()[before:]
    counts = {name: number for name, number in work.counts.items() if number}
    del counts["SELECT"]  # changes whenever something is looked up
    return {"requests": len(requests), **counts}


def wire_bytes(machine: Machine) -> int:
    texts = machine.sql("SELECT skill_data FROM skill_cache UNION ALL SELECT category_data FROM category_cache")
    return sum(len(row[0].encode()) for row in texts)


def index_segments(machine: Machine) -> int:
    return int(machine.sql("SELECT count(DISTINCT segid) FROM skill_fts_idx")[0][0])


def test_a_first_sync_does_each_thing_once(stocked: Machine, work: Work) -> None:
    counts = done(stocked, work)
    categories = stocked.sql("SELECT count(*) FROM category_cache")[0][0]
    assert counts == {
        "requests": 1 + SKILLS // PAGE + 1,  # categories, pages, and the empty one that ends the list
        "COMMIT": 11 + SKILLS // PAGE,  # one for each page; the rest is the same from run to run
        "skills parsed": SKILLS + categories,
        "bytes parsed": wire_bytes(stocked),
        "digests": 3 * SKILLS,  # of the bytes, the content, and what can be executed
        "INSERT skill_cache": SKILLS,
        "INSERT skill_base": SKILLS,
        "INSERT skill_fts": SKILLS,
        "INSERT http_validator": 1 + SKILLS // PAGE + 1,
        "INSERT category_cache": categories,
        "UPDATE category_cache": categories,  # their life
    }


def test_a_sync_of_nothing_new_asks_and_confirms_alone(stocked: Machine, work: Work) -> None:
    done(stocked, work)
    counts = done(stocked, work)
    categories = stocked.sql("SELECT count(*) FROM category_cache")[0][0]
    assert counts == {
        "requests": 1 + SKILLS // PAGE + 1,
        "COMMIT": 11,  # one for all pages
        "UPDATE http_validator": SKILLS // PAGE + 1,
        "UPDATE category_cache": categories,
    }


def test_a_sync_of_few_changes_parses_and_writes_those_alone(stocked: Machine, work: Work) -> None:
    done(stocked, work)
    segments = index_segments(stocked)
    changed = stocked.sandbox.skill_ids()[:: SKILLS // 4]
    for skill_id in changed:
        stocked.sandbox.patch_skill(skill_id, {"description": "another"}, push=False)
    counts = done(stocked, work)
    sizes = sum(
        len(text.encode())
        for (text,) in (
            stocked.sql("SELECT skill_data FROM skill_cache WHERE skill_id = ?", skill_id)[0] for skill_id in changed
        )
    )
    few = len(changed)
    assert few == 4
    assert counts == {
        "requests": 1 + SKILLS // PAGE + 1,
        "COMMIT": 11,  # one for all pages, as they change little
        "skills parsed": few,
        "bytes parsed": sizes,
        "digests": SKILLS + 2 * few,  # of all bytes, and of what has changed in them
        "UPDATE skill_cache": few,
        "INSERT skill_base": few,
        "INSERT skill_fts": 2 * few,  # the old entry goes out, the new one in
        "INSERT skill_version": few,
        "DELETE skill_version": few,  # looks for what is beyond the number to keep
        "INSERT http_validator": SKILLS // PAGE,
        "UPDATE http_validator": 1,
        "UPDATE category_cache": counts["UPDATE category_cache"],
    }
    assert index_segments(stocked) == segments + 1  # for all pages: from the 64th on, segments are merged
