"""The triggers that keep our tables and the Atom backend's own equal, as SQL.

What we write reaches the backend's table in the same transaction, and what the backend writes reaches ours. While one
of the functions runs, `atom_sync.mirror` disables the triggers on the other side. They run with the rights of the role
that created them, so no other role needs rights on the other side's tables.

Statements of the backend first take the lock of our writers, so that the two cannot deadlock. Counting a hit does not:
the backend does so in long transactions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from atom_saas_sync.store.backend_tables import BY_NAME, Column, Table
from atom_saas_sync.store.postgresql.session import advisory_class, advisory_key

CACHES = ("skill_cache", "category_cache")
STATES = {"sync_state": "'marketplace_sync'", "websocket_state": "1"}
"""The tables with a single row of ours, and its id."""

ON_THEIRS = ("atom_sync_emptied", "atom_sync_hit", "atom_sync_waits", "atom_sync_written")
ON_OURS = ("numbered", "to_backend", "to_backend_delete", "to_backend_insert", "to_backend_update")
"""The names of the triggers of a shared table, on the backend's table and on ours."""

WITH_KEYS = ("conflict_log", "skill_ratings", "failed_rating_uploads")
"""The tables with foreign keys to tables of the backend that we do not use."""

_SCHEMA = "atom_sync"
_UNLESS_MIRRORED = "WHEN (current_setting('atom_sync.mirror', true) IS DISTINCT FROM 'on')"
_COUNTED = {"hit_count", "last_hit_at"}
_MADE_ONCE = {"id", "created_at"}


def number(name: str) -> int:
    """Return the number of triggers of a shared table on both sides."""
    return 7 if name in CACHES else 5 if name == "conflict_log" else 4


def make(name: str, types: Mapping[str, str]) -> Iterator[str]:
    """Yield the statements that share a table of the backend; `types` are those of its columns."""
    table = BY_NAME[name]
    yield _function("waits_for_atom_sync", _WAIT)
    if name in CACHES:
        yield _function(f"{name}_to_backend", _cache_to_backend(table, types))
        yield _function(f"{name}_from_backend", _cache_from_backend(table))
        yield _function(f"{name}_hit", _hit(table))
        for event, tables in (
            ("INSERT", "NEW TABLE AS written"),
            ("UPDATE", "OLD TABLE AS gone NEW TABLE AS written"),
            ("DELETE", "OLD TABLE AS gone"),
        ):
            yield (
                f"CREATE TRIGGER to_backend_{event.lower()} AFTER {event} ON {_SCHEMA}.{name} REFERENCING {tables} "
                f"FOR EACH STATEMENT {_UNLESS_MIRRORED} EXECUTE FUNCTION {_SCHEMA}.{name}_to_backend()"
            )
        data = [column.name for column in table.columns if column.name not in _COUNTED | {"id", "updated_at"}]
        update = f"UPDATE OF {', '.join(data)}"
        yield (
            f"CREATE TRIGGER atom_sync_hit AFTER UPDATE OF hit_count ON public.{name} FOR EACH ROW {_UNLESS_MIRRORED} "
            f"EXECUTE FUNCTION {_SCHEMA}.{name}_hit()"
        )
    else:
        update = "UPDATE"
        yield _function(f"{name}_to_backend", _row_to_backend(table, types))
        yield _function(f"{name}_from_backend", _row_from_backend(table))
        yield (
            f"CREATE TRIGGER to_backend AFTER INSERT OR UPDATE OR DELETE ON {_SCHEMA}.{name} FOR EACH ROW "
            f"{_UNLESS_MIRRORED} EXECUTE FUNCTION {_SCHEMA}.{name}_to_backend()"
        )
    if name == "conflict_log":
        yield _function("conflict_log_numbered", _NUMBERED)
        yield (
            f"CREATE TRIGGER numbered BEFORE INSERT ON {_SCHEMA}.conflict_log FOR EACH ROW {_UNLESS_MIRRORED} "
            f"EXECUTE FUNCTION {_SCHEMA}.conflict_log_numbered()"
        )
    events = f"INSERT OR DELETE OR {update}"
    yield (
        f"CREATE TRIGGER atom_sync_waits BEFORE {events} OR TRUNCATE ON public.{name} FOR EACH STATEMENT "
        f"{_UNLESS_MIRRORED} EXECUTE FUNCTION {_SCHEMA}.waits_for_atom_sync()"
    )
    yield (
        f"CREATE TRIGGER atom_sync_written AFTER {events} ON public.{name} FOR EACH ROW {_UNLESS_MIRRORED} "
        f"EXECUTE FUNCTION {_SCHEMA}.{name}_from_backend()"
    )
    yield (
        f"CREATE TRIGGER atom_sync_emptied AFTER TRUNCATE ON public.{name} FOR EACH STATEMENT {_UNLESS_MIRRORED} "
        f"EXECUTE FUNCTION {_SCHEMA}.{name}_from_backend()"
    )


