"""The gate's tables and the view for other programs, which use plain SQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from store_support import plain

from atom_saas_sync.core.canonical import version_from_fields, version_key
from atom_saas_sync.core.gate.types import Decision, Offer
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import SkillVersion
from atom_saas_sync.store.packing import pack
from atom_saas_sync.store.sqlite import maintenance, migrations
from atom_saas_sync.store.sqlite.catalogue import Catalogue
from atom_saas_sync.store.sqlite.database import Database

NOW = datetime(2026, 2, 19, 12, 0, tzinfo=UTC)
A, B, C = (bytes([number]) * 32 for number in range(3))


@pytest.fixture
def other(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Return another program's connection to a database that serves one skill, `a` by `Acme`."""
    path = tmp_path / "atom.db"
    with Database.open(path) as database, database.transaction() as connection:
        text = json.dumps({"skill_id": "a", "version": "1.0", "metadata": {"author": "Acme"}})
        connection.execute("INSERT INTO skill_cache (skill_id, skill_data) VALUES ('a', ?)", (text,))
        connection.execute(
            "INSERT INTO skill_base (skill_id, wire_digest, content_digest, exec_digest, version, confirmed_at, "
            "admitted_at) VALUES ('a', x'00', ?, ?, '1.0', '2026-02-19T12:00:00Z', '2026-02-19T12:00:00.123456Z')",
            (A, B),
        )
    with plain(path) as connection:
        yield connection


def offer_of(version: SkillVersion) -> Offer:
    return Offer(
        skill_id=version.skill_id,
        text=version.text,
        wire_digest=version.wire_digest,
        content_digest=version.content_digest,
        exec_digest=version.exec_digest,
        version=version_key(version.fields),
        page=1,
        kind="hold",
        reason="review",
        due_at=None,
        first_seen_at=NOW,
        offered_at=NOW,
    )


