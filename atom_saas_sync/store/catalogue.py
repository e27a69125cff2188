"""Skills and categories: what is known of them, and carrying out a plan. No decisions are made here."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from atom_saas_sync.core.canonical import stored_version, version_key
from atom_saas_sync.core.plan import is_tampered
from atom_saas_sync.model import (
    TIME_TO_LIVE,
    Action,
    Base,
    BaseChange,
    CacheChange,
    Category,
    ConflictEntry,
    Known,
    Outcome,
    PageRecord,
    SkillVersion,
    WaitingConflict,
)
from atom_saas_sync.store import integrity, resolutions, search_index
from atom_saas_sync.store.audit import write_audit
from atom_saas_sync.store.backend_tables import NEVER_EXPIRES, NO_VERSION
from atom_saas_sync.store.clauses import after, before
from atom_saas_sync.store.counters import count_requests, increment
from atom_saas_sync.store.database import Database
from atom_saas_sync.store.failures import translated_errors
from atom_saas_sync.store.history import keep_local, pack, version_of
from atom_saas_sync.store.runs import APPROVED_DELETIONS, get_fact
from atom_saas_sync.store.search_index import same_words, words, words_of
from atom_saas_sync.times import format_exact_time, format_time, parse_time

# Ids come in any order, so each new row is somewhere else in its indexes: a tenth less time for 150,000 skills.
_CACHE_KIB = 16 * 1024
_CLOCK_STEPS = timedelta(minutes=1)  # of a clock that is kept right
_EXPIRY_SLACK = timedelta(hours=12)
_ENTRIES_AT_ONCE = 1024
_PARAMETERS_OF_ENTRY = 2 + len(search_index.FIELDS)
_DIGEST_BYTES = 32
_REPLACEMENT = "\ufffd"
"""What stands in a text in place of bytes that are not UTF-8."""

_KNOWN = f"""
    SELECT wanted.value AS skill_id, CAST(c.skill_data AS TEXT) AS skill_data, typeof(c.skill_data) AS stored_as,
           c.updated_at, CAST(b.wire_digest AS BLOB) AS wire_digest, CAST(b.content_digest AS BLOB) AS content_digest,
           CAST(b.exec_digest AS BLOB) AS exec_digest, CAST(b.data AS TEXT) AS data, b.page,
           b.deleted_at, CAST(b.version AS TEXT) AS version, w.id AS waiting_id,
           nullif(CAST(w.remote_data AS TEXT), '{{}}') AS remote_data, w.undone_at
    FROM json_each(?) AS wanted
    LEFT JOIN skill_cache AS c ON c.skill_id = wanted.value
    LEFT JOIN skill_base AS b ON b.skill_id = wanted.value
    LEFT JOIN conflict_log AS w ON w.id = {resolutions.NEWEST_OPEN.format(skill_id="wanted.value")}
    WHERE c.id IS NOT NULL OR b.skill_id IS NOT NULL OR w.id IS NOT NULL
"""  # noqa: S608 - constants

# Entries that expire soon, too late, or never though they are the marketplace's; ?1 and ?2 are the limits.
_MOVABLE = f"""
    ({before("expires_at", "?1")} OR ({after("expires_at", "?2")} AND expires_at < '{NEVER_EXPIRES}')
        OR (expires_at = '{NEVER_EXPIRES}' AND EXISTS (
            SELECT 1 FROM skill_base AS b WHERE b.skill_id = skill_cache.skill_id AND b.data IS NULL)))
"""  # noqa: S608 - constants
_KEEP = """
    INSERT INTO skill_version (skill_id, version, content_digest, exec_digest, ended_at, ended_by, data)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7
"""
_UNLESS_LAST = """
    WHERE NOT EXISTS (
        SELECT 1 FROM skill_version WHERE content_digest = ?3 AND ended_by = ?6
        AND id = (SELECT max(id) FROM skill_version WHERE skill_id = ?1 AND origin = 'marketplace'))
