"""The contract of `db copy`: everything arrives in an empty database of any engine, or nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from postgres_support import url_of_new_schema
from store_rooms import HOUR, LIST, NOW, Rooms, skill

from atom_saas_sync.core.gate.types import Decision, Offer
from atom_saas_sync.core.location import Location
from atom_saas_sync.core.server_address import read_server_address
from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.model import ConflictFilter, SkillFilter
from atom_saas_sync.store import engine_at, open_store
from atom_saas_sync.store.moving import TABLES
from atom_saas_sync.store.postgresql import schema
from atom_saas_sync.store.sqlite import migrations, revisions
from atom_saas_sync.times import parse_time
from atom_saas_sync.usecases.copy_database import copy_database
from atom_saas_sync.usecases.ports import Store

ONLY_OF_THIS_ENGINE = {"bulk_write", "insert_over", "run_lock", "skill_text", "skill_due"}
EVERYTHING = SkillFilter()


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """Return a location without a database, for each engine."""
    if request.param == "sqlite":
        return tmp_path / "other.db"
    return read_server_address(url_of_new_schema(request.getfixturevalue("postgresql_server")))


@pytest.fixture
def source(store: Rooms) -> Iterator[Store]:
    """Return a database with something in most tables."""
    store.show(skill("a"), skill("b", description="Ein Wort, 言葉"), skill("c"))
    store.edit(skill("a", code="mine"))
    store.show(skill("a", code="theirs"), skill("b"), skill("d"), now=NOW + HOUR)
    store.own_ratings.add("b", "ada", 4, "fine", now=NOW)
    version = skill("e")
    with store.catalogue.batch() as batch:
        held = Offer("e", version.text, version.wire_digest, version.content_digest, version.exec_digest, "1.0.0",
                     2, "hold", "age", NOW + HOUR, NOW, NOW)  # fmt: skip
        batch.gate.put_offers([held], NOW)
        batch.gate.decide([Decision("e", version.content_digest, "approve", NOW, "ada", None)])
        batch.count_requests({("skills", "200"): 3})
    store.runs.stop_scheduling(actor="ada", now=NOW)
    store.runs.begin("skills", started_by="ada", now=NOW)
    with store.engine.open() as opened:
        yield opened


def rows_of(store: Store) -> dict[str, list[dict[str, Any]]]:
    with store.moving_out() as rows:
        return {table: [dict(row) for row in rows.rows(table)] for table in rows.tables()}


def value_of(column: str, value: Any) -> Any:
    """Return a time as a moment: one of less than a second has several forms."""
    return parse_time(value) if column == "at" or column.endswith("_at") else value


def shared(found: dict[str, list[dict[str, Any]]], other: dict[str, list[dict[str, Any]]]) -> list[tuple[Any, ...]]:
    """Return the rows, without the columns that only this engine has."""

    def names(table: str) -> Iterable[str]:
        return found[table][0].keys() & other[table][0].keys() if found[table] and other[table] else ()

    return sorted(
        (
            (table, *(repr(value_of(name, row[name])) for name in sorted(names(table))))
            for table in TABLES
            for row in found[table]
        ),
        key=repr,
    )


def test_all_tables_that_both_engines_have_are_copied() -> None:
    with closing(migrations.build(revisions.NAMES)) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    ours = {name for name in names if not name.startswith(("sqlite_", "skill_fts"))}
    assert (ours | schema.expected_columns().keys()) - ONLY_OF_THIS_ENGINE == set(TABLES)


def test_everything_arrives(source: Store, target: Location) -> None:
    before = rows_of(source)
    with open_store(target) as other:
        counts = copy_database(source, other)
        after = rows_of(other)
        assert shared(after, before) == shared(before, after)
        assert counts == {table: len(before[table]) for table in TABLES}
        assert {name for name, rows in after.items() if rows} >= {
            "skill_cache",
            "skill_offer",
            "conflict_log",
            "counter",
        }
        assert other.maintenance().check(quick=False, signer=None) == []
        found, _ = other.reading(NOW).search("言葉", EVERYTHING)
        assert found == source.reading(NOW).search("言葉", EVERYTHING)[0]
        assert [each.state for each in other.own_ratings().listed()[0]] == ["pending"]
        assert other.runs().scheduling_stopped()


def test_a_copied_database_can_be_used(source: Store, target: Location) -> None:
    with open_store(target) as other:
        copy_database(source, other)
        # New rows get numbers of their own.
        (run,) = source.run_history().list_runs(None)
        assert other.runs().begin("skills", started_by="bob", now=NOW) > run.id
        other.own_ratings().add("c", "bob", 5, None, now=NOW)
        assert len({each.id for each in other.own_ratings().listed()[0]}) == 2
        catalogue = other.catalogue(history_versions=2)
        assert catalogue.page_records(LIST) == source.catalogue(history_versions=2).page_records(LIST)
        numbers = [each.id for each in other.conflicts(history_versions=2).list_conflicts(ConflictFilter())]
        assert numbers == [each.id for each in source.conflicts(history_versions=2).list_conflicts(ConflictFilter())]


def test_a_database_with_rows_takes_nothing(source: Store, target: Location) -> None:
    with open_store(target) as other:
        other.runs().stop_scheduling(actor="ada", now=NOW)
        before = rows_of(other)
        with pytest.raises(DatabaseError, match="is not empty: there are rows in audit_log"):
            copy_database(source, other)
        assert rows_of(other) == before


def copy_some(source: Store, target: Store) -> None:
    with source.moving_out() as rows, target.moving_in() as into:
        for table in rows.tables()[:-1]:
            into.write(table, rows.rows(table))
        raise KeyboardInterrupt


def test_an_interrupted_copy_leaves_nothing(source: Store, target: Location) -> None:
    with open_store(target) as other:
        before = rows_of(other)
        with pytest.raises(KeyboardInterrupt):
            copy_some(source, other)
        assert rows_of(other) == before
        copy_database(source, other)
    assert engine_at(target).is_current()


def test_rows_that_another_program_has_spoilt_arrive_too(tmp_path: Path, postgresql_url: str) -> None:
    path = tmp_path / "odd.db"
    with open_store(path) as source, open_store(read_server_address(postgresql_url)) as other:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("INSERT INTO fact VALUES ('odd', x'ff00', 'yesterday')")
            connection.execute(
                "INSERT INTO skill_cache (skill_id, skill_data, hit_count) VALUES ('odd', x'7bff', 'many')"
            )
        assert copy_database(source, other)["fact"] == 1
        arrived = {row["name"]: row for row in rows_of(other)["fact"]}
        assert arrived["odd"] == {"name": "odd", "value": "\ufffd\ufffd", "updated_at": "1970-01-01T00:00:00Z"}
        assert [row["hit_count"] for row in rows_of(other)["skill_cache"]] == [0]