def make_last(names: Sequence[str]) -> Iterator[str]:
    """Yield the statements by which each run retries rows that the backend's keys did not allow before."""
    tables = [name for name in names if name in WITH_KEYS]
    if tables:
        yield f"""
CREATE OR REPLACE FUNCTION {_SCHEMA}.again_to_backend() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {_SCHEMA}, pg_temp AS $$
BEGIN
    PERFORM set_config('atom_sync.bulk', 'on', true);
    {" ".join(_again(name) for name in tables)}
    PERFORM set_config('atom_sync.bulk', 'off', true);
    RETURN NULL;
END
$$"""
        yield (
            f"CREATE OR REPLACE TRIGGER again_to_backend AFTER INSERT ON {_SCHEMA}.sync_run FOR EACH STATEMENT "
            f"{_UNLESS_MIRRORED} EXECUTE FUNCTION {_SCHEMA}.again_to_backend()"
        )


def unmake(name: str) -> Iterator[str]:
    """Yield the statements that end the sharing of a table and drop its triggers, which only its owner may do."""
    for each in ("to_backend", "from_backend", "hit", "numbered"):
        yield f"DROP FUNCTION IF EXISTS {_SCHEMA}.{name}_{each}() CASCADE"


UNMAKE_LAST = (
    f"DROP FUNCTION IF EXISTS {_SCHEMA}.waits_for_atom_sync() CASCADE",
    f"DROP FUNCTION IF EXISTS {_SCHEMA}.again_to_backend() CASCADE",
)
"""The statements that drop the functions of all shared tables."""


def remove_surplus(name: str) -> str:
    """Return the statement that removes rows that only the backend's table has, unless its keys need them."""
    key = BY_NAME[name].unique[0] if name in CACHES else "id"
    which = f"NOT EXISTS (SELECT FROM {_SCHEMA}.{name} AS o WHERE o.{key} = t.{key})"
    if name in STATES:
        which += f" AND t.id = {STATES[name]}"
    if name not in WITH_KEYS:
        return f"DELETE FROM public.{name} AS t WHERE {which}"  # noqa: S608 - our names
    return f"""
DO $$
DECLARE
    surplus public.{name};
BEGIN
    FOR surplus IN SELECT t.* FROM public.{name} AS t WHERE {which} LOOP
        BEGIN
            DELETE FROM public.{name} WHERE id = surplus.id;
        EXCEPTION WHEN foreign_key_violation THEN
        END;
    END LOOP;
END $$"""  # noqa: S608 - our names


def fill(name: str, types: Mapping[str, str]) -> Iterator[str]:
    """Yield the statements that copy our table into the backend's."""
    if name not in CACHES:
        yield "SET LOCAL atom_sync.mirror = 'off'"
        yield f"UPDATE {_SCHEMA}.{name} SET id = id"  # noqa: S608 - our names; its trigger writes the backend's
        yield "SET LOCAL atom_sync.mirror = 'on'"
        return
    table = BY_NAME[name]
    key, data = table.unique[0], _data_of(table)
    document = f"{_SCHEMA}.atom_sync_jsonb(o.{data})"
    source = (
        f"SELECT o.*, true AS is_new, {document} AS document, o.hit_count - coalesce(t.hit_count, 0) AS hits "  # noqa: S608
        f"FROM {_SCHEMA}.{name} AS o LEFT JOIN public.{name} AS t ON t.{key} = o.{key} WHERE t.{key} IS NULL "
        f"OR t.expires_at IS DISTINCT FROM o.expires_at OR t.{data}::jsonb IS DISTINCT FROM {document}"
    )
    yield _upsert(table, types, source)


