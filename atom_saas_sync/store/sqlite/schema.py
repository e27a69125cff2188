"""The tables, as SQL: what each migration adds, and how it is reverted.

Public are the tables of backend_tables.py, which the Atom backend also reads and writes, and the view usable_skill. The
others are private. All times are UTC text, ISO 8601 with `Z`, so that they order as text; but in public tables other
programs write them in other forms (clauses.py compares them).

How a local edit is found, whoever made it: `skill_base.data` is NULL as long as the cached text *is* what the
marketplace last sent, so that the common case stores each skill once. The first write to a cached row by another
program, or by a person through us, makes a trigger save the text that it replaces there. Triggers keep the full-text
index right, too.

A sync does both itself, in bulk (a trigger would flush the index at every row): it holds a row in `bulk_write`
while its transaction lasts, and the triggers stand aside. Writers exclude each other and a rollback takes the row
away, so no other program's write can ever see it.
"""

from __future__ import annotations

from msgspec import Struct

from atom_saas_sync.store.sqlite import backend_schema, digests
from atom_saas_sync.store.sqlite.tables.catalogue import CREATE_CATALOGUE
from atom_saas_sync.store.sqlite.tables.conflicts import CREATE_CONFLICTS
from atom_saas_sync.store.sqlite.tables.gate import (
    CREATE_FACTS,
    CREATE_GATE,
    PUT_BACK_WORDS,
    REMEMBER_EACH,
    REMEMBER_OTHERS,
    WORDS_OF_PEOPLE,
    drop_gate,
)
from atom_saas_sync.store.sqlite.tables.ratings import CREATE_RATINGS
from atom_saas_sync.store.sqlite.tables.search import INDEX_CHARACTERS, INDEX_WORDS, LARGE_TRIGGERS, SMALL_TRIGGERS
from atom_saas_sync.store.sqlite.tables.state import CREATE_SYNC_STATE
from atom_saas_sync.store.sqlite.tables.versions import (
    DROP_REMEMBERING,
    FORGET_SEEN_VERSIONS,
    REMEMBER_OLD,
    SEEN_VERSIONS,
    SIGN_OLD,
    remember,
)


class Migration(Struct, frozen=True):
    """One step of the schema and its reversal, as SQL statements.

    Pulling ratings returns the rows of the tables in `hands_over` to those of earlier migrations.
    `loses` names what the way back drops besides whole tables, each with a statement that counts it.
    """

    name: str
    up: tuple[str, ...]
    down: tuple[str, ...]
    hands_over: tuple[str, ...] = ()
    loses: tuple[tuple[str, str], ...] = ()


