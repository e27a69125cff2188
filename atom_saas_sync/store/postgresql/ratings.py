"""Ratings and their outbox: pending, sent and failed ratings.

A rating is pending while `synced_to_saas` is false and it is not on the failed list. Triggers reset it at every change
and assign the version (schema.sql). Each statement here that marks a rating as sent or failed names its version, so
that a concurrent change stays pending.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg

from atom_saas_sync.core.canonical import decode_object
from atom_saas_sync.core.plan.figures import plan_figures
from atom_saas_sync.core.ratings import kept_rating
from atom_saas_sync.model import Delivery, ListedRating, Rating, RatingFailure, RatingReceipt, RatingsCheck
from atom_saas_sync.store.names import NOT_UPDATABLE
from atom_saas_sync.store.postgresql.audit import write_audit, write_audits
from atom_saas_sync.store.postgresql.counters import increment_all, requests_counted
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.effects import EffectWriter
from atom_saas_sync.store.postgresql.facts import drop_fact, get_fact, set_fact
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.postgresql.skill_states import read_states
from atom_saas_sync.times import time_text

# The newest failure of each rating: the Atom backend may have several.
_WITH_FAILURE = """
    LEFT JOIN LATERAL (
        SELECT * FROM failed_rating_uploads WHERE rating_id = r.id ORDER BY failed_at DESC, id DESC LIMIT 1
    ) AS f ON true
"""
_RATING = f"""
    SELECT r.id, r.skill_id, r.user_id, r.rating AS stars, r.review AS comment, r.updated_at, r.version,
           r.remote_rating_id, r.base_digest, f.retry_count, coalesce(f.max_retries, 5) AS max_retries
    FROM skill_ratings AS r {_WITH_FAILURE}
"""  # noqa: S608 - constants
_LISTED = f"""
    SELECT r.id, r.skill_id, r.user_id, r.rating AS stars, r.review AS comment,
           CASE WHEN r.synced_to_saas THEN 'sent' WHEN f.id IS NULL THEN 'pending' ELSE 'failed' END AS state,
           r.created_at, r.updated_at, r.synced_at, r.remote_rating_id, r.note, r.replaced,
           f.error_type, f.error_message, f.failed_at, f.last_retry_at, f.next_retry_at, f.retry_count, f.max_retries
    FROM skill_ratings AS r {_WITH_FAILURE}
"""  # noqa: S608 - constants
_FOUND = f"""
    FROM ({_LISTED}) AS listed
    WHERE (%(state)s::text IS NULL OR state = %(state)s)
    AND (%(skill_id)s::text IS NULL OR skill_id = %(skill_id)s)
    AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