def differences(name: str) -> str:
    """Return the query that counts a cache's rows that only one side has, that differ, and that do not fit."""
    table = BY_NAME[name]
    key, data = table.unique[0], _data_of(table)
    return f"""
        SELECT count(*) FILTER (WHERE o.document IS NOT NULL AND t.{key} IS NULL),
            count(*) FILTER (WHERE o.{key} IS NULL),
            count(*) FILTER (WHERE o.document IS DISTINCT FROM t.{data}::jsonb AND t.{key} = o.{key}),
            count(*) FILTER (WHERE o.{key} IS NOT NULL AND o.document IS NULL)
        FROM (SELECT {key}, atom_sync_jsonb({data}) AS document FROM {name}) AS o
        FULL JOIN public.{name} AS t ON t.{key} = o.{key}
    """  # noqa: S608 - our names


def _again(name: str) -> str:
    return f"UPDATE {name} AS o SET id = id WHERE NOT EXISTS (SELECT FROM public.{name} AS t WHERE t.id = o.id);"  # noqa: S608


def _alone(body: str) -> str:
    """Let the other side's triggers stand aside. Only a superuser may let the head of a function do so."""
    mirror = "PERFORM set_config('atom_sync.mirror', '{}', true);"
    begun = body.strip().replace("BEGIN", f"BEGIN {mirror.format('on')}", 1)
    return begun.replace("RETURN ", f"{mirror.format('off')} RETURN ")


def _data_of(table: Table) -> str:
    return next(column.name for column in table.columns if column.kind == "json")


def _function(name: str, body: str) -> str:
    return f"""
CREATE OR REPLACE FUNCTION {_SCHEMA}.{name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {_SCHEMA}, pg_temp SET TimeZone = 'UTC' AS $$
{_alone(body)}
$$"""


_WAIT = f"""
BEGIN
    PERFORM pg_advisory_xact_lock({advisory_class(_SCHEMA)}, {advisory_key("write")});
    RETURN NULL;
END
"""
# A conflict has the same number on both sides, even if the backend's keys hide it there.
_NUMBERED = """
BEGIN
    NEW.id := coalesce(nextval(pg_get_serial_sequence('public.conflict_log', 'id')), NEW.id);
    RETURN NEW;
END
"""


def _cache_to_backend(table: Table, types: Mapping[str, str]) -> str:
    key, data = table.unique[0], _data_of(table)
    inserted = (
        f"SELECT w.*, true AS is_new, atom_sync_jsonb(w.{data}) AS document, w.hit_count AS hits FROM written AS w"  # noqa: S608
    )
    is_new = f"(w.{data} IS DISTINCT FROM g.{data} OR w.{key} IS DISTINCT FROM g.{key})"
    updated = f"""SELECT w.*, {is_new} AS is_new, CASE WHEN {is_new} THEN atom_sync_jsonb(w.{data}) END AS document,
            w.hit_count - coalesce(g.hit_count, 0) AS hits
        FROM written AS w LEFT JOIN gone AS g ON g.id = w.id"""  # noqa: S608 - our names
    return f"""
BEGIN
    IF TG_OP = 'INSERT' THEN
        {_upsert(table, types, inserted)};
    ELSIF TG_OP = 'UPDATE' THEN
        DELETE FROM public.{table.name} AS t USING gone AS g
        WHERE t.{key} = g.{key} AND NOT EXISTS (SELECT FROM written AS w WHERE w.{key} = g.{key});
        {_upsert(table, types, updated)};
    ELSE
        DELETE FROM public.{table.name} AS t USING gone AS g WHERE t.{key} = g.{key};
    END IF;
    RETURN NULL;
END
"""  # noqa: S608 - our names


