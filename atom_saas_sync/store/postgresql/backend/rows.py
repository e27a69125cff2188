"""Merge the rows that the Atom backend had before its tables were shared with ours, in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg

from atom_saas_sync.core.canonical import (
    content_digest,
    decode_object,
    exec_digest,
    stored_version,
    version_key,
)
from atom_saas_sync.store.backend_tables import BY_NAME
from atom_saas_sync.store.postgresql.backend import triggers
from atom_saas_sync.store.postgresql.backend.tables import declared_types
from atom_saas_sync.store.postgresql.history import keep_local
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.postgresql.skill_text import entry_of, write_entries

_AT_ONCE = 500
_LONG_AGO = datetime.fromtimestamp(0, UTC)  # the time of confirmation for rows that existed already
_NEW_VERSION = "replace(gen_random_uuid()::text, '-', '')"
_TAKE_SKILLS = """
    INSERT INTO skill_cache
        (skill_id, skill_data, expires_at, created_at, updated_at, tenant_id, hit_count, last_hit_at)
    SELECT skill_id, skill_data::text, expires_at, coalesce(created_at, now()), coalesce(updated_at, now()), tenant_id,
        hit_count, last_hit_at
    FROM public.skill_cache WHERE skill_id = ANY(%s)
    RETURNING skill_id, skill_data
"""
_BASES = """
    INSERT INTO skill_base (skill_id, wire_digest, content_digest, exec_digest, confirmed_at, version)
    SELECT skill_id, '', content_digest, exec_digest, %s, version
    FROM unnest(%b::text[], %b::bytea[], %b::bytea[], %b::text[])
        AS new (skill_id, content_digest, exec_digest, version)
    ON CONFLICT (skill_id) DO NOTHING
"""
# The backend's ids stay: our rows get new ids where it uses the same one for another row.
_TAKE = {
    "category_cache": (
        """
        INSERT INTO category_cache
            (category_name, category_data, expires_at, created_at, updated_at, tenant_id, hit_count, last_hit_at)
        SELECT category_name, category_data::text, expires_at, coalesce(created_at, now()), coalesce(updated_at, now()),
            tenant_id, hit_count, last_hit_at
        FROM public.category_cache ON CONFLICT (category_name) DO NOTHING
        """,
    ),
    "conflict_log": (
        """
        UPDATE conflict_log AS o SET id = nextval(pg_get_serial_sequence('public.conflict_log', 'id'))
        FROM public.conflict_log AS t
        WHERE t.id = o.id AND (t.skill_id, t.created_at) IS DISTINCT FROM (o.skill_id, o.created_at)
        """,
        """
        INSERT INTO conflict_log (id, skill_id, conflict_type, severity, local_data, remote_data, resolution_strategy,
            resolved_data, resolved_at, resolved_by, created_at, updated_at, tenant_id, resolved, applied)
        SELECT id, skill_id, conflict_type, severity, local_data::text, remote_data::text, resolution_strategy,
            resolved_data::text, resolved_at, resolved_by, created_at, coalesce(updated_at, now()), tenant_id,
            resolved_at IS NOT NULL, resolved_at IS NOT NULL
        FROM public.conflict_log ON CONFLICT (id) DO NOTHING
        """,
    ),
    "skill_ratings": (
        # Of two ratings of one skill by one user the newer one stays, under the backend's id.
        """
        DELETE FROM skill_ratings AS o USING public.skill_ratings AS t
        WHERE t.skill_id = o.skill_id AND t.user_id = o.user_id AND t.id <> o.id AND t.updated_at > o.updated_at
        """,
        """
        UPDATE skill_ratings AS o SET id = t.id FROM public.skill_ratings AS t
        WHERE t.skill_id = o.skill_id AND t.user_id = o.user_id AND t.id <> o.id
        """,
        f"""
        INSERT INTO skill_ratings (id, tenant_id, skill_id, user_id, rating, review, synced_to_saas, synced_at,
            remote_rating_id, is_flagged, is_visible, helpful_count, not_helpful_count, created_at, updated_at, version)
        SELECT id, tenant_id, skill_id, user_id, rating, review, synced_to_saas, synced_at, remote_rating_id,
            is_flagged, is_visible, helpful_count, not_helpful_count, created_at, coalesce(updated_at, now()),
            {_NEW_VERSION}
        FROM public.skill_ratings ON CONFLICT (id) DO NOTHING
        """,  # noqa: S608 - constants
    ),
    "failed_rating_uploads": (
        """
        INSERT INTO failed_rating_uploads (id, rating_id, error_message, failed_at, last_retry_at, retry_count,
            max_retries, tenant_id, next_retry_at)
        SELECT id, rating_id, error_message, failed_at, last_retry_at, retry_count, max_retries, tenant_id,
            CASE WHEN retry_count < max_retries THEN date_trunc('second', now()) END
        FROM public.failed_rating_uploads AS t
        WHERE EXISTS (SELECT FROM skill_ratings AS r WHERE r.id = t.rating_id) ON CONFLICT (id) DO NOTHING
        """,
    ),
}


def join(connection: psycopg.Connection[Row], names: Sequence[str], now: datetime) -> None:
    """Copy the backend's rows into our tables and ours into its tables.

    For a skill in both, ours stays, and the backend's text goes into the history if its content differs.
    """
    with mirrored(connection, names):
        if "skill_cache" in names:
            _take_skills(connection)
            _keep_others(connection, now)
        if "conflict_log" in names:
            _number_on(connection)
        for name in names:
            if name in triggers.STATES:
                _take_state(connection, name)
            for statement in _TAKE.get(name, ()):
                connection.execute(statement)


@contextmanager
def mirrored(connection: psycopg.Connection[Row], names: Sequence[str]) -> Iterator[None]:
    """Disable the triggers during the block; then make the backend's tables equal to ours.

    Rows that jsonb cannot hold or the backend's keys do not allow are left out.
    """
    connection.execute("SET LOCAL atom_sync.bulk = 'on'")
    connection.execute("SET LOCAL atom_sync.mirror = 'on'")
    yield
    for name in reversed(names):
        connection.execute(triggers.remove_surplus(name).encode())
    for name in names:
        for statement in triggers.fill(name, declared_types(connection, name)):
            connection.execute(statement.encode())
    if "conflict_log" in names:
        _number_on(connection)
    connection.execute("SET LOCAL atom_sync.mirror = 'off'")


def _take_skills(connection: psycopg.Connection[Row]) -> None:
    """Copy the skills that only the backend has: they count as the marketplace's, confirmed at an unknown time."""
    rows = connection.execute(
        "SELECT t.skill_id FROM public.skill_cache AS t "
        "WHERE NOT EXISTS (SELECT FROM skill_cache AS o WHERE o.skill_id = t.skill_id)"
    ).fetchall()
    for ids in _chunks([row[0] for row in rows]):
        taken = [(skill_id, text, decode_object(text)) for skill_id, text in connection.execute(_TAKE_SKILLS, (ids,))]
        write_entries(connection, [entry_of(skill_id, text, fields or {}) for skill_id, text, fields in taken])
        connection.execute(
            _BASES,
            (
                _LONG_AGO,
                [skill_id for skill_id, _, _ in taken],
                [b"" if fields is None else content_digest(fields) for _, _, fields in taken],
                [b"" if fields is None else exec_digest(fields) for _, _, fields in taken],
                [version_key(fields or {}) for _, _, fields in taken],
            ),
        )


