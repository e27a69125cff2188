"""Ratings and their outbox: pending, sent and failed ones.

A rating is pending while `synced_to_saas` is 0 and it is not on the failed list. Triggers set that at every change and
name the version (tables/ratings.py). Settling a rating applies to a named version, so a change made in the meantime
stays pending.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from atom_saas_sync.core.plan.figures import plan_figures
from atom_saas_sync.core.ratings import kept_rating
from atom_saas_sync.model import Delivery, ListedRating, Rating, RatingFailure, RatingReceipt, RatingsCheck
from atom_saas_sync.store.names import NOT_UPDATABLE
from atom_saas_sync.store.sqlite.audit import write_audit
from atom_saas_sync.store.sqlite.bulk import bulk_write
from atom_saas_sync.store.sqlite.counters import count_requests, increment
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.effects import EffectWriter
from atom_saas_sync.store.sqlite.runs import get_fact, set_fact
from atom_saas_sync.store.sqlite.skill_states import read_states
from atom_saas_sync.times import format_time, parse_time, time_text

# The newest failure of each rating: the Atom backend may have several.
_WITH_FAILURE = (
    "LEFT JOIN failed_rating_uploads AS f "
    "ON f.rowid = (SELECT max(rowid) FROM failed_rating_uploads WHERE rating_id = r.id)"
)
_RATING = f"""
    SELECT r.id, CAST(r.skill_id AS TEXT) AS skill_id, CAST(r.user_id AS TEXT) AS user_id, r.rating AS stars,
           CAST(r.review AS TEXT) AS comment, r.updated_at, r.version,
           r.remote_rating_id, r.base_digest, f.retry_count, coalesce(f.max_retries, 5) AS max_retries
    FROM skill_ratings AS r {_WITH_FAILURE}
"""  # noqa: S608 - constants
_LISTED = f"""
    SELECT r.id, CAST(r.skill_id AS TEXT) AS skill_id, CAST(r.user_id AS TEXT) AS user_id, r.rating AS stars,
           CAST(r.review AS TEXT) AS comment,
           CASE WHEN r.synced_to_saas != 0 THEN 'sent' WHEN f.id IS NULL THEN 'pending' ELSE 'failed' END AS state,
           r.created_at, r.updated_at, r.synced_at, r.remote_rating_id, r.note, r.replaced,
           f.error_type, f.error_message, f.failed_at, f.last_retry_at, f.next_retry_at, f.retry_count, f.max_retries
    FROM skill_ratings AS r {_WITH_FAILURE}