def _upsert(table: Table, types: Mapping[str, str], source: str) -> str:
    """Return the statement that writes our rows into a cache of the backend, except text that jsonb cannot hold."""
    name, key, data = table.name, table.unique[0], _data_of(table)
    columns = [column.name for column in table.columns if column.name != "id"]
    values = {each: f"n.{each}::{types[each]}" for each in columns} | {data: f"n.document::{types[data]}"}
    given = {each: values[each] for each in columns if each not in _MADE_ONCE | {key}} | {
        data: f"coalesce(n.document::{types[data]}, t.{data})",
        "hit_count": "greatest(0, t.hit_count + n.hits)",
        "last_hit_at": "greatest(t.last_hit_at, n.last_hit_at)",
    }
    return f"""WITH new AS MATERIALIZED (
        {source}
        ), unfit AS (
            DELETE FROM public.{name} AS t USING new AS n
            WHERE t.{key} = n.{key} AND n.is_new AND n.document IS NULL
        ), known AS (
            UPDATE public.{name} AS t SET {", ".join(f"{each} = {value}" for each, value in given.items())}
            FROM new AS n WHERE t.{key} = n.{key} AND NOT (n.is_new AND n.document IS NULL) RETURNING t.{key}
        )
        INSERT INTO public.{name} ({", ".join(columns)})
        SELECT {", ".join(values.values())} FROM new AS n
        WHERE n.document IS NOT NULL AND NOT EXISTS (SELECT FROM known AS k WHERE k.{key} = n.{key})"""  # noqa: S608


def _cache_from_backend(table: Table) -> str:
    name, key, data = table.name, table.unique[0], _data_of(table)
    text = f"NEW.{data}::text"
    if name == "skill_cache":
        # The marketplace's own bytes if the content is the same.
        base = "FROM skill_base AS b WHERE b.skill_id = NEW.skill_id AND atom_sync_jsonb(b.data) = document"
        text = f"coalesce((SELECT b.data {base}), {text})"
    return f"""
DECLARE
    document jsonb;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM {name};
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND OLD.{key} <> NEW.{key}) THEN
        DELETE FROM {name} WHERE {key} = OLD.{key};
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN NULL;
    END IF;
    document := atom_sync_jsonb(NEW.{data}::text);
    UPDATE {name} AS o SET
        {data} = CASE WHEN atom_sync_jsonb(o.{data}) = document THEN o.{data} ELSE {text} END,
        expires_at = NEW.expires_at, updated_at = coalesce(NEW.updated_at, now()), tenant_id = NEW.tenant_id,
        hit_count = NEW.hit_count, last_hit_at = NEW.last_hit_at
    WHERE o.{key} = NEW.{key};
    IF NOT FOUND THEN
        INSERT INTO {name} ({key}, {data}, expires_at, created_at, updated_at, tenant_id, hit_count, last_hit_at)
        VALUES (NEW.{key}, {text}, NEW.expires_at, coalesce(NEW.created_at, now()),
            coalesce(NEW.updated_at, now()), NEW.tenant_id, NEW.hit_count, NEW.last_hit_at);
    END IF;
    RETURN NULL;
END
"""  # noqa: S608 - our names


def _hit(table: Table) -> str:
    """Return the body that copies the backend's count; a row locked by others is left to the next call."""
    key = table.unique[0]
    return f"""
BEGIN
    UPDATE {table.name} SET hit_count = NEW.hit_count, last_hit_at = NEW.last_hit_at WHERE id = (
        SELECT o.id FROM {table.name} AS o WHERE o.{key} = NEW.{key} FOR NO KEY UPDATE SKIP LOCKED);
    RETURN NULL;
END
"""  # noqa: S608 - our names


