"""The tables of the Atom backend that we share, as data (backend of 2026-08).

The backend's `create_all` creates these seven; only the marked columns have an SQL default there, so the backend's
writers always give values for required columns. The form check, the adoption, our own DDL and the tests use this
module.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Kind = Literal["integer", "boolean", "text", "time", "json"]

NEVER_EXPIRES = "9999-12-31T23:59:59Z"
"""The value of `expires_at`, which is never NULL, for an entry that does not expire."""

NO_VERSION = "{}"
"""The JSON in the conflict log for a version that does not exist."""


class Column(Struct, frozen=True):
    """One column: its type, whether it is NOT NULL in the backend, and the SQL default in our tables."""

    name: str
    kind: Kind
    required: bool = False
    default: str | None = None


class Table(Struct, frozen=True):
    """One table with the primary key `id`; the columns `unique` also identify a row."""

    name: str
    columns: tuple[Column, ...]
    unique: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        return tuple(column.name for column in self.columns)


NOW = "strftime('%Y-%m-%dT%H:%M:%SZ', 'now')"

_INTEGER_ID = Column("id", "integer", required=True)
_TEXT_ID = Column("id", "text", required=True)
_CREATED = Column("created_at", "time", default=f"({NOW})")
_UPDATED = Column("updated_at", "time", default=f"({NOW})")
_TENANT = Column("tenant_id", "text", required=True, default="'default'")


def _counter(name: str) -> Column:
    return Column(name, "integer", required=True, default="0")


def _cache(table: str, key: str, data: str) -> Table:
    columns = (
        _INTEGER_ID,
        Column(key, "text", required=True),
        Column(data, "json", required=True),
        Column("expires_at", "time", required=True, default=f"'{NEVER_EXPIRES}'"),
        _CREATED,
        _UPDATED,
        _TENANT,
        _counter("hit_count"),
        Column("last_hit_at", "time"),
    )
    return Table(table, columns, unique=(key,))


TABLES = (
    _cache("skill_cache", "skill_id", "skill_data"),
    _cache("category_cache", "category_name", "category_data"),
    Table(
        "sync_state",
        (
            _TEXT_ID,
            Column("device_id", "text"),
            Column("user_id", "text"),
            Column("status", "text", required=True, default="'idle'"),
            Column("last_sync", "time"),
            _counter("skills_cached"),
            _counter("categories_cached"),
            Column("last_error", "text"),
            _counter("error_count"),
            Column("last_sync_at", "time"),
            Column("last_successful_sync_at", "time"),
            Column("auto_sync_enabled", "boolean", required=True, default="1"),
            _counter("total_syncs"),
            _counter("successful_syncs"),
            _counter("failed_syncs"),
            _counter("pending_actions_count"),
            Column("created_at", "time", required=True, default=f"({NOW})"),
            _UPDATED,
        ),
    ),
    Table(
        "websocket_state",
        (
            _INTEGER_ID,
            Column("connected", "boolean", required=True, default="0"),
            Column("ws_url", "text"),
            Column("last_connected_at", "time"),
            Column("last_message_at", "time"),
            Column("disconnect_reason", "text"),
            _counter("reconnect_attempts"),
            _counter("consecutive_failures"),
            Column("max_reconnect_attempts", "integer", required=True, default="10"),
            Column("fallback_to_polling", "boolean", required=True, default="0"),
            Column("fallback_started_at", "time"),
            Column("next_ws_attempt_at", "time"),
            Column("rate_limit_messages_per_sec", "integer", required=True, default="100"),
            Column("websocket_enabled", "boolean", required=True, default="1"),
        ),
    ),
    Table(
        "conflict_log",
        (
            _INTEGER_ID,
            Column("skill_id", "text", required=True),
            Column("conflict_type", "text", required=True),
            Column("severity", "text", required=True),
            Column("local_data", "json", required=True, default=f"'{NO_VERSION}'"),
            Column("remote_data", "json", required=True, default=f"'{NO_VERSION}'"),
            Column("resolution_strategy", "text"),
            Column("resolved_data", "json"),
            Column("resolved_at", "time"),
            Column("resolved_by", "text"),
            Column("created_at", "time", required=True, default=f"({NOW})"),
            _UPDATED,
            _TENANT,
        ),
    ),
    Table(
        "skill_ratings",
        (
            _TEXT_ID,
            _TENANT,
            Column("skill_id", "text", required=True),
            Column("user_id", "text", required=True),
            Column("rating", "integer", required=True),
            Column("review", "text"),
            Column("synced_to_saas", "boolean", required=True, default="0"),
            Column("synced_at", "time"),
            Column("remote_rating_id", "text"),
            Column("is_flagged", "boolean", default="0"),
            Column("is_visible", "boolean", default="1"),
            Column("helpful_count", "integer", default="0"),
            Column("not_helpful_count", "integer", default="0"),
            _CREATED,
            _UPDATED,
        ),
        unique=("skill_id", "user_id"),
    ),
    Table(
        "failed_rating_uploads",
        (
            _TEXT_ID,
            Column("rating_id", "text", required=True),
            Column("error_message", "text", required=True),
            Column("failed_at", "time", required=True),
            Column("last_retry_at", "time"),
            _counter("retry_count"),
            Column("max_retries", "integer", required=True, default="5"),
            _TENANT,
        ),
    ),
)

BY_NAME = {table.name: table for table in TABLES}

_SQL_TYPES = {"integer": "INTEGER", "boolean": "INTEGER", "text": "TEXT", "time": "TEXT", "json": "TEXT"}


def definitions(table: str, *, without: tuple[str, ...] = ()) -> str:
    """Return our column definitions of a table as SQL, except for the columns in `without`."""
    return ",\n        ".join(_definition(column) for column in BY_NAME[table].columns if column.name not in without)


def _definition(column: Column) -> str:
    sql = f"{column.name} {_SQL_TYPES[column.kind]}"
    if column.required:
        sql += " NOT NULL"
    return sql if column.default is None else f"{sql} DEFAULT {column.default}"
