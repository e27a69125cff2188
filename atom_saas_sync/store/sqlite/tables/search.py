"""The full-text index and the triggers that maintain it: before and since 0006."""

from __future__ import annotations

from atom_saas_sync.store.sqlite import search_index
from atom_saas_sync.store.sqlite.tables.shared import NOT_OURS

# The text that was indexed before 0006.
_FIELDS = ("name", "description", "tags", "category", "code")
_INDEXED = ", ".join(f"json_extract({{row}}skill_data, '$.{field}') AS {field}" for field in _FIELDS)
_NEW_ENTRY = (
    "INSERT INTO skill_fts(rowid, name, description, tags, category, code) "
    f"SELECT new.id, {_INDEXED.format(row='new.')} WHERE json_valid(new.skill_data);"
)
_OLD_ENTRY = (
    "INSERT INTO skill_fts(skill_fts, rowid, name, description, tags, category, code) "
    f"SELECT 'delete', old.id, {_INDEXED.format(row='old.')} WHERE json_valid(old.skill_data);"
)
_SAVE_BASE = "UPDATE skill_base SET data = {text} WHERE skill_id = {row}.skill_id AND data IS NULL;"

INDEX_TABLE = """
    CREATE VIRTUAL TABLE skill_fts USING fts5(
        name, description, tags, category, code, content='', tokenize='unicode61 remove_diacritics 2'
    )
    """
BEFORE_INSERT = f"""
    CREATE TRIGGER skill_cache_before_insert BEFORE INSERT ON skill_cache
    WHEN {NOT_OURS}
    BEGIN
        -- INSERT OR REPLACE by another program: its delete half fires no trigger, as a rule.
        DELETE FROM insert_over;
        INSERT INTO insert_over
        SELECT id, skill_id, skill_data FROM skill_cache WHERE skill_id = new.skill_id OR id = new.id;
        UPDATE skill_base
        SET data = (SELECT skill_data FROM insert_over WHERE insert_over.skill_id = skill_base.skill_id)
        WHERE skill_id IN (SELECT skill_id FROM insert_over) AND data IS NULL;
    END
    """  # noqa: S608 - built from constants
INDEX_INSERT = f"""
    CREATE TRIGGER skill_cache_after_insert AFTER INSERT ON skill_cache
    WHEN {NOT_OURS}
    BEGIN
        INSERT INTO skill_fts(skill_fts, rowid, name, description, tags, category, code)
        SELECT 'delete', id, {_INDEXED.format(row="")} FROM insert_over
        WHERE json_valid(skill_data) AND (id = new.id OR id NOT IN (SELECT id FROM skill_cache));
        DELETE FROM insert_over;
        {_NEW_ENTRY}
    END
    """  # noqa: S608 - built from constants
# Including the key columns: an index entry belongs to an id, and a renamed skill must not be found under its old name.
INDEX_UPDATE = f"""
    CREATE TRIGGER skill_cache_after_update AFTER UPDATE OF id, skill_id, skill_data ON skill_cache
    WHEN {NOT_OURS} AND (
        new.skill_data IS NOT old.skill_data OR new.id IS NOT old.id OR new.skill_id IS NOT old.skill_id
    )
    BEGIN
        {_SAVE_BASE.format(text="old.skill_data", row="old")}
        {_OLD_ENTRY}
        {_NEW_ENTRY}
    END
    """
INDEX_DELETE = f"""
    CREATE TRIGGER skill_cache_after_delete AFTER DELETE ON skill_cache
    WHEN {NOT_OURS}
    BEGIN
        {_SAVE_BASE.format(text="old.skill_data", row="old")}
        {_OLD_ENTRY}
        -- With PRAGMA recursive_triggers (sqlite-utils sets it) the delete half of a replacement does fire this.
        DELETE FROM insert_over WHERE id = old.id;
    END
    """  # noqa: S608 - built from constants
INDEX_SETTINGS = (
    # A page of skills fits in memory before it is written, and segments are merged rarely: together this saves a third
    # of a first sync (docs/PERFORMANCE.md), and searches are as fast.
    "INSERT INTO skill_fts (skill_fts, rank) VALUES ('hashsize', 16777216)",
    "INSERT INTO skill_fts (skill_fts, rank) VALUES ('automerge', 64)",
    "INSERT INTO skill_fts (skill_fts, rank) VALUES ('crisismerge', 128)",
)
INDEX_VIEW = f"""
    CREATE VIEW skill_text AS
    SELECT id, skill_id, {_INDEXED.format(row="")} FROM skill_cache WHERE json_valid(skill_data)
    """  # noqa: S608 - built from constants
