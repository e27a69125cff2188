"""The work of a sync, counted: slowdowns show here, independent of the machine's load.

The figures are exact; a commit that changes one explains why.
"""

from __future__ import annotations

import gc
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine

from atom_saas_sync.core import canonical
from atom_saas_sync.core.incoming import messages, skills
from atom_saas_sync.model import SkillState, SkillVersion
from atom_saas_sync.model.effects import WriteServed
from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.store.sqlite import index_entries, search_index
from atom_saas_sync.usecases import read_pages
from atom_saas_sync.usecases.follow_events import EventFollower

pytestmark = pytest.mark.sqlite("its statements and pages; tests/store/postgresql/test_costs.py has those of a server")

SKILLS, PAGE = 400, 100
WRITTEN = ("skill_cache", "skill_base", "skill_fts", "skill_version", "http_validator", "category_cache")


class Work:
    """The work of a run."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.statements: set[str] = set()

    def counting(self, what: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return the function, which counts how often it is called."""

        def counted(value: object) -> object:
            self.counts[what] += 1
            return function(value)

        return counted

    def statement(self, text: str, rows: int = 1) -> None:
        self.statements.add(text)
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

    def counting_decode(raw: bytes | str) -> Any:
        work.counts["skills parsed"] += 1
        work.counts["bytes parsed"] += len(raw)
        return real_decode(raw)

    real_decode = vars(canonical)["_decode"]
    for module in (read_pages, skills, messages, canonical):
        monkeypatch.setattr(module, "sha256", work.counting("digests", sha256))
    stored_digest = vars(SkillState)["base_is_as_it_came"]
    monkeypatch.setattr(stored_digest, "func", work.counting("digests", stored_digest.func))
    monkeypatch.setattr(canonical, "_decode", counting_decode)
    words = work.counting("skills cut into words", search_index.words)
    for room in (search_index, index_entries):
        monkeypatch.setattr(room, "words", words)
    yield work
    monkeypatch.undo()


@pytest.fixture
def stocked(tmp_path: Path) -> Iterator[Machine]:
    with Sandbox(skills=SKILLS, seed=3) as sandbox:
        machine = Machine(sandbox, tmp_path)
        machine.follow_clock()
        machine.store().close()
        yield machine


def done(machine: Machine, work: Work) -> dict[str, int]:
    """Make a run; return its work, without the part that is the same in every run."""
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
        "skills cut into words": SKILLS,
        "INSERT http_validator": 1 + SKILLS // PAGE + 1,
        "INSERT category_cache": categories,
        "UPDATE category_cache": categories,  # their expiry
    }


def test_skills_that_are_written_are_let_go_before_the_index_takes_their_words(
    stocked: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next page is decoded meanwhile: the texts of both, and what the index gathers, were the peak of a sync."""
    held: list[int] = []

    class Looking(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql.split()[:3] == ["INSERT", "INTO", "skill_fts"]:
                # Not isinstance: it asks the objects, and a weak proxy may have lost its own.
                held.append(sum(issubclass(type(each), SkillVersion | WriteServed) for each in gc.get_objects()))
            return super().execute(sql, *parameters)

    real_connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: real_connect(*a, **{"factory": Looking, **k}))
    assert stocked.pull(page_size=SKILLS).counts.added == SKILLS
    assert held
    assert set(held) == {0}


def test_a_sync_without_changes_only_asks_and_confirms(stocked: Machine, work: Work) -> None:
    done(stocked, work)
    counts = done(stocked, work)
    categories = stocked.sql("SELECT count(*) FROM category_cache")[0][0]
    assert counts == {
        "requests": 1 + SKILLS // PAGE + 1,
        "COMMIT": 11,  # one for all pages
        "UPDATE http_validator": SKILLS // PAGE + 1,
        "UPDATE category_cache": categories,
    }


def test_a_sync_of_few_changes_parses_and_writes_only_those(stocked: Machine, work: Work) -> None:
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
        "digests": SKILLS + 3 * few,  # of all bytes, of what has changed in them, and of what that replaces
        "UPDATE skill_cache": few,
        "INSERT skill_base": few,
        "skills cut into words": 2 * few,
        "INSERT skill_fts": 2 * few,  # the old entry is removed, the new one added
        "INSERT skill_version": few,
        "DELETE skill_version": few,  # looks for what is beyond the number to keep
        "INSERT http_validator": SKILLS // PAGE,
        "UPDATE http_validator": 1,
        "UPDATE category_cache": counts["UPDATE category_cache"],
    }
    assert index_segments(stocked) == segments + 1  # for all pages: from the 64th on, segments are merged


def test_a_flood_reads_and_hashes_each_skill_once(stocked: Machine, work: Work) -> None:
    done(stocked, work)
    changed = stocked.sandbox.skill_ids()[:20]
    frames = [
        json.dumps({"type": "skill_update", "data": {**stocked.sandbox.skill(skill_id), "version": "9.9.9"}})
        for skill_id in changed
    ]
    work.counts.clear()
    came = [messages.parse_frame(frame) for frame in frames]
    with stocked.store() as store:
        follower = EventFollower(store.events(history_versions=10), strategy="remote_wins")
        work.counts["COMMIT"] = 0
        follower.apply([each for each in came if isinstance(each, messages.Message)], datetime.now(UTC))
    few = len(changed)
    counts = {name: number for name, number in work.counts.items() if number and name not in {"SELECT", "bytes parsed"}}
    assert counts == {
        "COMMIT": 1,
        "skills parsed": 2 * few,  # what came, and what is stored
        "digests": 4 * few,  # bytes, content and executable part of what came, and the bytes of what is stored
        "UPDATE skill_cache": few,
        "INSERT skill_base": few,
        "INSERT skill_version": few,
        "DELETE skill_version": few,
        "UPDATE http_validator": 1,
    }
    (drop_oldest,) = (text for text in work.statements if text.startswith("DELETE FROM skill_version"))
    plan = stocked.sql(f"EXPLAIN QUERY PLAN {drop_oldest}", changed[0], 10)
    # Without the texts, which are most of the table.
    assert "USING COVERING INDEX idx_skill_version_origin" in str(plan)