"""

_decode_list = msgspec.json.Decoder(list[str]).decode
_decode_rows = msgspec.json.Decoder(list[tuple[int, str]]).decode


class Replaced(NamedTuple):
    """A row that was written over: its text until then, the same decoded if that is known, and what wrote last."""

    text: str
    fields: Mapping[str, Any] | None
    action: Action


class _Ended(NamedTuple):
    """A version that ends here, as the history keeps it."""

    skill_id: str
    version: str | None
    text: bytes
    content_digest: bytes
    exec_digest: bytes
    ended_by: str
    settles: bool
    """Whether a conflict is settled by this: a settlement that was undone is made again, but not kept again."""


class _Entry(NamedTuple):
    """An entry of the full-text index to write, or to `delete`: of an odd skill `words` is None."""

    command: str | None
    row: int
    text: str
    words: tuple[str | None, ...] | None


class Catalogue:
    """The cached skills and categories with their bases."""

    def __init__(
        self, database: Database, *, history_versions: int = 10, signer: integrity.Signer | None = None
    ) -> None:
        """Work on `database`; keep `history_versions` former versions of each skill.

        With a `signer` what the marketplace sends is signed.
        """
        self._database = database
        self._history_versions = history_versions
        self._signer = signer
        with translated_errors(database.path, (sqlite3.Error,)):
            database.connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}").fetchone()

    @property
    def database(self) -> Database:
        """Return the database."""
        return self._database

    def known(self, skill_ids: Iterable[str]) -> dict[str, Known]:
        """Return what is stored of these skills; those of which nothing is are left out."""
        with self.batch(write=False) as batch:
            return batch.known(skill_ids)

    # Before and during a walk

    def page_records(self, list_key: str) -> dict[int, PageRecord]:
        """Return what is known of the pages of the list that `list_key` names."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT page, etag, items, total FROM http_validator WHERE page IS NOT NULL AND resource = ? || page",
                (list_key,),
            )
            return {row["page"]: PageRecord(row["etag"], row["items"], row["total"]) for row in rows}

    def forget_other_lists(self, list_key: str) -> None:
        """Drop what is known of the pages of any other list: another marketplace, dialect or page size."""
        with self._database.reading() as connection:
            others = connection.execute(
                "SELECT 1 FROM http_validator WHERE page IS NOT NULL AND resource != ? || page", (list_key,)
            ).fetchone()
        if others:
            with self._database.transaction() as connection:
                leave_pages(connection, 1)

    def digests_on_page(self, page: int) -> dict[bytes, str]:
        """Return the skill of each wire digest that was last seen on `page`.

        Skills with an open conflict are excluded: their remote version is not the base, so the base again is a change.
        """
        with self._database.reading() as connection:
            return _digests_on_page(connection, page)

    def ids_on_page(self, page: int) -> list[str]:
        """Return the skills that were last seen on `page`."""
        with self._database.reading() as connection:
            return _ids_on_page(connection, page)

    @contextmanager
    def batch(self, *, write: bool = True, fetched: bool = True) -> Iterator[Batch]:
        """Open one short transaction in which a plan is made and carried out; a snapshot only unless `write`.

        What has just been `fetched` is signed. What the plan reads here, another program may have written.
        """
        if not write:
            with self._database.reading() as connection:
                yield Batch(connection, self._history_versions, write=False)
            return
        with self._database.transaction() as connection, bulk_write(connection):
            batch = Batch(connection, self._history_versions, signer=self._signer, fetched=fetched)
            yield batch
            batch.finish()

    def tampered(self, *, everything: bool) -> list[str]:
        """Return the skills whose marketplace text does not have its digest: of all, or of those changed lately."""
        with self._database.reading() as connection:
            look = integrity.tampered if everything else integrity.tampered_since_last_check
            return look(connection, self._signer)

    def unsigned(self) -> list[str]:
        """Return the skills that are not signed with the key; none without a key."""
        with self._database.reading() as connection:
            return integrity.unsigned(connection, self._signer)

    def respelled(self) -> list[str]:
        """Return the skills whose text is not byte for byte what came."""
        with self._database.reading() as connection:
            return integrity.respelled(connection)

    def distrust(self, skill_ids: Sequence[str]) -> None:
        """Let the walk read these skills anew, whatever they were last time."""
        with self._database.transaction() as connection:
            integrity.distrust(connection, skill_ids)

    # After a walk

    def note_tampered(self, found: Sequence[str], now: datetime) -> int:
        """Note which of these skills are still tampered with; return how many."""
        with self._database.transaction() as connection:
            left = list(integrity.tampered_among(connection, found, self._signer))
            integrity.note_tampered(connection, left, now)
        return len(left)

    def forget_pages_from(self, page: int) -> None:
        """Forget `page` and all behind it: the list is not that long any more."""
        with self._database.reading() as connection:
            found = connection.execute("SELECT 1 FROM http_validator WHERE page >= ?", (page,)).fetchone()
        if found:
            with self._database.transaction() as connection:
                leave_pages(connection, page)

    def unlisted_ids(self, listed: AbstractSet[str], *, recorded: bool) -> list[str]:
        """Return the skills of the marketplace that are not among `listed`, and are not known as deleted.

        One that exists only here is of the marketplace as long as a conflict with the marketplace's own waits. If the
        pages of the whole list have just been `recorded`, only skills on none of them are looked at.
        """
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT json_group_array(skill_id) FROM ("  # noqa: S608 - constants
                f"SELECT skill_id FROM skill_base WHERE deleted_at IS NULL {'AND page IS NULL ' if recorded else ''}"
                f"UNION ALL SELECT skill_id FROM conflict_log WHERE {resolutions.OPEN} AND remote_data != '{{}}')"
            ).fetchone()
        return sorted({name for name in _decode_list(row[0]) if name not in listed})

    def marketplace_skills(self) -> int:
        """Return how many cached skills come from the marketplace."""
        with self._database.reading() as connection:
            count: int = connection.execute("SELECT count(*) FROM skill_base").fetchone()[0]
            return count

    def approved_deletions(self) -> int:
        """Return how many deletions a person has approved by `db rebind`."""
        with self._database.reading() as connection:
            return int(get_fact(connection, APPROVED_DELETIONS) or 0)

    def touched_ids(self) -> list[str]:
        """Return the skills whose row another program, or a person, has edited or deleted."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT skill_id FROM skill_base WHERE data IS NOT NULL AND deleted_at IS NULL ORDER BY skill_id"
            )
            return [row[0] for row in rows]

    def waiting_ids(self) -> list[str]:
        """Return the skills whose conflict waits for a person."""
        with self._database.reading() as connection:
            rows = connection.execute(f"SELECT DISTINCT skill_id FROM conflict_log WHERE {resolutions.OPEN}")  # noqa: S608
            return [row[0] for row in rows]

    def look_at_deleted_edits(self, skill_id: str) -> None:
        """Note that somebody looks at the versions of a skill, which hold the edits that another program deleted."""
        with self._database.reading() as connection:
            found = connection.execute("SELECT 1 FROM deleted_edit WHERE skill_id = ?", (skill_id,)).fetchone()
        if found:
            with self.batch(fetched=False) as batch:
                batch.forget_deleted_edits(skill_id)

    def newest_replaced_edits(self, number: int) -> list[int]:
        """Return the conflicts in which a strategy has last replaced what was written here, if nobody has looked."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT id FROM conflict_log WHERE replaced_unseen = 1 ORDER BY resolved_at DESC, id DESC LIMIT ?",
                (number,),
            )
            return [row[0] for row in rows]

    def refresh_expiry(self, now: datetime) -> None:
        """Move `expires_at` of confirmed skills on, once half of their life is over.

        The exact time of the last confirmation is in the view usable_skill; writing every row at every sync would
        rewrite the table four times an hour. An entry that lives for more than a day was confirmed by a clock that was
        set back since.
        """
        due, latest = format_time(now + TIME_TO_LIVE - _EXPIRY_SLACK), format_time(now + TIME_TO_LIVE + _CLOCK_STEPS)
        with self._database.reading() as connection:
            found = connection.execute(f"SELECT 1 FROM skill_cache WHERE {_MOVABLE} LIMIT 1", (due, latest)).fetchone()  # noqa: S608
        if not found:
            return
        with self._database.transaction() as connection:
            for statement in (
                "UPDATE skill_base SET confirmed_at = ?1 WHERE confirmed_at > ?1",
                "UPDATE http_validator SET checked_at = ?1 WHERE checked_at > ?1",
            ):
                connection.execute(statement, (format_time(now),))
            connection.execute(
                f"""
                UPDATE skill_cache SET expires_at = ?3
                WHERE {_MOVABLE} AND skill_id IN (
                    SELECT b.skill_id FROM skill_base AS b LEFT JOIN http_validator AS v ON v.page = b.page
                    WHERE max(b.confirmed_at, coalesce(v.checked_at, '')) >= ?4
                )
                """,  # noqa: S608 - constants
                (due, latest, format_time(now + TIME_TO_LIVE), format_time(now - timedelta(hours=1))),
            )

    # Categories

    def validator(self, resource: str) -> str | None:
        """Return the ETag of a resource."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT etag FROM http_validator WHERE resource = ?", (resource,)).fetchone()
            return row["etag"] if row else None

    def apply_categories(
        self, categories: Sequence[Category] | None, *, whole: bool, resource: str, etag: str | None, now: datetime
    ) -> int:
        """Store the categories that the marketplace lists, None if they are unchanged; return how many changed.

        Those that are not listed are removed if the `whole` list was read. An empty list removes nothing: it does not
        prove that all are gone.
        """
        expires = format_time(now + TIME_TO_LIVE)
        changed: int = 0
        with self._database.transaction() as connection:
            if categories is not None:
                changed = _write_categories(connection, categories, format_time(now), whole=whole)
                connection.execute(
                    "INSERT INTO http_validator (resource, etag, checked_at) VALUES (?, ?, ?) ON CONFLICT (resource) "
                    "DO UPDATE SET etag = excluded.etag, checked_at = excluded.checked_at",
                    (resource, etag, format_time(now)),
                )
            connection.execute("UPDATE category_cache SET expires_at = ?", (expires,))
        return changed

    def changed_categories(self, categories: Sequence[Category], *, whole: bool) -> int:
        """Return how many categories `apply_categories` would change."""
        with self._database.reading() as connection:
            stored = dict(connection.execute("SELECT category_name, category_data FROM category_cache").fetchall())
        listed = {category.name: category.text for category in categories}
        gone = len(stored.keys() - listed.keys()) if listed and whole else 0
        return gone + sum(1 for name, text in listed.items() if stored.get(name) != text)

    def count_categories(self) -> int:
        """Return how many categories are cached."""
        with self._database.reading() as connection:
            count: int = connection.execute("SELECT count(*) FROM category_cache").fetchone()[0]
            return count


class Batch:
    """One transaction: what is known of some skills, and carrying out what was planned for them."""

    # Whether a base that is taken over has just been confirmed by the marketplace.
    confirms = True

    def __init__(
        self,
        connection: sqlite3.Connection,
        history_versions: int,
        *,
        write: bool = True,
        signer: integrity.Signer | None = None,
        fetched: bool = True,
    ) -> None:
        self._connection = connection
        self._signer = signer
        self._fetched = fetched
        self._write = write
        self._history_versions = history_versions
        self._known: dict[str, Known] = {}
        # What the full-text index does not show yet.
        self._replaced: dict[str, Replaced] = {}
        # What wrote each new row, and the newest row that was there before them.
        self._inserted: dict[str, Action] = {}
        self._newest = 0
        if write:
            self._keep_deleted_edits()
            self._adopt_resolutions()

    def known(self, skill_ids: Iterable[str]) -> dict[str, Known]:
        """Return what is stored of these skills; those of which nothing is are left out."""
        wanted = list(skill_ids)
        rows = self._connection.execute(_KNOWN, (json.dumps(wanted),)).fetchall()
        if self._write:
            for row in rows:
                if row["stored_as"] == "blob" or _REPLACEMENT in (row["skill_data"] or ""):
                    self._store_as_text(row["skill_id"], row["skill_data"])
        found = {row["skill_id"]: _known(row) for row in rows}
        for name in wanted:  # of which something may have been known before this batch removed it
            self._known.pop(name, None)
        self._known.update(found)
        return found

    def _keep_deleted_edits(self) -> None:
        """Keep what was edited here and has been deleted by another program, whose triggers can't compress texts."""
        deleted = self._connection.execute(
            "SELECT id, CAST(skill_id AS TEXT) AS skill_id, data, deleted_at FROM deleted_edit WHERE data IS NOT NULL"
        ).fetchall()
        for row in deleted:
            version, now = stored_version(row["skill_id"], row["data"]), parse_time(row["deleted_at"])
            moment = now or datetime.fromtimestamp(0, UTC)
            if version is not None:
                self.keep_local([version], moment, ended_by="deleted_here")
            else:  # not a skill: the history could not show it
                write_audit(
                    self._connection, "unknown", "deleted here", row["skill_id"], moment, {"skill_data": row["data"]}
                )
            self._connection.execute("UPDATE deleted_edit SET data = NULL WHERE id = ?", (row["id"],))

    def _adopt_resolutions(self) -> None:
        """Carry out what other programs have decided about conflicts, before anything is planned."""
        decided = resolutions.unapplied(self._connection)
        if not decided:
            return
        from atom_saas_sync.core.adoption import plan_adoption

        known = self.known([each.skill_id for each in decided])
        # Another program names the version that becomes the base: it is neither confirmed nor signed until a sync has
        # read it from the marketplace again.
        signer, self._signer, self.confirms = self._signer, None, False
        for each in decided:
            action = plan_adoption(known.get(each.skill_id) or Known(each.skill_id), each)
            if action is not None:
                self.apply([action], parse_time(each.resolved_at) or datetime.fromtimestamp(0, UTC))
                resolutions.close_older(self._connection, each.skill_id, each.id)
                known.update(self.known([each.skill_id]))
        integrity.distrust(self._connection, [each.skill_id for each in decided])
        resolutions.mark_applied(self._connection)
        self.finish()
        self._signer, self.confirms = signer, type(self).confirms

    def forget_deleted_edits(self, skill_id: str) -> None:
        """Show the deleted edits of a skill, which the history has by now, as new no longer."""
        self._connection.execute("DELETE FROM deleted_edit WHERE skill_id = ? AND data IS NULL", (skill_id,))

    def seen_otherwise(self, versions: Iterable[SkillVersion]) -> set[str]:
        """Return the skills of which the same version was ever seen with another exec digest, but for their bases."""
        wanted = [(each.skill_id, version_key(each.fields), each.exec_digest.hex().upper()) for each in versions]
        found = self._connection.execute(
            "SELECT json_group_array(DISTINCT s.skill_id) FROM json_each(?) AS wanted "
            "CROSS JOIN skill_seen AS s ON s.skill_id = json_extract(wanted.value, '$[0]') "
            "AND s.version = json_extract(wanted.value, '$[1]') "
            "AND hex(s.exec_digest) != json_extract(wanted.value, '$[2]')",
            (json.dumps(wanted),),
        ).fetchone()
        return set(_decode_list(found[0]))

    def told_since(self, moment: datetime, *, now: datetime) -> set[str]:
        """Return the skills changed by a WebSocket message between `moment` and `now`.

        Later timestamps come from a clock that has since been set back.
        """
        rows = self._connection.execute(
            "SELECT key FROM last_message WHERE kind IN ('skill', 'rating') AND applied_at BETWEEN ? AND ?",
            (format_exact_time(moment), format_exact_time(now + _CLOCK_STEPS)),
        )
        return {row[0] for row in rows}

    def digests_on_page(self, page: int) -> dict[bytes, str]:
        """Return what Catalogue.digests_on_page does, as this transaction sees it."""
        return _digests_on_page(self._connection, page)

    def apply(
        self,
        actions: Sequence[Action],
        now: datetime,
        *,
        page: int | None = None,
        actor: str = "atom-sync",
    ) -> None:
        """Carry out actions on skills that `known` was asked for; `page` is where the list showed them.

        `actor` is who resolves the conflicts among them.
        """
        moment = format_time(now)
        written = [action for action in actions if action.cache is CacheChange.WRITE]
        removed = [action.skill_id for action in actions if action.cache is CacheChange.REMOVE]
        ended = self._ended(actions)
        if not (self._replaced.keys() | self._inserted).isdisjoint(removed):
            self.finish()
        unindex(self._connection, removed)
        self._remove_rows(removed)
        self._write_rows(written, now)
        self._write_bases(actions, moment, page)
        self._keep_history(ended, moment)
        for action in actions:
            if action.conflict is not None:
                log_conflict(self._connection, action.skill_id, action.conflict, moment, resolved_by=actor)
            if action.republished:
                increment(self._connection, "republished")

    def finish(self) -> None:
        """Bring the full-text index up to date, last of all.

        Once for the whole batch: FTS5 writes out what it has gathered, as a segment of its own, whenever another
        statement comes between, and merges segments when there are many.
        """
        reindex(self._connection, self._replaced)
        self._replaced.clear()
        if self._inserted:
            rows = _rows_with_ids(self._connection, "id > ?", self._newest)
            write_index(self._connection, [_entry(row, self._inserted[name]) for row, name in rows])
            self._inserted.clear()

    def confirm_page(self, page: int, now: datetime) -> None:
        """Note that the marketplace has confirmed a page, and with it every skill on it, as unchanged."""
        self._connection.execute("UPDATE http_validator SET checked_at = ? WHERE page = ?", (format_time(now), page))

    def record_page(
        self, page: int, ids: AbstractSet[str], *, list_key: str, etag: str | None, total: int | None, now: datetime
    ) -> None:
        """Note, last of all, that a page was taken: its validator, and that these skills are on it.

        If one of them has no base any more, because it was purged since the page was read, the page has no validator:
        it must be read whole again.
        """
        moment = format_time(now)
        before = set(_ids_on_page(self._connection, page))
        self._connection.execute(
            """
            UPDATE skill_base SET
                confirmed_at = max(confirmed_at, coalesce(
                    (SELECT checked_at FROM http_validator WHERE page = ?1), '')),
                page = NULL
            WHERE skill_id IN (SELECT value FROM json_each(?2))
            """,
            (page, json.dumps(list(before - ids))),
        )
        came = self._connection.execute(
            "UPDATE skill_base SET page = ?1, confirmed_at = ?3 WHERE skill_id IN (SELECT value FROM json_each(?2))",
            (page, json.dumps(list(ids - before)), moment),
        ).rowcount
        if len(ids & before) + came < len(ids):
            etag = None
        self._connection.execute(
            """
            INSERT INTO http_validator (resource, etag, page, items, total, checked_at) VALUES (?, ?, ?, ?, ?, ?)
            ON CONFLICT (resource) DO UPDATE SET
                etag = excluded.etag, items = excluded.items, total = excluded.total, checked_at = excluded.checked_at
            """,
            (f"{list_key}{page}", etag, page, len(ids), total, moment),
        )

    def count_changes(self, actions: Iterable[Action]) -> None:
        """Count what these actions, which were carried out, did to skills."""
        outcomes = Counter(action.outcome for action in actions if action.outcome is not Outcome.UNCHANGED)
        for outcome, number in outcomes.items():
            increment(self._connection, "atom_saas_sync_items_total", number, type="skill", action=outcome.value)

    def count_requests(self, requests: dict[tuple[str, str], int]) -> None:
        """Add to the counters of requests by (endpoint, code)."""
        count_requests(self._connection, requests)

    def note(self, actor: str, action: str, subject: str, now: datetime, **details: object) -> None:
        """Write into the audit log what a person did."""
        write_audit(self._connection, actor, action, subject, now, details)

    def _store_as_text(self, skill_id: str, text: str) -> None:
        """Store as UTF-8 text what another program has written as bytes or in another encoding.

        It stays that program's edit. The triggers do it: they know how the bytes were indexed.
        """
        self._connection.execute("DELETE FROM bulk_write")
        self._connection.execute(
            "UPDATE skill_cache SET skill_data = ?1 WHERE skill_id = ?2 AND skill_data IS NOT ?1", (text, skill_id)
        )
        self._connection.execute(
            "UPDATE skill_base SET data = CAST(data AS TEXT) WHERE skill_id = ? AND typeof(data) = 'blob'", (skill_id,)
        )
        self._connection.execute("INSERT INTO bulk_write (process) VALUES (1)")

    def _has_row(self, skill_id: str) -> bool:
        known = self._known.get(skill_id)
        return known is not None and known.local_text is not None

    def _remove_rows(self, skill_ids: Sequence[str]) -> None:
        self._connection.executemany("DELETE FROM skill_cache WHERE skill_id = ?", [(name,) for name in skill_ids])

    def _write_rows(self, written: Sequence[Action], now: datetime) -> None:
        moment, expires = format_time(now), format_time(now + TIME_TO_LIVE)
        connection = self._connection
        replaced = [action for action in written if self._has_row(action.skill_id)]
        connection.executemany(
            "UPDATE skill_cache SET skill_data = ?1, updated_at = ?2, expires_at = coalesce(?3, expires_at) "
            "WHERE skill_id = ?4",
            [
                (
                    action.text,
                    action.changed_at or moment,
                    # Only what the marketplace has just shown lives on for a day.
                    expires if self.confirms and action.base is BaseChange.ADVANCE else None,
                    action.skill_id,
                )
                for action in replaced
            ],
        )
        for action in replaced:
            text = self._known[action.skill_id].local_text
            if text is None or action.text is None:
                continue
            if action.skill_id in self._inserted:
                self._inserted[action.skill_id] = action
            else:
                first = self._replaced.get(action.skill_id)
                self._replaced[action.skill_id] = (
                    Replaced(text, action.before, action) if first is None else first._replace(action=action)
                )
        inserted = [action for action in written if not self._has_row(action.skill_id)]
        if inserted and not self._inserted:
            self._newest = connection.execute("SELECT coalesce(max(id), 0) FROM skill_cache").fetchone()[0]
        for action in inserted:
            self._inserted[action.skill_id] = action
        connection.executemany(
            "INSERT INTO skill_cache (skill_id, skill_data, expires_at, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
            # What exists only here does not expire.
            [
                (each.skill_id, each.text, expires if each.remote else NEVER_EXPIRES, moment, moment)
                for each in inserted
            ],
        )

    def _write_bases(self, actions: Sequence[Action], moment: str, page: int | None) -> None:
        self._connection.executemany(
            """
            INSERT INTO skill_base
                (skill_id, page, wire_digest, content_digest, exec_digest, confirmed_at, deleted_at, data, version,
                 signature)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, ?7, ?9, ?10)
            ON CONFLICT (skill_id) DO UPDATE SET
                page = coalesce(excluded.page, page), wire_digest = excluded.wire_digest,
                content_digest = excluded.content_digest, exec_digest = excluded.exec_digest,
                confirmed_at = CASE WHEN ?8 THEN confirmed_at ELSE excluded.confirmed_at END,
                deleted_at = NULL, data = excluded.data, version = excluded.version,
                -- Without a key the signature stays as long as what it signs.
                signature = CASE WHEN excluded.signature IS NULL AND version = excluded.version
                    AND content_digest = excluded.content_digest AND exec_digest = excluded.exec_digest
                    THEN signature ELSE excluded.signature END
            """,
            [
                (
                    action.skill_id,
                    page,
                    action.remote.wire_digest,
                    action.remote.content_digest,
                    action.remote.exec_digest,
                    moment,
                    None if self._text_after(action) == action.remote.text else action.remote.text,
                    not self.confirms or action.base is BaseChange.RESTORE,
                    version := version_key(action.remote.fields),
                    self._signature(action.remote, version),
                )
                for action in actions
                if action.base in (BaseChange.ADVANCE, BaseChange.RESTORE) and action.remote is not None
            ],
        )
        # What waits in a conflict was seen, too.
        self._connection.executemany(
            "INSERT INTO skill_seen (skill_id, content_digest, exec_digest, version, signature) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (skill_id, content_digest) DO UPDATE SET exec_digest = excluded.exec_digest, "
            "version = excluded.version, signature = excluded.signature WHERE excluded.signature IS NOT NULL",
            [
                (
                    remote.skill_id,
                    remote.content_digest,
                    remote.exec_digest,
                    version := version_key(remote.fields),
                    self._signature(remote, version),
                )
                for action in actions
                if (remote := action.remote) is not None
                and action.base not in (BaseChange.ADVANCE, BaseChange.RESTORE)
                and (action.conflict is not None or self._may_sign_waiting(action.skill_id))
            ],
        )
        # A person's edit through us: what it replaces was the base.
        self._connection.executemany(
            "UPDATE skill_base SET data = ? WHERE skill_id = ? AND data IS NULL",
            [
                (self._known[action.skill_id].local_text, action.skill_id)
                for action in actions
                if action.cache is CacheChange.WRITE
                and action.base is BaseChange.KEEP
                and self._has_row(action.skill_id)
                and action.text != self._known[action.skill_id].local_text
            ],
        )
        # A skill that stays and has no base any more is on no page: the page must be read whole again.
        self._connection.executemany(
            "UPDATE http_validator SET etag = NULL WHERE page = (SELECT page FROM skill_base WHERE skill_id = ?)",
            [
                (action.skill_id,)
                for action in actions
                if action.base is BaseChange.DROP and action.cache is CacheChange.WRITE
            ],
        )
        for change, statement in (
            (BaseChange.DROP, "DELETE FROM skill_base WHERE skill_id = ?1 AND ?2 IS NOT NULL"),
            (BaseChange.MARK_DELETED, "UPDATE skill_base SET deleted_at = ?2 WHERE skill_id = ?1"),
            (
                BaseChange.UNMARK_DELETED,
                "UPDATE skill_base SET deleted_at = NULL WHERE skill_id = ?1 AND ?2 IS NOT NULL",
            ),
        ):
            self._connection.executemany(
                statement, [(action.skill_id, moment) for action in actions if action.base is change]
            )

    def _has_forged_signature(self, known: Known) -> bool:
        base, signer = known.base, self._signer
        return (
            base is not None
            and signer is not None
            and signer.is_forged(
                self._stored_signature(known.skill_id),
                known.skill_id,
                base.version,
                base.content_digest,
                base.exec_digest,
            )
        )

    def _stored_signature(self, skill_id: str) -> bytes | None:
        row = self._connection.execute(
            "SELECT CAST(signature AS BLOB) FROM skill_base WHERE skill_id = ?", (skill_id,)
        ).fetchone()
        return row[0] if row else None

    def _signature(self, remote: SkillVersion, version: str) -> bytes | None:
        """Sign what the marketplace has just sent, or has sent before as a signature says."""
        if self._signer is None:
            return None
        signature = self._signer.sign(remote.skill_id, version, remote.content_digest, remote.exec_digest)
        return signature if self._fetched or self._is_stored(signature, remote.skill_id) else None

    def _is_stored(self, signature: bytes, skill_id: str) -> bool:
        return (
            self._connection.execute(
                "SELECT 1 FROM skill_base WHERE skill_id = ?1 AND signature = ?2 "
                "UNION ALL SELECT 1 FROM skill_seen WHERE skill_id = ?1 AND signature = ?2",
                (skill_id, signature),
            ).fetchone()
            is not None
        )

    def _may_sign_waiting(self, skill_id: str) -> bool:
        """Tell whether a version waits in a conflict and may have been seen without the key."""
        if self._signer is None:
            return False
        known = self._known.get(skill_id)
        return known is not None and known.waiting is not None

    def _text_after(self, action: Action) -> str | None:
        if action.cache is CacheChange.WRITE:
            return action.text
        known = self._known.get(action.skill_id)
        return known.local_text if known else None

    def _ended(self, actions: Sequence[Action]) -> list[_Ended]:
        """Return each version that ends here.

        The last version of a deleted skill is kept whatever the number to keep is: it is evidence (rule 12).
        """
        ended = []
        for action in actions:
            settles = action.conflict is not None or action.passed_over is not None
            if (passed := action.passed_over) is not None and self._history_versions:
                version, text = version_of(passed.text), passed.text.encode()
                digests = passed.content_digest, passed.exec_digest
                ended.append(_Ended(passed.skill_id, version, text, *digests, "superseded", settles))
            known = self._known.get(action.skill_id)
            if known is None or known.base is None or known.base_text is None:
                continue
            base, remote = known.base, action.remote
            deleted = action.base in (BaseChange.DROP, BaseChange.MARK_DELETED)
            advanced = action.base is BaseChange.ADVANCE and remote and remote.content_digest != base.content_digest
            if not (deleted or (advanced and self._history_versions)):
                continue
            if is_tampered(known) or self._has_forged_signature(known):
                continue  # another program's, which must not pass for a version of the marketplace
            version, by = version_of(known.base_text, action.before), "deleted" if deleted else "superseded"
            digests = base.content_digest, base.exec_digest
            ended.append(_Ended(known.skill_id, version, known.base_bytes, *digests, by, settles))
        return ended

    def keep_local(self, versions: Sequence[SkillVersion], now: datetime, *, ended_by: str) -> None:
        """Keep texts that were written here and end here (`superseded`, `deleted`) in the history."""
        keep_local(self._connection, versions, now, ended_by=ended_by, number=max(1, self._history_versions))

    def _keep_history(self, ended: Sequence[_Ended], moment: str) -> None:
        """Keep these versions, and drop the oldest beyond the number to keep.

        Once only if a resolution that was undone is made again: only then is the version before looked at.
        """
        for settles, statement in ((False, _KEEP), (True, _KEEP + _UNLESS_LAST)):
            self._connection.executemany(
                statement,
                [
                    (
                        each.skill_id,
                        each.version,
                        each.content_digest,
                        each.exec_digest,
                        moment,
                        each.ended_by,
                        pack(each.text),
                    )
                    for each in ended
                    if each.settles is settles
                ],
            )
        self._connection.executemany(
            "DELETE FROM skill_version WHERE skill_id = ?1 AND origin = 'marketplace' AND id <= (SELECT id "
            "FROM skill_version WHERE skill_id = ?1 AND origin = 'marketplace' ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            [(each.skill_id, max(1, self._history_versions)) for each in ended],
        )


