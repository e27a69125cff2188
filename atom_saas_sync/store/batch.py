"""One transaction over skills: what is known of them, and carrying out a plan. No decisions are made here."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from atom_saas_sync.core.canonical import stored_version, version_key
from atom_saas_sync.core.plan import is_tampered
from atom_saas_sync.model import (
    TIME_TO_LIVE,
    Action,
    BaseChange,
    CacheChange,
    Known,
    Outcome,
    SkillVersion,
)
from atom_saas_sync.store import integrity, pages, resolutions
from atom_saas_sync.store.audit import write_audit
from atom_saas_sync.store.backend_tables import NEVER_EXPIRES
from atom_saas_sync.store.conflict_log import log_conflict
from atom_saas_sync.store.counters import count_requests, increment
from atom_saas_sync.store.history import keep_local, pack, version_of
from atom_saas_sync.store.index_entries import Replaced, entry_of, reindex, rows_with_ids, unindex, write_index
from atom_saas_sync.store.skill_states import read_states
from atom_saas_sync.times import format_exact_time, format_time, parse_time

if TYPE_CHECKING:
    from atom_saas_sync.store.gate.tables import GateTables

_CLOCK_STEPS = timedelta(minutes=1)  # of a clock that is kept right

_KEEP = """
    INSERT INTO skill_version (skill_id, version, content_digest, exec_digest, ended_at, ended_by, data)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7
"""
_UNLESS_LAST = """
    WHERE NOT EXISTS (
        SELECT 1 FROM skill_version WHERE content_digest = ?3 AND ended_by = ?6
        AND id = (SELECT max(id) FROM skill_version WHERE skill_id = ?1 AND origin = 'marketplace'))
"""


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

    @property
    def gate(self) -> GateTables:
        """Return the gate's verbs in this transaction."""
        from atom_saas_sync.store.gate.tables import GateTables

        return GateTables(self._connection, history_versions=self._history_versions)

    def known(self, skill_ids: Iterable[str]) -> dict[str, Known]:
        """Return what is stored of these skills; those of which nothing is are left out."""
        wanted = list(skill_ids)
        found = read_states(self._connection, wanted, write=self._write)
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
        return set(pages.decode_list(found[0]))

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
        return pages.digests_on_page(self._connection, page)

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
        self._write_bases(actions, now, page)
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
            rows = rows_with_ids(self._connection, "id > ?", self._newest)
            write_index(self._connection, [entry_of(row, self._inserted[name]) for row, name in rows])
            self._inserted.clear()

    def confirm_page(self, page: int, now: datetime) -> None:
        """Note that the marketplace has confirmed a page, and with it every skill on it, as unchanged."""
        pages.confirm_page(self._connection, page, now)

    def record_page(
        self, page: int, ids: AbstractSet[str], *, list_key: str, etag: str | None, total: int | None, now: datetime
    ) -> None:
        """Note, last of all, that a page was taken: its validator, and that these skills are on it."""
        pages.record_page(self._connection, page, ids, list_key=list_key, etag=etag, total=total, now=now)

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

    def _write_bases(self, actions: Sequence[Action], now: datetime, page: int | None) -> None:
        moment, admitted_at = format_time(now), format_exact_time(now)
        self._connection.executemany(
            """
            INSERT INTO skill_base
                (skill_id, page, wire_digest, content_digest, exec_digest, confirmed_at, deleted_at, data, version,
                 signature, admitted_at)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, ?7, ?9, ?10, ?11)
            ON CONFLICT (skill_id) DO UPDATE SET
                page = coalesce(excluded.page, page), wire_digest = excluded.wire_digest,
                content_digest = excluded.content_digest, exec_digest = excluded.exec_digest,
                confirmed_at = CASE WHEN ?8 THEN confirmed_at ELSE excluded.confirmed_at END,
                deleted_at = NULL, data = excluded.data, version = excluded.version,
                -- Without a key the signature stays as long as what it signs.
                signature = CASE WHEN excluded.signature IS NULL AND version = excluded.version
                    AND content_digest = excluded.content_digest AND exec_digest = excluded.exec_digest
                    THEN signature ELSE excluded.signature END,
                admitted_at = CASE WHEN content_digest = excluded.content_digest THEN admitted_at
                    ELSE excluded.admitted_at END,
                admitted_by = CASE WHEN content_digest = excluded.content_digest THEN admitted_by END
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
                    admitted_at,
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