"""
_NO_PAUSE = timedelta(days=2)  # longer than any pause before a retry: set by a clock that was later set back
_ACTIONS = {"sent": "added", "updated": "updated", "taken": "updated", "kept": "unchanged", "failed": "failed"}
_NEW_VERSION = "replace(gen_random_uuid()::text, '-', '')"


class Ratings:
    """The ratings in the database. Raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # The outbox

    def due_ids(self, now: datetime, *, retry_failed: bool = False) -> list[str]:
        """Return the ratings to send, oldest change first: pending ones, and failed ones whose retry is due.

        With `retry_failed`, all failed ones, including those that need a manual retry.
        """
        with self._database.reading() as connection:
            rows = connection.execute(
                f"""
                SELECT r.id FROM skill_ratings AS r {_WITH_FAILURE}
                WHERE NOT r.synced_to_saas
                    AND (f.id IS NULL OR f.next_retry_at <= %s OR f.next_retry_at > %s OR %s)
                ORDER BY r.updated_at NULLS FIRST, r.number
                """,  # noqa: S608 - constants
                (now, now + _NO_PAUSE, retry_failed),
            )
            return [row[0] for row in rows]

    def load(self, ids: Sequence[str]) -> list[Rating]:
        """Return the current state of those of these ratings that are still pending, in this order."""
        with self._database.reading() as connection:
            rows = connection.execute(
                f"{_RATING} JOIN unnest(%s::text[]) WITH ORDINALITY AS wanted (id, place) ON wanted.id = r.id "
                "WHERE NOT r.synced_to_saas ORDER BY wanted.place",
                (list(ids),),
            )
            return [Rating(**dict(row.items())) for row in rows]

    def reopen_all(self) -> None:
        """Make every rating pending again, failed ones too, each version with its existing key."""
        with self._database.transaction(bulk=True) as connection:
            connection.execute(
                f"UPDATE skill_ratings SET synced_to_saas = false, note = NULL, version = coalesce(version, "  # noqa: S608
                f"{_NEW_VERSION})"
            )
            connection.execute("DELETE FROM failed_rating_uploads")
            drop_fact(connection, NOT_UPDATABLE)

    def count_pending(self) -> int:
        """Return the number of pending ratings, without failed ones."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT count(*) FROM skill_ratings AS r WHERE NOT synced_to_saas "
                "AND NOT EXISTS (SELECT FROM failed_rating_uploads WHERE rating_id = r.id)"
            ).fetchone()
            assert row is not None
            return int(row[0])

    def record_deliveries(
        self,
        deliveries: Sequence[Delivery],
        *,
        checks: Sequence[RatingsCheck] = (),
        now: datetime,
        requests: dict[tuple[str, str], int],
    ) -> None:
        """Store the results of sending ratings, the skills that were checked, and the counters, in one transaction."""
        moment = now.replace(microsecond=0)
        with self._database.transaction(bulk=True) as connection:
            averages: dict[str, RatingReceipt] = {}
            for each in deliveries:
                _settle_one(connection, each, moment)
                if each.receipt is not None:
                    averages[each.rating.skill_id] = each.receipt
            known = read_states(connection, list(averages), write=True, signer=None)
            plans = [plan_figures(each, averages[skill_id]) for skill_id, each in known.items()]
            EffectWriter(connection, history_versions=0, signer=None).carry_out(plans, now, page=None, actor="")
            connection.execute(
                "INSERT INTO http_validator (resource, etag, checked_at) "
                "SELECT resource, etag, %s FROM unnest(%s::text[], %s::text[]) AS new (resource, etag) "
                "ON CONFLICT (resource) DO UPDATE SET (etag, checked_at) = (excluded.etag, excluded.checked_at)",
                (moment, [check.resource for check in checks], [check.etag for check in checks]),
            )
            ended = (
                ("atom_saas_sync_items_total", 1, {"type": "rating", "action": _ACTIONS[each.end]})
                for each in deliveries
            )
            increment_all(connection, [*requests_counted(requests), *ended])

    def can_update(self, marketplace: str) -> bool:
        """Tell whether a marketplace may be able to update ratings."""
        with self._database.reading() as connection:
            return get_fact(connection, NOT_UPDATABLE) != marketplace

    def note_not_updatable(self, marketplace: str, now: datetime) -> None:
        """Record that a marketplace can't update ratings."""
        with self._database.transaction() as connection:
            set_fact(connection, NOT_UPDATABLE, marketplace, now)

    # Pulling ratings

    def least_recently_checked(self, prefix: str, limit: int) -> list[tuple[str, str | None]]:
        """Return skills that have ratings without pending changes, least recently checked first.

        Each comes with the ETag of the resource named by `prefix` and its id.
        """
        with self._database.reading() as connection:
            rows = connection.execute(
                """
                SELECT r.skill_id, v.etag
                FROM (SELECT DISTINCT skill_id FROM skill_ratings WHERE synced_to_saas) AS r
                LEFT JOIN http_validator AS v ON v.resource = %s || r.skill_id
                ORDER BY v.checked_at NULLS FIRST, r.skill_id LIMIT %s
                """,
                (prefix, limit),
            )
            return [(row[0], row[1]) for row in rows]

    def settled_of(self, skill_id: str) -> list[Rating]:
        """Return the ratings of a skill that are not pending."""
        with self._database.reading() as connection:
            rows = connection.execute(f"{_RATING} WHERE r.skill_id = %s AND r.synced_to_saas", (skill_id,))
            return [Rating(**dict(row.items())) for row in rows]

    # Actions of users

    def is_cached(self, skill_id: str) -> bool:
        """Tell whether a skill is in the cache."""
        with self._database.reading() as connection:
            return bool(connection.execute("SELECT FROM usable_skill WHERE skill_id = %s", (skill_id,)).fetchall())

    def add(self, skill_id: str, user_id: str, stars: int, comment: str | None, *, now: datetime) -> ListedRating:
        """Store or change a user's rating; without a comment, the existing one stays."""
        with self._database.transaction() as connection:
            connection.execute(
                """
                INSERT INTO skill_ratings AS r (skill_id, user_id, rating, review, created_at, updated_at)
                VALUES (%(skill)s, %(user)s, %(stars)s, nullif(%(comment)s, ''), %(now)s, %(now)s)
                ON CONFLICT (skill_id, user_id) DO UPDATE SET
                    rating = excluded.rating,
                    review = CASE WHEN %(comment)s::text IS NULL THEN r.review ELSE excluded.review END,
                    updated_at = excluded.updated_at
                WHERE r.rating IS DISTINCT FROM excluded.rating
                    OR (%(comment)s::text IS NOT NULL AND r.review IS DISTINCT FROM excluded.review)
                """,
                {
                    "skill": skill_id,
                    "user": user_id,
                    "stars": stars,
                    "comment": comment,
                    "now": now.replace(microsecond=0),
                },
            )
            row = connection.execute(f"{_LISTED} WHERE r.skill_id = %s AND r.user_id = %s", (skill_id, user_id))
            found = row.fetchone()
            assert found is not None
            return ListedRating(**dict(found.items()))

    def listed(
        self,
        *,
        state: str | None = None,
        skill_id: str | None = None,
        user_id: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> tuple[list[ListedRating], int]:
        """Return ratings, newest change first, after skipping `offset`, and their total number."""
        wanted = {"state": state, "skill_id": skill_id, "user_id": user_id, "limit": limit, "offset": offset}
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT * {_FOUND} ORDER BY updated_at DESC NULLS LAST, length(id) DESC, id DESC "
                "LIMIT %(limit)s OFFSET %(offset)s",
                wanted,
            )
            ratings = [ListedRating(**dict(row.items())) for row in rows]
            total = connection.execute(f"SELECT count(*) {_FOUND}", wanted).fetchone()
            assert total is not None
            return ratings, int(total[0])

    def find(self, rating_id: str) -> ListedRating | None:
        """Return one rating."""
        with self._database.reading() as connection:
            return _find(connection, rating_id)

    def retry(self, ids: Sequence[str], *, actor: str, now: datetime) -> list[str]:
        """Make failed ratings pending again, under the same key; return those that were on the failed list."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "DELETE FROM failed_rating_uploads WHERE rating_id = ANY(%s) RETURNING rating_id", (list(ids),)
            )
            retried = sorted(row[0] for row in rows)
            write_audits(connection, actor, "ratings retry", [(each, {}) for each in retried], now)
            return retried

    def delete(self, ids: Sequence[str], *, actor: str, now: datetime) -> list[str]:
        """Delete the never sent ones of these ratings, and return their ids; the audit log keeps them."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "DELETE FROM skill_ratings WHERE id = ANY(%s) AND NOT synced_to_saas AND remote_rating_id IS NULL "
                "RETURNING id, skill_id, user_id, rating, review",
                (list(ids),),
            ).fetchall()
            write_audits(connection, actor, "ratings delete", [(row["id"], dict(row.items())) for row in rows], now)
            return [row["id"] for row in rows]

    def restore(self, rating_id: str, *, actor: str, now: datetime) -> ListedRating | None:
        """Restore the rating that the marketplace's rating replaced as a new pending version; None if there is none."""
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT rating, review, replaced FROM skill_ratings WHERE id = %s", (rating_id,)
            ).fetchone()
            kept = None if row is None else kept_rating(row["replaced"])
            if row is None or kept is None:
                return None
            connection.execute(
                "UPDATE skill_ratings SET rating = %s, review = %s, updated_at = %s, replaced = NULL WHERE id = %s",
                (kept["rating"], kept["comment"], now.replace(microsecond=0), rating_id),
            )
            before = {"rating": row["rating"], "review": row["review"]}
            write_audit(connection, actor, "ratings restore", rating_id, now, before)
            return _find(connection, rating_id)


