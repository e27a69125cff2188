"""Random changes on both sides, resolved by syncs and users: nothing is lost, nothing is done twice.

A real database; the marketplace is a fake of its port, for speed.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from conftest import FakeClock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import Raw

from atom_saas_sync.core.canonical import VOLATILE_FIELDS, canonical, decode_object
from atom_saas_sync.core.deletions import MaxDelete
from atom_saas_sync.core.incoming.skills import read_skill
from atom_saas_sync.core.merge import merge
from atom_saas_sync.errors import UsageError
from atom_saas_sync.model import (
    STRATEGIES,
    Category,
    ConflictFilter,
    FetchedPage,
    InvalidItem,
    RunReport,
    SkillVersion,
    Strategy,
)
from atom_saas_sync.store.sqlite.catalogue import Catalogue
from atom_saas_sync.store.sqlite.conflicts import ConflictLog
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.runs import Runs
from atom_saas_sync.usecases.edit_skills import edit_skill, revert_skills
from atom_saas_sync.usecases.ports import Statistics
from atom_saas_sync.usecases.pull_catalogue import CataloguePull, PullOptions
from atom_saas_sync.usecases.resolve_conflicts import Decision, resolve_conflicts, undo_resolution

Json = dict[str, Any]

IDS = st.sampled_from(["s0", "s1", "s2"])
# Fields whose merge does not ask which side is newer.
CHANGES: st.SearchStrategy[Json] = st.sampled_from(
    [
        *({"code": code} for code in "abc"),
        *({"version": version} for version in "12"),
        *({"tags": list(tags)} for tags in ("", "x", "yz")),
        *({"parameters": value} for value in (None, {"deep": [1]})),
        {"code": "a", "version": "2", "tags": ["z"]},
        {"code": "b", "version": "1"},
    ]
)
DECISIONS = st.sampled_from(["remote_wins", "local_wins", "merge"])


class NothingOnTheWire:
    requests = not_modified = bytes_received = 0
    clock_skew_seconds: float | None = None

    def drain(self) -> dict[tuple[str, str], int]:
        return {}


class FakeMarketplace:
    """The marketplace's port: a list of skills in pages, with ETags."""

    def __init__(self) -> None:
        self.skills: dict[str, Json] = {}
        self.statistics: Statistics = NothingOnTheWire()

    def list_key(self, page_size: int) -> str:
        return f"fake-{page_size}-"

    def resource_of_categories(self) -> str:
        return "categories"

    def list_skills(self, page: int, page_size: int, etag: str | None = None, **_: Any) -> FetchedPage:
        items = [canonical(skill) for skill in self.skills.values()][(page - 1) * page_size : page * page_size]
        total = len(self.skills)
        new = sha256(b"".join(items) + b"%d" % total).hexdigest()
        return FetchedPage(None if new == etag else tuple(map(Raw, items)), total, new, size=len(items))

    def get_skill(self, skill_id: str) -> SkillVersion | InvalidItem | None:
        return read_skill(canonical(self.skills[skill_id])) if skill_id in self.skills else None

    def list_categories(
        self, etag: str | None = None
    ) -> tuple[tuple[list[Category], list[InvalidItem]] | None, str | None]:
        return ([], []), etag