"""  # noqa: S608 - constants
_NO_PAUSE = timedelta(days=2)  # longer than any retry delay: written by a clock that was set back
_ACTIONS = {"sent": "added", "updated": "updated", "taken": "updated", "kept": "unchanged", "failed": "failed"}


class Ratings:
    """The ratings in the database. Raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self.database = self._database = database

    # The outbox

    def due_ids(self, now: datetime, *, retry_failed: bool = False) -> list[str]:
        """Return the ratings to send, oldest change first: all pending ones, and failed ones that are due.

        With `retry_failed`, all failed ones, including those that need a manual retry.
        """
        with self._database.reading() as connection:
            rows = connection.execute(
                f"""
                SELECT r.id FROM skill_ratings AS r {_WITH_FAILURE}
                WHERE r.synced_to_saas = 0 AND (f.id IS NULL OR f.next_retry_at <= ?1 OR f.next_retry_at > ?3 OR ?2)
                ORDER BY julianday(r.updated_at), r.number
                """,  # noqa: S608 - constants
                (format_time(now), retry_failed, format_time(now + _NO_PAUSE)),
            )
            return [row[0] for row in rows]

    def load(self, ids: Sequence[str]) -> list[Rating]:
        """Return the current state of these ratings in this order, without those that are settled or deleted."""
        with self._database.reading() as connection:
            rows = connection.execute(
                f"{_RATING} JOIN json_each(?) AS wanted ON wanted.value = r.id "
                "WHERE r.synced_to_saas = 0 ORDER BY wanted.key",
                (json.dumps(list(ids)),),
            )
            return [Rating(**_values(row)) for row in rows]

    def reopen_all(self) -> None:
        """Make every rating pending again, including failed ones; each version keeps its key."""
        with self._database.transaction() as connection, bulk_write(connection):
            connection.execute(
                "UPDATE skill_ratings SET synced_to_saas = 0, note = NULL, "
                "version = coalesce(version, lower(hex(randomblob(16))))"
            )
            connection.execute("DELETE FROM failed_rating_uploads")
            connection.execute("DELETE FROM fact WHERE name = ?", (NOT_UPDATABLE,))

    def count_pending(self) -> int:
        """Return the number of pending ratings, without failed ones."""
        with self._database.reading() as connection:
            count: int = connection.execute(
                "SELECT count(*) FROM skill_ratings WHERE synced_to_saas = 0 "
                "AND id NOT IN (SELECT rating_id FROM failed_rating_uploads)"
            ).fetchone()[0]
            return count

    def record_deliveries(
        self,
        deliveries: Sequence[Delivery],
        *,
        checks: Sequence[RatingsCheck] = (),
        now: datetime,
        requests: dict[tuple[str, str], int],
    ) -> None:
        """Store the results of sending ratings, the skills that were checked, and the counters, in one transaction."""
        with self._database.transaction() as connection, bulk_write(connection):
            averages: dict[str, RatingReceipt] = {}
            for each in deliveries:
                _settle_one(connection, each, format_time(now))
                if each.receipt is not None:
                    averages[each.rating.skill_id] = each.receipt
                increment(connection, "atom_saas_sync_items_total", type="rating", action=_ACTIONS[each.end])
            known = read_states(connection, list(averages), write=True, signer=None)
            plans = [plan_figures(each, averages[skill_id]) for skill_id, each in known.items()]
            EffectWriter(connection, history_versions=0, signer=None).carry_out(plans, now, page=None, actor="")
            connection.executemany(
                "INSERT INTO http_validator (resource, etag, checked_at) VALUES (?, ?, ?) ON CONFLICT (resource) "
                "DO UPDATE SET etag = excluded.etag, checked_at = excluded.checked_at",
                [(check.resource, check.etag, format_time(now)) for check in checks],
            )
            count_requests(connection, requests)

    def can_update(self, marketplace: str) -> bool:
        """Tell whether a marketplace may be able to update ratings."""
        with self._database.reading() as connection:
            return get_fact(connection, NOT_UPDATABLE) != marketplace

    def note_not_updatable(self, marketplace: str, now: datetime) -> None:
        """Remember that a marketplace can't update ratings."""
        with self._database.transaction() as connection:
            set_fact(connection, NOT_UPDATABLE, marketplace, now)

    # Pulling ratings

    def least_recently_checked(self, prefix: str, limit: int) -> list[tuple[str, str | None]]:
        """Return skills with settled ratings, least recently checked first.

        `prefix` followed by the skill's id names the resource whose ETag is included.
        """
        with self._database.reading() as connection:
            rows = connection.execute(
                """
                SELECT r.skill_id, v.etag
                FROM (SELECT DISTINCT skill_id FROM skill_ratings WHERE synced_to_saas != 0) AS r
                LEFT JOIN http_validator AS v ON v.resource = ?1 || r.skill_id
                ORDER BY coalesce(v.checked_at, ''), r.skill_id LIMIT ?2
                """,
                (prefix, limit),
            )
            return [(row[0], row[1]) for row in rows]

    def settled_of(self, skill_id: str) -> list[Rating]:
        """Return the ratings of a skill that are not pending."""
        with self._database.reading() as connection:
            rows = connection.execute(f"{_RATING} WHERE r.skill_id = ? AND r.synced_to_saas != 0", (skill_id,))
            return [Rating(**_values(row)) for row in rows]

    # Actions of users

    def is_cached(self, skill_id: str) -> bool:
        """Tell whether a skill is in the cache."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT 1 FROM usable_skill WHERE skill_id = ?", (skill_id,)).fetchone()
            return row is not None

    def add(self, skill_id: str, user_id: str, stars: int, comment: str | None, *, now: datetime) -> ListedRating:
        """Store or change a user's rating; without a comment, the existing one stays."""
        with self._database.transaction() as connection:
            connection.execute(
                """
                INSERT INTO skill_ratings (skill_id, user_id, rating, review, created_at, updated_at)
                VALUES (?1, ?2, ?3, nullif(?4, ''), ?5, ?5)
                ON CONFLICT (skill_id, user_id) DO UPDATE SET
                    rating = excluded.rating,
                    review = CASE WHEN ?4 IS NULL THEN review ELSE excluded.review END,
                    updated_at = excluded.updated_at
                WHERE rating IS NOT excluded.rating OR (?4 IS NOT NULL AND review IS NOT excluded.review)
                """,
                (skill_id, user_id, stars, comment, format_time(now)),
            )
            row = connection.execute(f"{_LISTED} WHERE r.skill_id = ? AND r.user_id = ?", (skill_id, user_id))
            return _listed(row.fetchone())

    def listed(
        self,
        *,
        state: str | None = None,
        skill_id: str | None = None,
        user_id: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> tuple[list[ListedRating], int]:
        """Return ratings, newest change first, after skipping `offset` of them, and their total number."""
        wanted = {
            "state": state,
            "skill_id": skill_id,
            "user_id": user_id,
            "limit": -1 if limit is None else limit,
            "offset": offset,
        }
        found = (
            f"FROM ({_LISTED}) WHERE (:state IS NULL OR state = :state) "
            "AND (:skill_id IS NULL OR skill_id = :skill_id) AND (:user_id IS NULL OR user_id = :user_id)"
        )
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT * {found} ORDER BY julianday(updated_at) DESC, length(id) DESC, id DESC "
                "LIMIT :limit OFFSET :offset",
                wanted,
            )
            ratings = [_listed(row) for row in rows]
            total: int = connection.execute(f"SELECT count(*) {found}", wanted).fetchone()[0]
            return ratings, total

    def find(self, rating_id: str) -> ListedRating | None:
        """Return one rating."""
        with self._database.reading() as connection:
            row = connection.execute(f"{_LISTED} WHERE r.id = ?", (rating_id,)).fetchone()
            return None if row is None else _listed(row)

    def retry(self, ids: Sequence[str], *, actor: str, now: datetime) -> list[str]:
        """Make failed ratings pending again, under the same key; return those that were on the failed list."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "DELETE FROM failed_rating_uploads WHERE rating_id IN (SELECT value FROM json_each(?)) "
                "RETURNING rating_id",
                (json.dumps(list(ids)),),
            )
            retried = sorted(row[0] for row in rows)
            for rating_id in retried:
                write_audit(connection, actor, "ratings retry", str(rating_id), now, {})
            return retried

    def delete(self, ids: Sequence[str], *, actor: str, now: datetime) -> list[str]:
        """Delete those of these ratings that were never sent, and return their ids; the audit log keeps them."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "DELETE FROM skill_ratings WHERE id IN (SELECT value FROM json_each(?)) "
                "AND synced_to_saas = 0 AND remote_rating_id IS NULL RETURNING id, skill_id, user_id, rating, review",
                (json.dumps(list(ids)),),
            ).fetchall()
            for row in rows:
                write_audit(connection, actor, "ratings delete", str(row["id"]), now, dict(row))
            return [row["id"] for row in rows]

    def restore(self, rating_id: str, *, actor: str, now: datetime) -> ListedRating | None:
        """Restore what the marketplace's rating replaced, as a new pending version; None if nothing is kept."""
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT rating, review, CAST(replaced AS TEXT) AS replaced FROM skill_ratings WHERE id = ?",
                (rating_id,),
            ).fetchone()
            kept = None if row is None else kept_rating(row["replaced"])
            if kept is None:
                return None
            connection.execute(
                "UPDATE skill_ratings SET rating = ?, review = ?, updated_at = ?, replaced = NULL WHERE id = ?",
                (kept["rating"], kept["comment"], format_time(now), rating_id),
            )
            before = {"rating": row["rating"], "review": row["review"]}
            write_audit(connection, actor, "ratings restore", str(rating_id), now, before)
            return _listed(connection.execute(f"{_LISTED} WHERE r.id = ?", (rating_id,)).fetchone())