# 0006: the same index with decoded values, and with one token a character for scripts without spaces.
_INDEX_NEW = f"""
        INSERT INTO skill_fts(rowid, {search_index.COLUMNS})
        {search_index.entries("(SELECT new.id AS id, new.skill_data AS skill_data)")};
"""
_UNINDEX_OLD = f"""
        INSERT INTO skill_fts(skill_fts, rowid, {search_index.COLUMNS})
        SELECT 'delete', * FROM ({search_index.entries("(SELECT old.id AS id, old.skill_data AS skill_data)")});
"""  # noqa: S608 - built from constants
_INDEX_TRIGGERS = ("skill_cache_after_insert", "skill_cache_after_update", "skill_cache_after_delete")
_DROP_INDEX = (
    *(f"DROP TRIGGER IF EXISTS {trigger}" for trigger in _INDEX_TRIGGERS),
    "DROP VIEW IF EXISTS skill_text",
    "DROP TABLE IF EXISTS skill_fts",
)
_INSERT_CHARACTERS = f"""
    CREATE TRIGGER skill_cache_after_insert AFTER INSERT ON skill_cache
    WHEN {NOT_OURS}
    BEGIN
        INSERT INTO skill_fts(skill_fts, rowid, {search_index.COLUMNS})
        SELECT 'delete', * FROM ({search_index.entries("insert_over")})
        WHERE id = new.id OR id NOT IN (SELECT id FROM skill_cache);
        DELETE FROM insert_over;
        {_INDEX_NEW}
    END
    """  # noqa: S608 - built from constants
_UPDATE_CHARACTERS = INDEX_UPDATE.replace(_OLD_ENTRY, _UNINDEX_OLD).replace(_NEW_ENTRY, _INDEX_NEW)
INDEX_CHARACTERS = (
    *_DROP_INDEX,
    search_index.create_table("skill_fts"),
    *INDEX_SETTINGS,
    f"CREATE VIEW skill_text AS {search_index.entries('skill_cache')}",
    _INSERT_CHARACTERS,
    _UPDATE_CHARACTERS,
    INDEX_DELETE.replace(_OLD_ENTRY, _UNINDEX_OLD),
    search_index.REBUILD,
)
INDEX_WORDS = (
    *_DROP_INDEX,
    INDEX_TABLE,
    *INDEX_SETTINGS,
    INDEX_VIEW,
    INDEX_INSERT,
    INDEX_UPDATE,
    INDEX_DELETE,
    f"INSERT INTO skill_fts(rowid, {search_index.COLUMNS}) SELECT id, {search_index.COLUMNS} FROM skill_text",  # noqa: S608
)


# 0025: SQLite clears the memory of all statements of a trigger at each row, also where the trigger then stands aside.
# So those of a sync's writes have one statement, an insert into a view, and the view's trigger has the others.
_COLUMNS = ("id", "skill_id", "skill_data")


def _in_two(trigger: str) -> tuple[str, ...]:
    """Return what makes of a trigger on skill_cache a small one and a view that does the work."""
    head, body = trigger.split("BEGIN", 1)
    name = head.split()[2]
    passed = [f"{row}.{column}" for row in ("old", "new") for column in _COLUMNS if f"{row}.{column}" in body]
    columns = [each.replace("old.", "old_").removeprefix("new.") for each in passed]
    return (
        f"DROP TRIGGER {name}",
        f"CREATE VIEW {name}_work AS SELECT {', '.join(f'NULL AS {column}' for column in columns)}",
        f"CREATE TRIGGER {name}_at_work INSTEAD OF INSERT ON {name}_work\n    BEGIN{body.replace('old.', 'new.old_')}",
        f"{head}BEGIN\n        INSERT INTO {name}_work VALUES ({', '.join(passed)});\n    END",  # noqa: S608 - constants
    )


def _in_one(trigger: str) -> tuple[str, ...]:
    name = trigger.split()[2]
    return f"DROP TRIGGER {name}", f"DROP VIEW {name}_work", trigger


_FIRED_BY_SYNCS = (BEFORE_INSERT, _INSERT_CHARACTERS, _UPDATE_CHARACTERS)
SMALL_TRIGGERS = tuple(statement for trigger in _FIRED_BY_SYNCS for statement in _in_two(trigger))
LARGE_TRIGGERS = tuple(statement for trigger in _FIRED_BY_SYNCS for statement in _in_one(trigger))
