"""A list that changes while several connections read it: in any order of the answers, nothing that stays is lost."""

from __future__ import annotations

import json
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import FakeClock
from hypothesis import example, given, settings
from hypothesis import strategies as st
from machine_databases import FileDatabase
from test_sync_stateful import FakeMarketplace

from atom_saas_sync.core.deletions import MaxDelete
from atom_saas_sync.model import FetchedPage, RunReport
from atom_saas_sync.store.sqlite.catalogue import Catalogue
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.runs import Runs
from atom_saas_sync.usecases import prefetch
from atom_saas_sync.usecases.pull_catalogue import CataloguePull, PullOptions

PATIENCE = 60.0


class DriftingMarketplace(FakeMarketplace):
    """Changes its list between two requests, and answers those under way in the order of their ranks."""

    def __init__(self, skills: int) -> None:
        super().__init__()
        self.made = 0
        self.drift: dict[int, str] = {}
        self.ranks: list[int] = []
        self.asked = 0
        self._under_way: set[int] = set()
        self._changed = threading.Condition()
        for _ in range(skills):
            self.change("add last")

    def change(self, how: str) -> None:
        """Change the list at its beginning or its end."""
        self.made += 1
        what, where = how.split()
        ids = list(self.skills)
        if what == "add":
            new = {f"s{self.made}": {"skill_id": f"s{self.made}", "name": "n", "code": "a"}}
            self.skills = {**new, **self.skills} if where == "first" else {**self.skills, **new}
        elif ids:
            chosen = ids[0 if where == "first" else -1]
            if what == "remove":
                del self.skills[chosen]
            else:
                self.skills[chosen] = {**self.skills[chosen], "code": f"a{self.made}"}

    def list_skills(self, page: int, page_size: int, etag: str | None = None, **options: Any) -> FetchedPage:
        with self._changed:
            self.asked += 1
            if self.asked in self.drift:
                self.change(self.drift[self.asked])
            rank = self.ranks[self.asked % len(self.ranks)] * 1000 + self.asked
            found = super().list_skills(page, page_size, etag, **options)
            self._under_way.add(rank)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: rank == min(self._under_way), PATIENCE)
            self._under_way.remove(rank)
            self._changed.notify_all()
        return found


def pull(marketplace: FakeMarketplace, database: Database, page_size: int, connections: int) -> RunReport:
    return CataloguePull(
        marketplace=marketplace,
        catalogue=Catalogue(database, history_versions=10),
        runs=Runs(database),
        clock=FakeClock(),
        options=PullOptions(strategy="remote_wins", page_size=page_size, max_delete=MaxDelete(number=100)),
        check=lambda: None,
        connections=connections,
    ).run(started_by="tester")


def cached(database: Database) -> dict[str, Any]:
    rows = database.connection.execute("SELECT skill_id, skill_data FROM skill_cache").fetchall()
    return {skill_id: json.loads(text) for skill_id, text in rows}


@settings(max_examples=15, deadline=None)
@given(
    skills=st.integers(0, 12),
    drift=st.dictionaries(
        st.integers(1, 12),
        st.sampled_from(["add first", "add last", "remove first", "remove last", "change first", "change last"]),
        max_size=4,
    ),
    ranks=st.permutations(range(8)),
    page_size=st.integers(1, 4),
    connections=st.integers(2, 6),
)
@example(
    skills=2,
    drift={1: "remove first", 2: "add first", 3: "add last", 4: "remove last"},
    ranks=list(range(8)),
    page_size=1,
    connections=2,
)
def test_a_list_that_drifts_in_any_way_is_right_after_the_next_sync(
    skills: int, drift: dict[int, str], ranks: list[int], page_size: int, connections: int
) -> None:
    marketplace = DriftingMarketplace(skills)
    marketplace.ranks = ranks
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefetch, "PATIENCE_SECONDS", 0.0)
        path = Path(directory) / "atom.db"
        FileDatabase(path).prepare()
        database = Database.open(path)
        try:
            pull(marketplace, database, page_size, connections)
            before = set(marketplace.skills)
            marketplace.drift = {marketplace.asked + number: how for number, how in drift.items()}
            report = pull(marketplace, database, page_size, connections)
            assert report.status in {"success", "partial"}
            assert before & set(marketplace.skills) <= set(cached(database)), "nothing is lost that stayed"
            marketplace.drift = {}
            assert pull(marketplace, database, page_size, connections).status == "success"
            assert cached(database) == marketplace.skills
        finally:
            database.close()
