"""Messages in any order, any number of times, have the same result as one poll of the final state."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Json, Machine
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_databases import FileDatabase, new_database
from watch_support import plain

from atom_saas_sync.core.canonical import json_text
from atom_saas_sync.core.deletions import MaxDelete
from atom_saas_sync.core.incoming.messages import Message, parse_frame
from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.times import format_time
from atom_saas_sync.usecases.follow_events import EventFollower

BEGAN = datetime(2040, 1, 1, tzinfo=UTC)
NAMES = ("a", "b", "c", "d", "e", "f")
GROUPS = {"Spiele", "Briefe"}
TEXTS = st.sampled_from(["one", "two", "drei é", "四", "e\u0301"])

whole = st.tuples(st.just("whole"), st.sampled_from(NAMES), TEXTS, st.booleans())
part = st.tuples(st.just("part"), st.sampled_from(NAMES), TEXTS, st.booleans())
gone = st.tuples(st.just("gone"), st.sampled_from(NAMES), TEXTS, st.booleans())
rated = st.tuples(st.just("rated"), st.sampled_from(NAMES), TEXTS, st.booleans())
category = st.tuples(st.just("category"), st.sampled_from(sorted(GROUPS)), TEXTS, st.booleans())
Step = tuple[str, str, str, bool]


@dataclass
class Marketplace:
    """What a marketplace has after some steps, and the messages that it sent about them."""

    skills: dict[str, Json] = field(default_factory=dict)
    categories: dict[str, Json] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)

    def take(self, step: Step) -> None:
        """Do one step, a second after the last one. `flag` decides whether the message says updated_at."""
        kind, key, text, flag = step
        number = len(self.messages) + 1
        moment = format_time(BEGAN + timedelta(seconds=number))
        stored = self.skills.get(key)
        if kind == "whole" or (kind == "part" and stored is None):
            figures = {"average_rating": 1.0 + number % 4, "rating_count": number}
            fresh = {"skill_id": key, "name": f"{key} {text}", "description": text, "code": f"x = {number}", **figures}
            data = {**fresh, "tags": [text], "version": str(number), "updated_at": moment}
            self.skills[key] = data
            self._send("skill_update", data, moment)
        elif kind == "part":
            news = {"skill_id": key, "name": f"{key} {text}", "version": str(number)}
            news |= {"updated_at": moment} if flag else {}
            self.skills[key] |= news
            self._send("skill_update", news, moment)
        elif kind == "gone":
            self.skills.pop(key, None)
            self._send("skill_delete", {"skill_id": key}, moment)
        elif kind == "rated":
            figures = {"average_rating": 1.0 + number % 3, "rating_count": number}
            if stored is not None:
                self.skills[key] = {**stored, **figures}
            self._send("rating_update", {"skill_id": key, "rating": 4, **figures}, moment)
        else:
            self.categories[key] = {"name": key, "description": text}
            self._send("category_update", self.categories[key], moment)

    def _send(self, kind: str, data: Json, moment: str) -> None:
        parsed = parse_frame(json_text({"type": kind, "data": data, "timestamp": moment}))
        assert isinstance(parsed, Message)
        self.messages.append(parsed)


@pytest.fixture(scope="module")
def room() -> Iterator[tuple[Sandbox, Path]]:
    """Return an empty marketplace, and a place for databases with one empty one in it."""
    with Sandbox(skills=0) as sandbox, tempfile.TemporaryDirectory() as directory:
        for name in ("followed", "polled"):
            Path(directory, name).mkdir()
        yield sandbox, Path(directory)


def compare(room: tuple[Sandbox, Path], marketplace: Marketplace, delivered: Sequence[Message], size: int) -> None:
    """Deliver messages in batches of that size, and compare with one poll of the final state."""
    sandbox, directory = room
    sandbox.reset()
    for skill in marketplace.skills.values():
        sandbox.state.put_skill(skill)
    for name, fields in marketplace.categories.items():
        sandbox.put_category(name, description=fields["description"], push=False)
    followed, polled = (Machine(sandbox, directory) for _ in range(2))
    for machine, name in ((followed, "followed"), (polled, "polled")):
        for old in (directory / name).glob("atom.db*"):
            old.unlink()
        machine.database = new_database(machine.engine_name, directory / name)
    with followed.store() as store:
        follower = EventFollower(
            store.events(history_versions=10), strategy="remote_wins", max_delete=MaxDelete(number=1000)
        )
        for start in range(0, len(delivered), size):
            follower.apply(delivered[start : start + size], BEGAN)
    assert polled.pull().status == "success"
    assert state(followed) == state(polled)
    assert followed.cached() == {name: sandbox.skill(name) for name in sandbox.skill_ids()}
    assert followed.sql("SELECT count(*) FROM conflict_log") == [(0,)]


def state(machine: Machine) -> dict[str, Any]:
    """Return what is known of the marketplace, and the words that a search would find."""
    known = plain(machine)
    # Without what only the list says: the other categories, how often one is used, when it began.
    known["categories"] = {
        name: known["categories"][name]["description"] for name in GROUPS & known["categories"].keys()
    }
    known["words"] = words(machine)
    return known


def words(machine: Machine) -> list[Any]:
    if not isinstance(machine.database, FileDatabase):
        return machine.sql("SELECT skill_id, head::text, words::text FROM skill_text ORDER BY skill_id")
    with closing(sqlite3.connect(machine.database_path)) as connection:
        connection.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, skill_fts, row)")
        return connection.execute("SELECT term, doc, cnt FROM words ORDER BY term").fetchall()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(whole | part | gone | rated | category, min_size=1, max_size=25),
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=10),
    st.integers(1, 30),
)
def test_in_order_with_repetitions(
    room: tuple[Sandbox, Path], steps: list[Step], repeated: list[tuple[int, int]], size: int
) -> None:
    marketplace = Marketplace()
    for step in steps:
        marketplace.take(step)
    delivered = list(marketplace.messages)
    for place, which in repeated:
        at = place % len(delivered) + 1
        delivered.insert(at, delivered[which % at])
    compare(room, marketplace, delivered, size)


@settings(max_examples=40, deadline=None)
@given(st.lists(whole | gone | category, min_size=1, max_size=15), st.data(), st.integers(1, 30))
def test_whole_skills_and_deletions_in_any_order(
    room: tuple[Sandbox, Path], steps: list[Step], data: st.DataObject, size: int
) -> None:
    marketplace = Marketplace()
    for step in steps:
        marketplace.take(step)
    shuffled = data.draw(st.permutations(marketplace.messages))
    again = data.draw(st.lists(st.sampled_from(marketplace.messages), max_size=5))
    compare(room, marketplace, [*shuffled, *again], size)


@settings(max_examples=40, deadline=None)
@given(st.lists(whole | rated, min_size=1, max_size=15), st.data(), st.integers(1, 30))
def test_ratings_of_a_known_skill_in_any_order(
    room: tuple[Sandbox, Path], steps: list[Step], data: st.DataObject, size: int
) -> None:
    marketplace = Marketplace()
    for step in [*(("whole", name, "one", True) for name in NAMES), *steps]:
        marketplace.take(step)
    first, rest = marketplace.messages[: len(NAMES)], marketplace.messages[len(NAMES) :]
    shuffled = data.draw(st.permutations(rest))
    again = data.draw(st.lists(st.sampled_from(rest), max_size=5))
    compare(room, marketplace, [*first, *shuffled, *again], size)