class TwoSides(RuleBasedStateMachine):
    """`base`, `local` and `waiting` are the expected state, by a second, short implementation of the rules."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.database = Database.open(Path(self.directory.name) / "atom.db")
        self.catalogue = Catalogue(self.database, history_versions=10)
        self.log = ConflictLog(self.database, history_versions=10)
        self.marketplace = FakeMarketplace()
        self.clock = FakeClock()
        self.ratings = 0
        self.base: dict[str, Json] = {}
        self.local: dict[str, Json] = {}
        self.waiting: dict[str, Json | None] = {}
        self.held: set[str] = set()

    def teardown(self) -> None:
        self.database.close()
        self.directory.cleanup()

    # The marketplace's side

    @rule(skill_id=IDS, changes=CHANGES)
    def change_there(self, skill_id: str, changes: Json) -> None:
        self.ratings += 1
        before = self.marketplace.skills.get(skill_id, {"skill_id": skill_id, "name": "N", "code": "a", "version": "1"})
        self.marketplace.skills[skill_id] = {**before, **changes, "rating_count": self.ratings}

    @rule(skill_id=IDS)
    def rate_there(self, skill_id: str) -> None:
        self.ratings += 1
        if skill_id in self.marketplace.skills:
            self.marketplace.skills[skill_id]["rating_count"] = self.ratings

    @rule(skill_id=IDS)
    def delete_there(self, skill_id: str) -> None:
        self.marketplace.skills.pop(skill_id, None)

    @rule(skill_id=IDS)
    def go_back_there(self, skill_id: str) -> None:
        if skill_id in self.base and skill_id in self.marketplace.skills:
            self.marketplace.skills[skill_id] = dict(self.base[skill_id])

    # Our side

    @rule(skill_id=IDS, changes=CHANGES)
    def change_here_by_sql(self, skill_id: str, changes: Json) -> None:
        """As the Atom backend does, for a skill that is there or a new one."""
        before = self.local.get(skill_id)
        after = {**(before or {"skill_id": skill_id, "name": "N", "code": "b"}), **changes}
        verb = "INSERT OR REPLACE" if before is None or "tags" in changes else "INSERT"
        self.database.connection.execute(
            f"{verb} INTO skill_cache (skill_id, skill_data) VALUES (?1, ?2)"
            + ("" if "REPLACE" in verb else " ON CONFLICT (skill_id) DO UPDATE SET skill_data = ?2"),
            (skill_id, json.dumps(after)),
        )
        self.local[skill_id] = after

    @rule(skill_id=IDS, changes=CHANGES)
    def change_here_by_command(self, skill_id: str, changes: Json) -> None:
        if skill_id in self.local:
            edited = self.edited_texts()
            after = {**self.local[skill_id], **changes}
            edit_skill(self.catalogue, skill_id, json.dumps(after), seen=None, actor="alice", now=self.clock.now())
            self.local[skill_id] = after
            base = self.base.get(skill_id)
            if base is not None and equal(after, base) and skill_id not in self.waiting:
                self.local[skill_id] = base
            self.nothing_vanished(edited)

    @rule(skill_id=IDS)
    def delete_the_row_here(self, skill_id: str) -> None:
        self.database.connection.execute("DELETE FROM skill_cache WHERE skill_id = ?", (skill_id,))
        self.local.pop(skill_id, None)

    @rule(skill_id=IDS)
    def revert(self, skill_id: str) -> None:
        if skill_id in self.base and skill_id not in self.waiting:
            edited = self.edited_texts()
            revert_skills(self.catalogue, [skill_id], actor="alice", now=self.clock.now())
            self.local[skill_id] = self.base[skill_id]
            self.nothing_vanished(edited)

    # Syncs and resolutions

    @rule(strategy=st.sampled_from(STRATEGIES))
    def sync(self, strategy: Strategy) -> None:
        edited = self.edited_texts()
        self.clock.move(minutes=15)
        report = self.pull(strategy)
        assert report.status == "success"
        for skill_id in {*self.base, *self.local, *self.waiting, *self.marketplace.skills}:
            self.settle(skill_id, strategy)
        self.nothing_vanished(edited)
        before = self.everything()
        again = self.pull(strategy)
        assert (again.counts.added, again.counts.updated, again.counts.deleted) == (0, 0, 0)
        assert again.counts.conflicts_detected == again.counts.conflicts_resolved == 0
        assert again.counts.conflicts_manual == len(self.waiting)
        assert self.everything() == before

    @precondition(lambda self: self.waiting)
    @rule(strategy=DECISIONS, pick=st.integers(0, 2), everything=st.booleans())
    def resolve(self, strategy: Strategy, pick: int, everything: bool) -> None:
        edited = self.edited_texts()
        ids = sorted(self.waiting) if everything else [sorted(self.waiting)[pick % len(self.waiting)]]
        numbers = dict(
            self.database.connection.execute("SELECT skill_id, id FROM conflict_log WHERE resolved = 0").fetchall()
        )
        wanted = ConflictFilter() if everything else [numbers[ids[0]]]
        try:
            resolve_conflicts(self.log, wanted, Decision(strategy=strategy), actor="alice", now=self.clock.now())
        except UsageError:
            assert any(skill_id not in self.local for skill_id in ids)
            return
        for skill_id in ids:
            self.held.discard(skill_id)
            self.decide(skill_id, self.waiting[skill_id], strategy)
        self.nothing_vanished(edited)

    @rule(pick=st.integers(0, 100))
    def undo(self, pick: int) -> None:
        edited = self.edited_texts()
        rows = self.database.connection.execute(
            "SELECT id, skill_id, local_data, base_data FROM conflict_log "
            "WHERE resolved = 1 AND undone_at IS NULL AND resolution_strategy != 'converged' ORDER BY id"
        ).fetchall()
        if not rows:
            return
        row = rows[pick % len(rows)]
        skill_id = row["skill_id"]
        try:
            undo_resolution(self.log, row["id"], actor="alice", now=self.clock.now())
        except UsageError:
            assert skill_id in self.waiting or skill_id in edited
            return
        remote, base = self.base.get(skill_id), None if row["base_data"] is None else json.loads(row["base_data"])
        self.local[skill_id] = (
            followed(json.loads(row["local_data"]), remote or {}) if remote else json.loads(row["local_data"])
        )
        if remote is not None and base is not None and equal(remote, base):
            return
        self.base.pop(skill_id, None)
        if base is not None:
            self.base[skill_id] = base
        if remote is not None or base is not None:
            self.waiting[skill_id] = remote
            self.held.add(skill_id)
        self.nothing_vanished(edited)

    # The second implementation of the rules

    def settle(self, skill_id: str, strategy: Strategy) -> None:
        base, local, remote = (side.get(skill_id) for side in (self.base, self.local, self.marketplace.skills))
        if remote is None and base is None:
            self.close(skill_id)
        elif (
            local is None or (base is not None and equal(local, base)) or (remote is not None and equal(local, remote))
        ):
            self.put(skill_id, remote, remote)
        elif remote is not None and base is not None and equal(remote, base):
            self.put(skill_id, remote, followed(local, remote))
        else:
            self.decide(skill_id, remote, "manual" if skill_id in self.held else strategy)

    def decide(self, skill_id: str, remote: Json | None, strategy: Strategy) -> None:
        local = self.local[skill_id]
        if strategy == "manual":
            self.waiting[skill_id] = None if remote is None else dict(remote)
            self.local[skill_id] = local if remote is None else followed(local, remote)
        elif strategy == "remote_wins":
            self.put(skill_id, remote, remote)
        elif remote is None:
            self.put(skill_id, None, local)
        elif strategy == "local_wins":
            self.put(skill_id, remote, followed(local, remote))
        else:
            merged = merge(self.base.get(skill_id, {}), local, remote, remote_is_newer=False)
            self.put(skill_id, remote, merged)

    def put(self, skill_id: str, base: Json | None, local: Json | None) -> None:
        for side, value in ((self.base, base), (self.local, local)):
            side.pop(skill_id, None)
            if value is not None:
                side[skill_id] = dict(value)
        self.close(skill_id)

    def close(self, skill_id: str) -> None:
        self.waiting.pop(skill_id, None)
        self.held.discard(skill_id)

    # Rules

    @invariant()
    def the_cache_is_what_the_rules_say(self) -> None:
        rows = self.database.connection.execute("SELECT skill_id, skill_data FROM skill_cache").fetchall()
        assert {row[0]: canonical(json.loads(row[1])) for row in rows} == {
            skill_id: canonical(fields) for skill_id, fields in self.local.items()
        }
        waiting = self.database.connection.execute(
            "SELECT skill_id, nullif(remote_data, '{}') FROM conflict_log WHERE resolved = 0"
        ).fetchall()
        assert {row[0]: row[1] and canonical(json.loads(row[1])) for row in waiting} == {
            skill_id: fields and canonical(fields) for skill_id, fields in self.waiting.items()
        }

    @invariant()
    def the_bases_are_what_the_marketplace_sent(self) -> None:
        known = self.catalogue.known(["s0", "s1", "s2"])
        bases = {name: canonical(decode_object(each.base_text)) for name, each in known.items() if each.base_text}
        assert bases == {skill_id: canonical(fields) for skill_id, fields in self.base.items()}

    @invariant()
    def every_skill_can_be_found(self) -> None:
        connection = self.database.connection
        cached = {row[0] for row in connection.execute("SELECT id FROM skill_cache")}
        assert {row[0] for row in connection.execute("SELECT rowid FROM skill_fts WHERE skill_fts MATCH 'n'")} == cached
        assert connection.execute("SELECT count(*) FROM bulk_write").fetchone()[0] == 0

    def edited_texts(self) -> dict[str, Json]:
        return {
            skill_id: dict(fields)
            for skill_id, fields in self.local.items()
            if skill_id not in self.base or not equal(fields, self.base[skill_id])
        }

    def nothing_vanished(self, edited: dict[str, Json]) -> None:
        """Each local edit is still in the cache, or in the log."""
        cached = self.database.connection.execute("SELECT skill_id, skill_data FROM skill_cache").fetchall()
        logged = self.database.connection.execute(
            "SELECT skill_id, local_data FROM conflict_log UNION ALL SELECT skill_id, resolved_data FROM conflict_log "
            "UNION ALL SELECT subject, json_extract(details, '$.replaced') FROM audit_log"
        ).fetchall()
        kept = [(row[0], json.loads(row[1])) for row in [*cached, *logged] if row[1] is not None]
        for skill_id, fields in edited.items():
            assert any(skill_id == name and equal(fields, other) for name, other in kept), (skill_id, fields)

    def pull(self, strategy: Strategy) -> RunReport:
        return CataloguePull(
            marketplace=self.marketplace,
            catalogue=self.catalogue,
            runs=Runs(self.database),
            clock=self.clock,
            options=PullOptions(strategy=strategy, page_size=2, categories=False, max_delete=MaxDelete(number=100)),
            check=lambda: None,
        ).run(started_by="test")

    def everything(self) -> list[list[Any]]:
        return [
            [tuple(row) for row in self.database.connection.execute(f"SELECT * FROM {table}")]
            for table in ("skill_cache", "skill_base", "conflict_log", "skill_version", "audit_log")
        ]


def equal(left: Json, right: Json) -> bool:
    return bool(_matters(left) == _matters(right))


def followed(local: Json, remote: Json) -> Json:
    return {
        **{name: value for name, value in local.items() if name not in VOLATILE_FIELDS},
        **{name: value for name, value in remote.items() if name in VOLATILE_FIELDS},
    }


def _matters(fields: Json) -> bytes:
    return canonical({name: value for name, value in fields.items() if name not in VOLATILE_FIELDS})


TestTwoSides: Callable[[], Any] = TwoSides.TestCase
# `make fuzz` sets the factor.
TwoSides.TestCase.settings = settings(
    max_examples=120 * int(os.environ.get("FUZZ_FACTOR", "0")) or 40, stateful_step_count=40, deadline=None
)