@contextmanager
def bulk_write(connection: sqlite3.Connection) -> Iterator[None]:
    """Let the triggers stand aside within the block, which is inside one transaction and does their work itself."""
    connection.execute("INSERT INTO bulk_write (process) VALUES (1)")
    yield
    connection.execute("DELETE FROM bulk_write")


def unindex(connection: sqlite3.Connection, skill_ids: Sequence[str]) -> None:
    """Take skills out of the full-text index, before their rows are changed or removed."""
    if skill_ids:
        connection.execute(search_index.UNINDEX, (json.dumps(skill_ids),))


def reindex(connection: sqlite3.Connection, changes: Mapping[str, Replaced]) -> None:
    """Bring the full-text index up to date for skills whose rows were written over.

    Only where what is indexed has changed: the index costs most of a small write.
    """
    other = [skill_id for skill_id, change in changes.items() if not _surely_reads_the_same(change)]
    if not other:
        return
    rows = _rows_with_ids(connection, "skill_id IN (SELECT value FROM json_each(?))", json.dumps(other))
    entries: list[_Entry] = []
    for row, skill_id in rows:
        before, fields, action = changes[skill_id]
        old, entry = words_of(before) if fields is None else words(fields), _entry(row, action)
        if old is None or old != entry.words:
            entries += [_Entry("delete", row, before, old), entry]
    write_index(connection, entries)


