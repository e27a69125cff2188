"""SQL by other programs on a server: bases, edits and ratings stay correct."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from server_support import NOON

from atom_saas_sync.store.postgresql.database import Database

HOSTILE = ['{"name": "a\\u0000b"}', '{"name": "\\ud800"}', "no JSON", "[]", '"text"', "null", "1", '{"name": 1}', ""]


def rows(db: Database, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in db.connection.execute(query.encode(), parameters or None)]


def base(db: Database, skill_id: str, text: str, digest: bytes = b"1") -> None:
    """Store a skill as a sync does."""
    with db.transaction(bulk=True) as connection:
        connection.execute("INSERT INTO skill_cache (skill_id, skill_data) VALUES (%s, %s)", (skill_id, text))
        connection.execute(
            "INSERT INTO skill_base (skill_id, wire_digest, content_digest, exec_digest, confirmed_at, version) "
            "VALUES (%s, %s, %s, %s, %s, '1')",
            (skill_id, digest, digest, digest, NOON),
        )
        connection.execute(
            "INSERT INTO skill_text (skill_id, name, head, words) VALUES (%s, 'indexed', '', '')", (skill_id,)
        )


def test_a_write_keeps_the_base_and_makes_the_words_due(db: Database) -> None:
    base(db, "a", "old")
    assert rows(db, "SELECT name, source FROM usable_skill") == [("indexed", "marketplace")]
    db.connection.execute('UPDATE skill_cache SET skill_data = \'{"name": "new"}\'')
    assert rows(db, "SELECT data FROM skill_base") == [("old",)]
    assert rows(db, "SELECT name, source FROM usable_skill") == [("new", "edited")]
    assert rows(db, "SELECT skill_id FROM skill_due") == [("a",)]
    assert rows(db, "SELECT count(*) FROM skill_text") == [(0,)]
    db.connection.execute("UPDATE skill_cache SET skill_data = 'newer'")
    assert rows(db, "SELECT data FROM skill_base") == [("old",)]


def test_writing_the_same_text_or_figures_is_not_an_edit(db: Database) -> None:
    base(db, "a", "old")
    db.connection.execute("UPDATE skill_cache SET skill_data = 'old', hit_count = 3, updated_at = now()")
    assert rows(db, "SELECT data FROM skill_base") == [(None,)]
    assert rows(db, "SELECT count(*) FROM skill_text") == [(1,)]


def test_a_renamed_row_is_a_deleted_and_a_new_one(db: Database) -> None:
    base(db, "a", "old")
    db.connection.execute("UPDATE skill_cache SET skill_id = 'b'")
    assert rows(db, "SELECT data FROM skill_base") == [("old",)]
    assert rows(db, "SELECT skill_id, source FROM usable_skill") == [("b", "local")]
    assert rows(db, "SELECT skill_id FROM skill_due") == [("b",)]


@pytest.mark.parametrize("statement", ["DELETE FROM skill_cache", "TRUNCATE skill_cache"])
def test_edits_and_local_skills_that_others_delete_are_noted(db: Database, statement: str) -> None:
    base(db, "untouched", "same")
    base(db, "edited", "before")
    db.connection.execute("UPDATE skill_cache SET skill_data = 'after' WHERE skill_id = 'edited'")
    db.connection.execute("INSERT INTO skill_cache (skill_id, skill_data) VALUES ('local', 'mine')")
    db.connection.execute(statement.encode())
    noted = rows(db, "SELECT skill_id, data FROM deleted_edit ORDER BY skill_id")
    assert noted == [("edited", "after"), ("local", "mine")]
    assert rows(db, "SELECT skill_id, data FROM skill_base ORDER BY 1") == [("edited", "before"), ("untouched", "same")]
    assert rows(db, "SELECT (SELECT count(*) FROM skill_text) + (SELECT count(*) FROM skill_due)") == [(0,)]


def test_the_triggers_are_disabled_only_during_bulk_writes(db: Database) -> None:
    base(db, "a", "old")
    with db.transaction(bulk=True) as connection:
        connection.execute("UPDATE skill_cache SET skill_data = 'new'")
        connection.execute("DELETE FROM skill_cache")
    assert rows(db, "SELECT data FROM skill_base") == [(None,)]
    assert rows(db, "SELECT count(*) FROM deleted_edit") == [(0,)]
    with db.transaction() as connection:
        assert connection.execute("SELECT current_setting('atom_sync.bulk', true)").fetchone() in {("",), (None,)}


def test_they_work_for_a_role_without_any_right_on_our_tables(db: Database, database_url: str) -> None:
    base(db, "a", "old")
    db.connection.execute("DROP ROLE IF EXISTS guest")
    db.connection.execute("CREATE ROLE guest LOGIN")
    try:
        db.connection.execute(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON public.skill_cache, public.skill_rating TO guest"
        )
        db.connection.execute("GRANT SELECT ON public.usable_skill TO guest")
        with psycopg.connect(database_url.replace("atom@", "guest@"), autocommit=True) as guest:
            guest.execute('UPDATE public.skill_cache SET skill_data = \'{"name": "n"}\'')
            guest.execute("INSERT INTO public.skill_rating (skill_id, user_id, rating) VALUES ('a', 'me', 5)")
            assert guest.execute("SELECT name, source FROM public.usable_skill").fetchall() == [("n", "edited")]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                guest.execute("SELECT * FROM atom_sync.skill_base")
        assert rows(db, "SELECT data FROM skill_base") == [("old",)]
        assert rows(db, "SELECT id, synced_to_saas FROM skill_ratings") == [("1", False)]
    finally:
        db.connection.execute("DROP OWNED BY guest")
        db.connection.execute("DROP ROLE guest")


def test_no_text_fails_a_view(db: Database) -> None:
    for number, text in enumerate(HOSTILE):
        db.connection.execute("INSERT INTO skill_cache (skill_id, skill_data) VALUES (%s, %s)", (f"s{number}", text))
    db.connection.execute(
        "INSERT INTO gate_revocation (publisher, source, added_at, added_by) VALUES ('p', 'file', now(), 'me')"
    )
    assert rows(db, "SELECT name FROM usable_skill") == [(None,)] * len(HOSTILE)
    held = rows(db, "SELECT skill_id FROM public.skill_cache WHERE skill_data IS NULL")
    assert {number for (number,) in held} == {f"s{number}" for number in (0, 1, 2, 8)}


def test_rows_without_an_expiry_never_expire(db: Database) -> None:
    db.connection.execute("INSERT INTO skill_cache (skill_id, skill_data, expires_at) VALUES ('a', '', NULL)")
    db.connection.execute("INSERT INTO category_cache (category_name, category_data) VALUES ('c', '')")
    db.connection.execute("UPDATE category_cache SET expires_at = NULL")
    for table in ("skill_cache", "category_cache"):
        assert rows(db, f"SELECT expires_at::text FROM {table}") == [("9999-12-31 23:59:59+00",)]


def test_a_quarantined_and_a_revoked_skill_are_not_usable(db: Database) -> None:
    for skill_id, author in (("a", "good"), ("b", "BAD"), ("c", "good"), ("d", "good")):
        base(db, skill_id, f'{{"version": "2", "metadata": {{"author": "{author}"}}}}', skill_id.encode())
    insert = "INSERT INTO gate_revocation (skill_id, version, digest, publisher, source, added_at, added_by) "
    db.connection.execute(f"{insert} VALUES (NULL, NULL, NULL, 'bad', 'file', now(), 'me')".encode())
    db.connection.execute(f"{insert} VALUES ('c', '2', NULL, NULL, 'file', now(), 'me')".encode())
    assert rows(db, "SELECT skill_id FROM usable_skill ORDER BY 1") == [("a",), ("d",)]
    db.connection.execute(
        "INSERT INTO gate_quarantine (skill_id, skill_data, content_digest, reason, served_source, at, by) "
        "VALUES ('d', '', '', 'quarantined', 'marketplace', now(), 'me')"
    )
    assert rows(db, "SELECT skill_id FROM usable_skill") == [("a",)]


def test_a_base_that_ends_is_remembered(db: Database) -> None:
    base(db, "a", "old", b"1")
    db.connection.execute("UPDATE skill_base SET confirmed_at = now(), content_digest = content_digest")
    assert rows(db, "SELECT count(*) FROM skill_seen") == [(0,)]
    db.connection.execute("UPDATE skill_base SET content_digest = '2', version = '2', signature = 's'")
    db.connection.execute("DELETE FROM skill_base")
    seen = rows(db, "SELECT content_digest, version, signature FROM skill_seen ORDER BY content_digest")
    assert seen == [(b"1", "1", None), (b"2", "2", b"s")]


def test_a_thousand_versions_are_remembered_and_those_that_were_decided_about(db: Database) -> None:
    insert = (
        "INSERT INTO skill_seen (skill_id, content_digest, exec_digest, version, seen_at) "
        "SELECT 'a', int4send(n), '', '', '2026-01-01'::timestamptz + n * interval '1 s' FROM generate_series({}) AS n"
    )
    db.connection.execute(insert.format("1, 1000").encode())
    db.connection.execute(
        "INSERT INTO gate_decision (skill_id, content_digest, kind, at, by) "
        "VALUES ('a', int4send(1), 'approve', now(), 'me')"
    )
    db.connection.execute(insert.format("1001, 1003").encode())
    left = rows(
        db,
        "SELECT count(*), bool_or(content_digest = int4send(1)), bool_or(content_digest = int4send(3)) FROM skill_seen",
    )
    assert left == [(1001, True, False)]


def test_a_rating_that_others_write_waits_to_be_sent(db: Database) -> None:
    db.connection.execute(
        "INSERT INTO skill_rating (skill_id, user_id, rating, synced_to_saas, id) VALUES ('a', 'me', 4, true, '1')"
    )
    db.connection.execute("INSERT INTO skill_rating (skill_id, user_id, rating) VALUES ('b', 'me', 4)")
    db.connection.execute("INSERT INTO skill_rating (skill_id, user_id, rating) VALUES ('c', 'me', 4)")
    assert rows(
        db, "SELECT count(DISTINCT id), count(DISTINCT version), bool_or(synced_to_saas) FROM skill_ratings"
    ) == [(3, 3, False)]
    with db.transaction(bulk=True) as connection:
        connection.execute("UPDATE skill_ratings SET synced_to_saas = true, remote_rating_id = 'r', base_digest = 'd'")
    (before,) = rows(db, "SELECT version, updated_at FROM skill_ratings WHERE skill_id = 'a'")
    db.connection.execute(
        "INSERT INTO failed_rating_upload (rating_id, error_message, failed_at) VALUES ('1', 'no', now())"
    )
    assert rows(db, "SELECT next_retry_at IS NOT NULL, length(id) FROM failed_rating_uploads") == [(True, 32)]
    db.connection.execute("UPDATE skill_rating SET rating = 5, updated_at = updated_at WHERE skill_id = 'a'")
    after = rows(db, "SELECT version, synced_to_saas, remote_rating_id FROM skill_ratings WHERE skill_id = 'a'")[0]
    assert after[0] != before[0]
    assert after[1:] == (False, "r")
    assert rows(db, "SELECT count(*) FROM failed_rating_uploads") == [(0,)]
    db.connection.execute("UPDATE skill_rating SET user_id = 'you' WHERE skill_id = 'a'")
    assert rows(db, "SELECT remote_rating_id, base_digest FROM skill_ratings WHERE skill_id = 'a'") == [(None, None)]
    db.connection.execute("UPDATE skill_ratings SET helpful_count = 3 WHERE skill_id = 'b'")
    assert rows(db, "SELECT synced_to_saas FROM skill_ratings WHERE skill_id = 'b'") == [(True,)]


def test_resolved_and_its_time_agree_whichever_is_set(db: Database) -> None:
    insert = "INSERT INTO conflict_log (skill_id, conflict_type, severity{}) VALUES ('a', 'T', 'LOW'{})"
    state = "SELECT resolved, resolved_at IS NOT NULL, applied FROM conflict_log"
    db.connection.execute(insert.format(", resolved, local_data, remote_data", ", true, NULL, 'null'").encode())
    assert rows(db, state) == [(True, True, False)]
    assert rows(db, "SELECT local_data, remote_data FROM conflict_log") == [("{}", "{}")]
    for change, expected in (
        ("applied = true", (True, True, True)),
        ("resolved = false", (False, False, False)),
        ("resolved_at = now()", (True, True, False)),
        ("applied = true, resolved_at = now()", (True, True, True)),
        ("resolved_at = NULL", (False, False, False)),
        ("resolved = true", (True, True, False)),
    ):
        db.connection.execute(f"UPDATE conflict_log SET {change}".encode())
        assert rows(db, state) == [expected], change


@pytest.mark.parametrize(
    ("text", "about_skill"),
    [
        ('{"rating_id": 1}', False),
        ('{"rating_id": null}', False),
        ('{"rating_id": 1, "name": "n"}', True),
        ("{}", True),
        ("no JSON", True),
        ('["rating_id"]', True),
        ('{"rating_id": "\\u0000\\ud800"}', False),
        ('{"rating_id": "\\\\u0000", "name": "n"}', True),
    ],
)
def test_conflicts_of_ratings_are_distinguished_from_conflicts_of_skills(
    db: Database, text: str, about_skill: bool
) -> None:
    insert = "INSERT INTO conflict_log (skill_id, conflict_type, severity, remote_data) VALUES ('a', 'T', 'LOW', %s)"
    db.connection.execute(insert, (text,))
    assert rows(db, "SELECT about_skill FROM conflict_log") == [(about_skill,)]