def _keep_others(connection: psycopg.Connection[Row], now: datetime) -> None:
    rows = connection.execute(
        "SELECT t.skill_id FROM public.skill_cache AS t JOIN skill_cache AS o ON o.skill_id = t.skill_id "
        "WHERE atom_sync_jsonb(o.skill_data) IS DISTINCT FROM t.skill_data::jsonb"
    ).fetchall()
    for ids in _chunks([row[0] for row in rows]):
        texts = connection.execute(
            "SELECT skill_id, skill_data::text FROM public.skill_cache WHERE skill_id = ANY(%s)", (ids,)
        ).fetchall()
        versions = [found for skill_id, text in texts if (found := stored_version(skill_id, text)) is not None]
        keep_local(connection, versions, now, ended_by="superseded", number=1)


def _take_state(connection: psycopg.Connection[Row], name: str) -> None:
    columns = ", ".join(column.name for column in BY_NAME[name].columns if column.name != "id")
    connection.execute(
        f"UPDATE {name} SET ({columns}) = (SELECT {columns} FROM public.{name} WHERE id = {triggers.STATES[name]}) "  # noqa: S608
        f"WHERE id = {triggers.STATES[name]} AND EXISTS (SELECT FROM public.{name} WHERE id = {triggers.STATES[name]})"
    )


def _number_on(connection: psycopg.Connection[Row]) -> None:
    """Set the backend's sequence of conflict ids above all existing ones."""
    row = connection.execute(
        "SELECT max(id), nextval(pg_get_serial_sequence('public.conflict_log', 'id')) FROM conflict_log"
    ).fetchone()
    last, following = row or (None, None)
    if last is not None and following is not None and following < last:
        connection.execute(
            "SELECT max(nextval(pg_get_serial_sequence('public.conflict_log', 'id'))) FROM generate_series(1, %s)",
            (last - following,),
        )


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    return (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))