def _surely_reads_the_same(change: Replaced) -> bool:
    remote = change.action.remote
    return (
        change.fields is not None
        and remote is not None
        and remote.text is change.action.text
        and same_words(change.fields, remote.fields)
    )


def _rows_with_ids(connection: sqlite3.Connection, which: str, parameter: int | str) -> list[tuple[int, str]]:
    """Return the row and the skill's id of those rows that `which` is true of, in order.

    As one row of the result: SQLite gives the interpreter up at each, and another thread may be reading pages.
    """
    found = connection.execute(
        "SELECT json_group_array(json_array(id, skill_id)) "  # noqa: S608 - constants
        f"FROM (SELECT id, skill_id FROM skill_cache WHERE {which} ORDER BY id)",
        (parameter,),
    ).fetchone()
    return _decode_rows(found[0])


def write_index(connection: sqlite3.Connection, entries: Sequence[_Entry]) -> None:
    """Write entries of the full-text index, in the order of their row ids."""
    for odd, some in groupby(entries, key=lambda entry: entry.words is None):
        if odd:
            rows = [(entry.command, entry.row, entry.text) for entry in some]
            connection.executemany(search_index.WRITE_ODD, rows)
        else:
            _write_words(connection, [(entry.command, entry.row, *(entry.words or ())) for entry in some])