def _listed(row: sqlite3.Row) -> ListedRating:
    """Return the rating in a row."""
    return ListedRating(**_values(row))


def _values(row: sqlite3.Row) -> dict[str, Any]:
    return {name: parse_time(value) if name.endswith("_at") else value for name, value in dict(row).items()}


def _settle_one(connection: sqlite3.Connection, delivery: Delivery, moment: str) -> None:
    rating, remote = delivery.rating, delivery.remote
    if delivery.failure is not None:
        _note_failure(connection, rating, delivery.failure, moment)
        return
    if delivery.end == "taken" and remote is not None:
        connection.execute(
            """
            UPDATE skill_ratings SET
                rating = ?1, review = ?2, updated_at = coalesce(?3, updated_at),
                -- What was written here is kept, not what came from the marketplace before: that has the same version.
                replaced = CASE
                    WHEN json_valid(replaced) AND json_extract(replaced, '$.version') IS version THEN replaced
                    ELSE json_object('rating', rating, 'comment', review, 'updated_at', updated_at,
                                     'replaced_at', ?4, 'version', version)
                END
            WHERE id = ?5 AND version IS ?6
            """,
            (remote.stars, remote.comment, time_text(delivery.taken_at), moment, rating.id, rating.version),
        )
    rating_id = delivery.receipt.rating_id if delivery.receipt else remote.rating_id if remote else None
    # By skill and user, not by id: if the row was replaced in the meantime, the new row gets the remote id.
    connection.execute(
        """
        UPDATE skill_ratings SET
            remote_rating_id = coalesce(?1, remote_rating_id),
            base_digest = coalesce(?2, base_digest),
            synced_to_saas = CASE WHEN version IS ?3 THEN 1 ELSE synced_to_saas END,
            synced_at = CASE WHEN version IS ?3 THEN ?4 ELSE synced_at END,
            note = CASE WHEN version IS ?3 THEN ?5 ELSE note END
        WHERE skill_id = ?6 AND user_id = ?7
        """,
        (rating_id, delivery.digest, rating.version, moment, delivery.note, rating.skill_id, rating.user_id),
    )
    connection.execute(
        "DELETE FROM failed_rating_uploads "
        "WHERE rating_id = (SELECT id FROM skill_ratings WHERE id = ? AND version IS ?)",
        (rating.id, rating.version),
    )


def _note_failure(connection: sqlite3.Connection, rating: Rating, failure: RatingFailure, moment: str) -> None:
    # An entry has the id of its rating; the Atom backend's entries keep their own.
    connection.execute(
        """
        INSERT INTO failed_rating_uploads
            (id, rating_id, error_message, error_type, failed_at, next_retry_at, retry_count)
        SELECT coalesce((SELECT id FROM failed_rating_uploads WHERE rating_id = r.id ORDER BY rowid DESC), r.id), r.id,
            ?1, ?2, ?3, ?4, ?5
        FROM skill_ratings AS r WHERE id = ?6 AND version IS ?7 AND synced_to_saas = 0
        ON CONFLICT DO UPDATE SET
            error_message = excluded.error_message, error_type = excluded.error_type, last_retry_at = ?3,
            next_retry_at = excluded.next_retry_at, retry_count = excluded.retry_count
        """,
        (
            failure.message,
            failure.type,
            moment,
            time_text(failure.next_retry_at),
            failure.retry_count,
            rating.id,
            rating.version,
        ),
    )