def _find(connection: psycopg.Connection[Row], rating_id: str) -> ListedRating | None:
    row = connection.execute(f"{_LISTED} WHERE r.id = %s", (rating_id,)).fetchone()
    return None if row is None else ListedRating(**dict(row.items()))


def _settle_one(connection: psycopg.Connection[Row], delivery: Delivery, moment: datetime) -> None:
    rating, remote = delivery.rating, delivery.remote
    if delivery.failure is not None:
        _note_failure(connection, rating, delivery.failure, moment)
        return
    if delivery.end == "taken" and remote is not None:
        _take(connection, delivery, moment)
    rating_id = delivery.receipt.rating_id if delivery.receipt else remote.rating_id if remote else None
    # By skill and user, not by id: if the row was replaced meanwhile, the new row gets the remote id.
    connection.execute(
        """
        UPDATE skill_ratings SET
            remote_rating_id = coalesce(%(remote)s, remote_rating_id),
            base_digest = coalesce(%(digest)s, base_digest),
            synced_to_saas = synced_to_saas OR version IS NOT DISTINCT FROM %(version)s,
            synced_at = CASE WHEN version IS NOT DISTINCT FROM %(version)s THEN %(now)s ELSE synced_at END,
            note = CASE WHEN version IS NOT DISTINCT FROM %(version)s THEN %(note)s ELSE note END
        WHERE skill_id = %(skill)s AND user_id = %(user)s
        """,
        {
            "remote": rating_id,
            "digest": delivery.digest,
            "version": rating.version,
            "now": moment,
            "note": delivery.note,
            "skill": rating.skill_id,
            "user": rating.user_id,
        },
    )
    connection.execute(
        "DELETE FROM failed_rating_uploads WHERE rating_id = "
        "(SELECT id FROM skill_ratings WHERE id = %s AND version IS NOT DISTINCT FROM %s)",
        (rating.id, rating.version),
    )