def _write_words(connection: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    for first in range(0, len(rows), _ENTRIES_AT_ONCE):
        some = rows[first : first + _ENTRIES_AT_ONCE]
        room = 1 << (len(some) - 1).bit_length()  # a power of two: so there are few statements to compile and keep
        nothing: list[object] = [None] * (_PARAMETERS_OF_ENTRY * room)
        values = [value for row in some for value in row]
        statement = search_index.write(room)
        connection.execute(statement, values + nothing[len(values) :])
        # A cached statement keeps its last parameters, here megabytes of text.
        connection.execute(statement, nothing)


def _entry(row: int, action: Action) -> _Entry:
    """Return the entry of what an action wrote."""
    text, remote = action.text, action.remote
    assert text is not None
    if remote is not None and remote.text is text:  # its fields are known
        return _Entry(None, row, text, words(remote.fields))
    return _Entry(None, row, text, words_of(text))


RESOLVED_CONFLICTS_KEPT = 20
"""Of each skill. A marketplace that sends new versions of an edited skill without end must not fill the disk: each row
holds three texts of up to 1 MiB."""


def log_conflict(
    connection: sqlite3.Connection, skill_id: str, entry: ConflictEntry, moment: str, *, resolved_by: str
) -> int:
    """Write a conflict into the log with its three versions, or bring the waiting one up to date; return its id."""
    conflict, resolution = entry.conflict, entry.resolution
    values = {
        "skill_id": skill_id,
        "type": conflict.type,
        "severity": conflict.severity,
        "local": conflict.local_text,
        "remote": NO_VERSION if conflict.remote_text is None else conflict.remote_text,
        "base": conflict.base_text,
        "resolved": 0 if resolution is None else 1,
        "strategy": resolution.strategy if resolution else None,
        "result": resolution.result_text if resolution else None,
        "resolved_at": moment if resolution else None,
        "resolved_by": resolved_by if resolution else None,
        "unseen": 1 if resolution and resolution.replaces_edit else 0,
        "moment": moment,
        "id": entry.waiting_id,
    }
    if entry.waiting_id is None:
        cursor = connection.execute(
            """
            INSERT INTO conflict_log
                (skill_id, conflict_type, severity, local_data, remote_data, base_data, resolved, applied,
                 resolution_strategy, resolved_data, resolved_at, resolved_by, replaced_unseen, created_at, updated_at)
            VALUES (:skill_id, :type, :severity, coalesce(:local, '{}'), :remote, :base, :resolved, :resolved,
                    :strategy, :result, :resolved_at, :resolved_by, :unseen, :moment, :moment)
            """,
            values,
        )
        increment(connection, "atom_saas_conflicts_detected_total", type=conflict.type)
        conflict_id = cursor.lastrowid
        assert conflict_id is not None
        connection.execute(
            "DELETE FROM conflict_log WHERE skill_id = ?1 AND applied = 1 AND id NOT IN "
            "(SELECT id FROM conflict_log WHERE skill_id = ?1 AND applied = 1 ORDER BY id DESC LIMIT ?2)",
            (skill_id, RESOLVED_CONFLICTS_KEPT),
        )
    else:
        connection.execute(
            """
            UPDATE conflict_log SET conflict_type = :type, severity = :severity,
                local_data = coalesce(:local, local_data),
                undone_at = CASE WHEN :resolved THEN NULL ELSE undone_at END,
                undone_by = CASE WHEN :resolved THEN NULL ELSE undone_by END,
                remote_data = :remote, base_data = :base, resolved = :resolved, applied = :resolved,
                resolution_strategy = :strategy, resolved_data = :result, resolved_at = :resolved_at,
                resolved_by = :resolved_by, replaced_unseen = :unseen, updated_at = :moment
            WHERE id = :id
            """,
            values,
        )
        conflict_id = entry.waiting_id
    if resolution is not None:
        resolutions.close_older(connection, skill_id, conflict_id)
        increment(connection, "atom_saas_conflicts_resolved_total", strategy=resolution.strategy)
    return conflict_id


def _known(row: sqlite3.Row) -> Known:
    skill_id, text, _, updated_at, *of_base, waiting_id, remote_text, undone_at = row
    wire_digest, content_digest, exec_digest, data, page, deleted_at, version = of_base
    base = None
    if wire_digest is not None:
        base = Base(wire_digest, content_digest, exec_digest, data, page, deleted_at is not None, version)
    waiting = None
    if waiting_id is not None:
        waiting = WaitingConflict(waiting_id, remote_text, held=undone_at is not None)
    return Known(skill_id, text, updated_at, base, waiting)


def _ids_on_page(connection: sqlite3.Connection, page: int) -> list[str]:
    row = connection.execute("SELECT json_group_array(skill_id) FROM skill_base WHERE page = ?", (page,)).fetchone()
    return _decode_list(row[0])


def _digests_on_page(connection: sqlite3.Connection, page: int) -> dict[bytes, str]:
    # As two values, not row by row: each row would hand the interpreter's lock to the thread that fetches, and back.
    names, digests = connection.execute(
        "SELECT json_group_array(skill_id), group_concat(hex(wire_digest), '') FROM skill_base WHERE page = ? "  # noqa: S608
        "AND wire_digest != x'' AND deleted_at IS NULL "
        f"AND skill_id NOT IN (SELECT skill_id FROM conflict_log WHERE {resolutions.OPEN})",
        (page,),
    ).fetchone()
    joined = bytes.fromhex(digests or "")
    starts = range(0, len(joined), _DIGEST_BYTES)
    return dict(zip([joined[start : start + _DIGEST_BYTES] for start in starts], _decode_list(names), strict=True))


def leave_pages(connection: sqlite3.Connection, first: int) -> None:
    """Take the skills off the pages from `first` on, keeping when they were confirmed, and forget the pages."""
    connection.execute(
        """
        UPDATE skill_base SET
            confirmed_at = max(confirmed_at, coalesce(
                (SELECT checked_at FROM http_validator AS v WHERE v.page = skill_base.page), '')),
            page = NULL
        WHERE page >= ?
        """,
        (first,),
    )
    connection.execute("DELETE FROM http_validator WHERE page >= ?", (first,))


def _write_categories(
    connection: sqlite3.Connection, categories: Sequence[Category], moment: str, *, whole: bool
) -> int:
    changed = 0
    for category in categories:
        cursor = connection.execute(
            """
            INSERT INTO category_cache (category_name, category_data, created_at, updated_at) VALUES (?1, ?2, ?3, ?3)
            ON CONFLICT (category_name) DO UPDATE SET category_data = excluded.category_data, updated_at = ?3
            WHERE category_data IS NOT excluded.category_data
            """,
            (category.name, category.text, moment),
        )
        changed += cursor.rowcount
    if categories and whole:
        names = json.dumps([category.name for category in categories])
        changed += connection.execute(
            "DELETE FROM category_cache WHERE category_name NOT IN (SELECT value FROM json_each(?))", (names,)
        ).rowcount
    return changed