def _row_to_backend(table: Table, types: Mapping[str, str]) -> str:
    name = table.name
    values = {column.name: _value(column, types) for column in table.columns}
    given = {each: value for each, value in values.items() if each not in _MADE_ONCE}
    ours = f"ROW({', '.join(given.values())})"
    theirs = ", ".join(f"t.{each}{'::jsonb' if types[each] == 'json' else ''}" for each in given)
    compared = ours.replace("::json,", "::jsonb,").replace("::json)", "::jsonb)")
    # A foreign key of the backend to a missing row, or from another table to this row.
    allowed = "EXCEPTION WHEN foreign_key_violation THEN\n    RETURN NULL;\n" if name in WITH_KEYS else ""
    return f"""
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.{name} WHERE id = OLD.id;
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' AND OLD.id <> NEW.id THEN
        DELETE FROM public.{name} WHERE id = OLD.id;
    END IF;
    UPDATE public.{name} AS t SET ({", ".join(given)}) = {ours}
    WHERE t.id = NEW.id AND ROW({theirs}) IS DISTINCT FROM {compared};
    IF NOT FOUND AND NOT EXISTS (SELECT FROM public.{name} AS t WHERE t.id = NEW.id) THEN
        INSERT INTO public.{name} ({", ".join(values)}) VALUES ({", ".join(values.values())});
    END IF;
    RETURN NULL;
{allowed}END
"""  # noqa: S608 - our names


def _value(column: Column, types: Mapping[str, str]) -> str:
    """Return our value in the type of the backend's column."""
    value = f"NEW.{column.name}"
    if column.kind == "json":
        value = f"atom_sync_jsonb({value})"
        if column.required:
            value = f"coalesce({value}, '{{}}')"
    return f"{value}::{types[column.name]}"


def _row_from_backend(table: Table) -> str:
    name = table.name
    json = {column.name for column in table.columns if column.kind == "json"}
    required = {column.name for column in table.columns if column.required}
    ours = {each.name: f"NEW.{each.name}{'::text' if each.name in json else ''}" for each in table.columns}
    for each in {"created_at", "updated_at"} & set(ours) - required:
        ours[each] = f"coalesce(NEW.{each}, now())"
    given = {
        each: f"CASE WHEN atom_sync_jsonb(o.{each}) = atom_sync_jsonb({value}) THEN o.{each} ELSE {value} END"
        if each in json
        else value
        for each, value in ours.items()
        if each not in _MADE_ONCE
    }
    before, after = "", ""
    if name in STATES:
        before = f"""
    IF (TG_OP = 'DELETE' AND OLD.id <> {STATES[name]}) OR (TG_OP IN ('INSERT', 'UPDATE') AND NEW.id <> {STATES[name]})
    THEN
        RETURN NULL;
    END IF;"""
    elif name == "skill_ratings":
        before = """
    IF TG_OP = 'INSERT' THEN
        DELETE FROM skill_ratings WHERE skill_id = NEW.skill_id AND user_id = NEW.user_id AND id <> NEW.id;
    END IF;"""
        # The row as changed by our trigger: a new rating is pending.
        after = """
    UPDATE public.skill_ratings AS t
    SET synced_to_saas = o.synced_to_saas, synced_at = o.synced_at, updated_at = o.updated_at
    FROM skill_ratings AS o WHERE o.id = NEW.id AND t.id = NEW.id
        AND (t.synced_to_saas, t.synced_at) IS DISTINCT FROM (o.synced_to_saas, o.synced_at);"""
    return f"""
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM {name}{f" WHERE id = {STATES[name]}" if name in STATES else ""};
        RETURN NULL;
    END IF;{before}
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND OLD.id <> NEW.id) THEN
        DELETE FROM {name} WHERE id = OLD.id;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN NULL;
    END IF;
    UPDATE {name} AS o SET {", ".join(f"{each} = {value}" for each, value in given.items())} WHERE o.id = NEW.id;
    IF NOT FOUND THEN
        INSERT INTO {name} ({", ".join(ours)}) VALUES ({", ".join(ours.values())});
    END IF;{after}
    RETURN NULL;
END
"""  # noqa: S608 - our names