def _take(connection: psycopg.Connection[Row], delivery: Delivery, moment: datetime) -> None:
    """Store the marketplace's rating, and keep the local one."""
    rating, remote = delivery.rating, delivery.remote
    assert remote is not None
    row = connection.execute(
        "SELECT rating, review, updated_at, version, replaced FROM skill_ratings "
        "WHERE id = %s AND version IS NOT DISTINCT FROM %s",
        (rating.id, rating.version),
    ).fetchone()
    if row is None:
        return
    kept = decode_object(row["replaced"] or "")
    replaced = row["replaced"]
    # Only a local rating is kept, not an earlier one from the marketplace, which has the same version.
    if kept is None or kept.get("version") != row["version"]:
        values: dict[str, Any] = {
            "rating": row["rating"],
            "comment": row["review"],
            "updated_at": time_text(row["updated_at"]),
            "replaced_at": time_text(moment),
            "version": row["version"],
        }
        replaced = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    taken_at = None if delivery.taken_at is None else delivery.taken_at.replace(microsecond=0)
    connection.execute(
        "UPDATE skill_ratings SET rating = %s, review = %s, updated_at = coalesce(%s, updated_at), replaced = %s "
        "WHERE id = %s",
        (remote.stars, remote.comment, taken_at, replaced, rating.id),
    )


def _note_failure(
    connection: psycopg.Connection[Row], rating: Rating, failure: RatingFailure, moment: datetime
) -> None:
    # An entry has the id of its rating, so that one id names both; the Atom backend's entries keep their own.
    connection.execute(
        """
        INSERT INTO failed_rating_uploads AS f
            (id, rating_id, error_message, error_type, failed_at, next_retry_at, retry_count)
        SELECT coalesce(
                (SELECT id FROM failed_rating_uploads WHERE rating_id = r.id ORDER BY failed_at DESC, id DESC LIMIT 1),
                r.id
            ), r.id, %(message)s, %(type)s, %(now)s, %(next)s, %(count)s
        FROM skill_ratings AS r
        WHERE id = %(id)s AND version IS NOT DISTINCT FROM %(version)s AND NOT synced_to_saas
        ON CONFLICT (id) DO UPDATE SET
            (error_message, error_type, last_retry_at, next_retry_at, retry_count)
            = (excluded.error_message, excluded.error_type, excluded.failed_at, excluded.next_retry_at,
               excluded.retry_count)
        """,
        {
            "message": failure.message,
            "type": failure.type,
            "now": moment,
            "next": None if failure.next_retry_at is None else failure.next_retry_at.replace(microsecond=0),
            "count": failure.retry_count,
            "id": rating.id,
            "version": rating.version,
        },
    )