def served(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT skill_id FROM usable_skill")]


def test_the_view_shows_who_admitted_what(other: sqlite3.Connection) -> None:
    columns = "content_digest, exec_digest, admitted_at, admitted_by"
    row = other.execute(f"SELECT {columns} FROM usable_skill").fetchone()
    assert tuple(row) == (A.hex(), B.hex(), "2026-02-19T12:00:00Z", "policy")
    other.execute("UPDATE skill_cache SET skill_data = json_set(skill_data, '$.name', 'mine')")
    row = other.execute(f"SELECT {columns} FROM usable_skill").fetchone()
    assert tuple(row) == (None, None, "2026-02-19T12:00:00Z", "policy")
    other.execute("DELETE FROM skill_base")
    assert tuple(other.execute(f"SELECT {columns} FROM usable_skill").fetchone()) == (None,) * 4


@pytest.mark.parametrize(
    ("columns", "hits"),
    [
        ({"skill_id": "a"}, True),
        ({"skill_id": "b"}, False),
        ({"skill_id": "a", "version": "1.0"}, True),
        ({"skill_id": "a", "version": "2.0"}, False),
        ({"digest": A}, True),
        ({"digest": B}, False),
        ({"publisher": "ACME"}, True),
        ({"publisher": "Acm"}, False),
    ],
    ids=str,
)
def test_the_view_leaves_out_what_is_revoked(other: sqlite3.Connection, columns: dict[str, object], hits: bool) -> None:
    names = ", ".join(columns)
    other.execute(
        f"INSERT INTO gate_revocation ({names}, source, added_at, added_by) "
        f"VALUES ({', '.join('?' * len(columns))}, 'command', '2026-02-19T12:00:00Z', 'anna')",
        [*columns.values()],
    )
    assert served(other) == ([] if hits else ["a"])


@pytest.mark.parametrize(
    ("reason", "digest", "hits"),
    [("quarantined", C, True), ("revoked", A, True), ("revoked", C, False), ("denied", C, False)],
    ids=["by a person", "its digest", "another digest", "another digest by rule"],
)
def test_the_view_leaves_out_what_is_in_quarantine(
    other: sqlite3.Connection, reason: str, digest: bytes, hits: bool
) -> None:
    other.execute(
        "INSERT INTO gate_quarantine (skill_id, skill_data, content_digest, reason, served_source, at, by) "
        "VALUES ('a', '{}', ?, ?, 'marketplace', '2026-02-19T12:00:00Z', 'anna')",
        (digest, reason),
    )
    assert served(other) == ([] if hits else ["a"])


def test_a_digest_that_a_decision_names_is_never_forgotten(other: sqlite3.Connection) -> None:
    other.execute(
        "INSERT INTO gate_decision (skill_id, content_digest, kind, at, by) VALUES ('a', ?, 'reject', 'then', 'anna')",
        ((0).to_bytes(32, "big"),),
    )
    other.executemany(
        "INSERT INTO skill_seen (skill_id, content_digest, exec_digest, version, seen_at) VALUES ('a', ?, ?, '1', ?)",
        [(number.to_bytes(32, "big"), A, f"{number:06}") for number in range(1005)],
    )
    kept = {row[0] for row in other.execute("SELECT content_digest FROM skill_seen")}
    assert len(kept) == 1001
    assert (0).to_bytes(32, "big") in kept
    assert (1).to_bytes(32, "big") not in kept


def test_a_former_base_keeps_when_it_was_first_seen_and_admitted(other: sqlite3.Connection) -> None:
    other.execute("INSERT INTO skill_seen (skill_id, content_digest, exec_digest, version, first_seen_at) "
                  "VALUES ('a', ?, ?, '1.0', '2026-01-01T00:00:00.000000Z')", (A, B))  # fmt: skip
    other.execute("UPDATE skill_base SET content_digest = ?, admitted_at = '2026-03-01T00:00:00.000000Z'", (C,))
    other.execute("DELETE FROM skill_base")
    rows = other.execute("SELECT content_digest, first_seen_at, admitted_at FROM skill_seen ORDER BY 1").fetchall()
    assert [tuple(row) for row in rows] == [
        (A, "2026-01-01T00:00:00.000000Z", "2026-02-19T12:00:00.123456Z"),
        (C, "2026-03-01T00:00:00.000000Z", "2026-03-01T00:00:00.000000Z"),
    ]


def test_skills_served_before_the_gate_are_adopted(tmp_path: Path) -> None:
    with Database.open(tmp_path / "old.db", migrate=False) as database:
        migrations.upgrade(database, "0021_deleted_edits")
        database.connection.execute(
            "INSERT INTO skill_base (skill_id, wire_digest, content_digest, exec_digest, confirmed_at) "
            "VALUES ('a', x'00', x'00', x'00', '2026-02-19T12:00:00Z')"
        )
        migrations.upgrade(database)
        rows = database.connection.execute("SELECT admitted_by, admitted_at > '2026' FROM skill_base").fetchall()
    assert [tuple(row) for row in rows] == [("adopted", 1)]


def test_a_waiting_version_that_another_program_changed_is_nothing_to_admit(tmp_path: Path) -> None:
    path = tmp_path / "atom.db"
    fine, changed = (version_from_fields(name, {"skill_id": name, "name": name}) for name in ("fine", "changed"))
    with Database.open(path) as database:
        catalogue = Catalogue(database, history_versions=10)
        with catalogue.batch() as batch:
            batch.gate.put_offers([offer_of(fine), offer_of(changed)], NOW)
        evil = pack(b'{"skill_id": "changed", "name": "evil"}')
        for data in (evil, b"not packed", "text", pack(b"\xff")):
            database.connection.execute("UPDATE skill_offer SET data = ? WHERE skill_id = 'changed'", (data,))
            with catalogue.batch(write=False) as batch:
                texts = {name: each.text for name, each in batch.gate.offers(["fine", "changed"]).items()}
            assert texts == {"fine": fine.text, "changed": ""}
            types = ["types"] if isinstance(data, str) else []
            assert [each.check for each in maintenance.check(database)] == [*types, "tampered"]
            assert catalogue.respelled() == ["changed"]
        catalogue.distrust(["changed"])
        assert catalogue.digests_on_page(1) == {fine.wire_digest: "fine"}


@pytest.mark.parametrize("table", ["gate_revocation", "gate_quarantine"])
def test_a_quarantined_skill_restored_by_another_program_is_a_finding(
    tmp_path: Path, other: sqlite3.Connection, table: str
) -> None:
    if table == "gate_revocation":
        other.execute(
            "INSERT INTO gate_revocation (publisher, source, added_at, added_by) VALUES ('acme', 'command', '', '')"
        )
    else:
        other.execute(
            "INSERT INTO gate_quarantine (skill_id, skill_data, content_digest, reason, served_source, at, by) "
            "VALUES ('a', '', x'', 'quarantined', 'local', '', '')"
        )
    with Database.open(tmp_path / "atom.db", read_only=True) as database:
        checks = [each.check for each in maintenance.check(database)]
    assert {"gate_revocation": "revoked", "gate_quarantine": "quarantined"}[table] in checks


def test_with_a_key_an_approval_that_another_program_wrote_does_not_count(tmp_path: Path) -> None:
    version = version_from_fields("a", {"skill_id": "a"})
    ours, theirs = (Decision("a", version.content_digest, "approve", NOW, name) for name in ("ada", "eve"))
    with Database.open(tmp_path / "atom.db") as database:
        signed = Catalogue(database, history_versions=10, signer=Signer(b"k" * 32))
        plain_ = Catalogue(database, history_versions=10)
        with signed.batch() as batch:
            batch.gate.decide([ours])
        with plain_.batch() as batch:
            batch.gate.decide([theirs])
            assert batch.gate.evidence([version])["a"].decision == theirs
        with signed.batch(write=False) as batch:
            assert batch.gate.evidence([version])["a"].decision == ours
        # Neither its own signature on something else, nor a rejection that is not signed.
        database.connection.execute("UPDATE gate_decision SET by = 'eve' WHERE by = 'ada'")
        with signed.batch(write=False) as batch:
            assert batch.gate.decisions() == []
        database.connection.execute("UPDATE gate_decision SET kind = 'reject'")
        with signed.batch(write=False) as batch:
            assert {each.kind for each in batch.gate.decisions()} == {"reject"}