MIGRATIONS = (
    Migration(
        name="0001_catalogue",
        up=CREATE_CATALOGUE,
        down=(
            "DROP VIEW usable_skill",
            "DROP VIEW skill_text",
            "DROP TABLE skill_cache",
            "DROP TABLE insert_over",
            "DROP TABLE bulk_write",
            "DROP TABLE skill_fts",
            "DROP TABLE http_validator",
            "DROP TABLE skill_version",
            "DROP TABLE skill_base",
            "DROP TABLE category_cache",
        ),
    ),
    Migration(
        name="0002_sync_state",
        up=CREATE_SYNC_STATE,
        down=tuple(
            f"DROP TABLE {table}"
            for table in (
                "scheduled_job",
                "fact",
                "request_budget",
                "counter",
                "sync_run",
                "last_message",
                "websocket_state",
                "sync_state",
            )
        ),
    ),
    Migration(
        name="0003_conflicts",
        up=CREATE_CONFLICTS,
        down=("DROP TABLE audit_log", "DROP TABLE conflict_log"),
    ),
    Migration(
        name="0004_ratings",
        up=CREATE_RATINGS,
        down=("DROP TABLE failed_rating_upload", "DROP TABLE skill_rating"),
    ),
    # What was written here until a newer rating of the marketplace took its place: a JSON object with `rating`,
    # `comment`, `updated_at`, `replaced_at`, and the `version` that the row has had since.
    Migration(
        name="0005_replaced_ratings",
        up=("ALTER TABLE skill_rating ADD COLUMN replaced TEXT",),
        down=("ALTER TABLE skill_rating DROP COLUMN replaced",),
        loses=(("replaced ratings", "SELECT count(*) FROM skill_rating WHERE replaced IS NOT NULL"),),
    ),
    Migration(name="0006_index_characters", up=INDEX_CHARACTERS, down=INDEX_WORDS),
    # The digests of all stored versions in their final form (docs/TRUST.md).
    Migration(name="0007_digests", up=digests.recompute(), down=digests.recompute(" until 0007")),
    Migration(name="0008_seen_versions", up=SEEN_VERSIONS, down=FORGET_SEEN_VERSIONS),
    # Re-encodes stored texts that SQL readers could interpret differently (docs/TRUST.md).
    Migration(name="0009_one_meaning", up=digests.respell(), down=()),
    # To find rows written since the last run compared texts with digests.
    Migration(
        name="0010_written_rows",
        up=("CREATE INDEX idx_skill_cache_updated_at ON skill_cache(updated_at)",),
        down=("DROP INDEX idx_skill_cache_updated_at",),
    ),
    # The signature of the digests: eight bytes that name the key, and an HMAC (docs/TRUST.md). NULL if written without
    # a key.
    Migration(
        name="0011_signatures",
        up=("ALTER TABLE skill_base ADD COLUMN signature BLOB",),
        down=("ALTER TABLE skill_base DROP COLUMN signature",),
    ),
    # The signature that a version had as a base, or got when it came and waited in a conflict, so that it can become
    # the base again. NULL if there was none.
    Migration(
        name="0012_seen_signatures",
        up=(
            "ALTER TABLE skill_seen ADD COLUMN signature BLOB",
            *DROP_REMEMBERING,
            *remember(REMEMBER_OLD + SIGN_OLD),
        ),
        down=(
            *DROP_REMEMBERING,
            "ALTER TABLE skill_seen DROP COLUMN signature",
            *remember(REMEMBER_OLD),
        ),
    ),
    # The tables that the Atom backend reads and writes too, with all columns of its models (backend_schema.py).
    Migration(name="0013_backend_state", up=backend_schema.STATE, down=backend_schema.former_state(CREATE_SYNC_STATE)),
    # From now on, websocket_enabled is the administrators' switch; before, `watch` wrote ATOM_SAAS_WS_ENABLED into it.
    Migration(
        name="0014_websocket_switch",
        up=("UPDATE websocket_state SET websocket_enabled = 1 WHERE started_at IS NOT NULL",),
        down=(),
    ),
    Migration(
        name="0015_backend_ratings",
        up=backend_schema.ratings(CREATE_RATINGS),
        down=backend_schema.former_ratings(CREATE_RATINGS),
        hands_over=("skill_ratings", "failed_rating_uploads"),
    ),
    # Who wrote a former version: the marketplace, or a local user (`local`).
    Migration(
        name="0016_local_versions",
        up=("ALTER TABLE skill_version ADD COLUMN origin TEXT NOT NULL DEFAULT 'marketplace'",),
        down=(
            "DELETE FROM skill_version WHERE origin != 'marketplace'",
            "ALTER TABLE skill_version DROP COLUMN origin",
        ),
        loses=(("former local versions", "SELECT count(*) FROM skill_version WHERE origin != 'marketplace'"),),
    ),
    # 1 if a strategy replaced a local edit, until a user has seen that conflict.
    Migration(
        name="0017_replaced_edits",
        up=(
            "ALTER TABLE conflict_log ADD COLUMN replaced_unseen INTEGER NOT NULL DEFAULT 0",
            "CREATE INDEX idx_conflict_log_unseen ON conflict_log(id) WHERE replaced_unseen = 1",
        ),
        down=("DROP INDEX idx_conflict_log_unseen", "ALTER TABLE conflict_log DROP COLUMN replaced_unseen"),
    ),
    # To find a skill's newest versions of either origin without reading their texts.
    Migration(
        name="0018_history_index",
        up=(
            "DROP INDEX idx_skill_version_skill_id",
            "CREATE INDEX idx_skill_version_origin ON skill_version(skill_id, origin)",
        ),
        down=(
            "DROP INDEX idx_skill_version_origin",
            "CREATE INDEX idx_skill_version_skill_id ON skill_version(skill_id)",
        ),
    ),
    Migration(name="0019_backend_conflicts", up=backend_schema.CONFLICTS, down=backend_schema.FORMER_CONFLICTS),
    Migration(name="0020_expiry", up=backend_schema.EXPIRY, down=backend_schema.FORMER_EXPIRY),
    Migration(
        name="0021_deleted_edits",
        up=backend_schema.DELETED_EDITS,
        down=backend_schema.FORMER_DELETED_EDITS,
        loses=(("deleted local edits", "SELECT count(*) FROM skill_version WHERE ended_by = 'deleted_here'"),),
    ),
    # Offers, users' decisions, and who admitted the served version (docs/TRUST.md).
    Migration(
        name="0022_gate",
        up=CREATE_GATE,
        down=drop_gate(CREATE_CATALOGUE[-1]),
        hands_over=WORDS_OF_PEOPLE,
        loses=(
            ("versions never served", "SELECT count(*) FROM skill_version WHERE ended_by = 'not_admitted'"),
            (
                "admissions by people",
                "SELECT count(*) FROM skill_base WHERE admitted_by IS NOT NULL AND admitted_by != 'adopted'",
            ),
        ),
    ),
    # When a page was last read in full, not just confirmed by a 304.
    Migration(
        name="0023_pages_read",
        up=(
            "ALTER TABLE http_validator ADD COLUMN read_at TEXT",
            "UPDATE http_validator SET read_at = checked_at WHERE page IS NOT NULL",
        ),
        down=("ALTER TABLE http_validator DROP COLUMN read_at",),
    ),
    # What versions can do, found when somebody asked for it, and kept by digest.
    Migration(name="0024_facts", up=(CREATE_FACTS,), down=("DROP TABLE gate_facts",)),
    # The triggers that stand aside for a sync do so in less time (tables/search.py).
    Migration(name="0025_small_triggers", up=SMALL_TRIGGERS, down=LARGE_TRIGGERS),
    # What people had decided before a downgrade below 0022 is in force again.
    Migration(name="0026_kept_decisions", up=PUT_BACK_WORDS, down=()),
    # What a sync replaces, it remembers itself.
    Migration(name="0027_remember_in_bulk", up=REMEMBER_OTHERS, down=REMEMBER_EACH),
)
