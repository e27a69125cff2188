"""The ratings, and those that could not be sent."""

from __future__ import annotations

from atom_saas_sync.store.sqlite.tables.shared import NEW_VERSION, NOT_OURS, NOW

CREATE_RATINGS = (
    f"""
    CREATE TABLE skill_rating (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        skill_id TEXT NOT NULL,
        user_id TEXT NOT NULL,
        rating INTEGER NOT NULL CHECK (rating BETWEEN 1 AND 5),
        review TEXT,
        synced_to_saas INTEGER NOT NULL DEFAULT 0,
        synced_at TEXT,
        remote_rating_id TEXT,
        created_at TEXT NOT NULL DEFAULT ({NOW}),
        updated_at TEXT NOT NULL DEFAULT ({NOW}),
        tenant_id TEXT NOT NULL DEFAULT 'default',
        version TEXT,
        base_digest BLOB,
        note TEXT,
        UNIQUE (skill_id, user_id)
    )
    """,
    "CREATE INDEX idx_skill_rating_pending ON skill_rating(updated_at) WHERE synced_to_saas = 0",
    """
    CREATE TABLE failed_rating_upload (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        rating_id INTEGER NOT NULL UNIQUE REFERENCES skill_rating(id) ON DELETE CASCADE,
        error_message TEXT NOT NULL,
        error_type TEXT NOT NULL DEFAULT 'api_error',
        failed_at TEXT NOT NULL,
        last_retry_at TEXT,
        next_retry_at TEXT,
        retry_count INTEGER NOT NULL DEFAULT 0,
        max_retries INTEGER NOT NULL DEFAULT 5,
        tenant_id TEXT NOT NULL DEFAULT 'default'
    )
    """,
    # Writing a rating makes it pending and gives the version a random name, from which the idempotency key of its
    # upload is derived: the name is stored before the upload, and lasts as long as the version.
    f"""
    CREATE TRIGGER skill_rating_after_insert AFTER INSERT ON skill_rating
    WHEN {NOT_OURS}
    BEGIN
        UPDATE skill_rating SET
            version = {NEW_VERSION}, synced_to_saas = 0, synced_at = NULL, note = NULL,
            updated_at = CASE WHEN julianday(new.updated_at) IS NULL THEN {NOW} ELSE new.updated_at END
        WHERE id = new.id;
    END
    """,  # noqa: S608 - built from constants
    f"""
    CREATE TRIGGER skill_rating_after_update AFTER UPDATE OF skill_id, user_id, rating, review ON skill_rating
    WHEN {NOT_OURS} AND (
        new.rating IS NOT old.rating OR new.review IS NOT old.review
        OR new.skill_id IS NOT old.skill_id OR new.user_id IS NOT old.user_id
    )
    BEGIN
        UPDATE skill_rating SET
            version = {NEW_VERSION}, synced_to_saas = 0, note = NULL,
            -- A writer that leaves the time as it was has changed the rating now.
            updated_at = CASE
                WHEN new.updated_at IS old.updated_at OR julianday(new.updated_at) IS NULL THEN {NOW}
                ELSE new.updated_at
            END,
            remote_rating_id = CASE
                WHEN new.skill_id IS old.skill_id AND new.user_id IS old.user_id THEN new.remote_rating_id
            END,
            base_digest = CASE
                WHEN new.skill_id IS old.skill_id AND new.user_id IS old.user_id THEN new.base_digest
            END
        WHERE id = new.id;
        DELETE FROM failed_rating_upload WHERE rating_id = new.id;
    END
    """,  # noqa: S608 - built from constants
    # For programs that do not switch foreign keys on.
    """
    CREATE TRIGGER skill_rating_after_delete AFTER DELETE ON skill_rating
    BEGIN
        DELETE FROM failed_rating_upload WHERE rating_id = old.id;
    END
    """,
)
