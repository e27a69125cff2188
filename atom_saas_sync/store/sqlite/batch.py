"""One transaction over skills: reading their state, and applying a plan. No decisions are made here."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from atom_saas_sync.core.canonical import stored_version, version_key
from atom_saas_sync.core.gate.verdicts import verdicts_of
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import Action, Outcome, SkillState, SkillVersion
from atom_saas_sync.store.sqlite import integrity, pages, resolutions
from atom_saas_sync.store.sqlite.audit import write_audit
from atom_saas_sync.store.sqlite.counters import count_requests, increment
from atom_saas_sync.store.sqlite.gate.state import standing
from atom_saas_sync.store.sqlite.skill_states import read_states
from atom_saas_sync.times import format_exact_time, parse_time

if TYPE_CHECKING:
    from atom_saas_sync.store.sqlite.effects import EffectWriter
    from atom_saas_sync.store.sqlite.gate.tables import GateTables

_COUNTED = {Outcome.ADDED, Outcome.UPDATED, Outcome.DELETED}
_CLOCK_STEPS = timedelta(minutes=1)  # for a correct clock


class Batch:
    """One transaction: reads the state of skills, and applies what was planned for them."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        history_versions: int,
        *,
        write: bool = True,
        signer: Signer | None = None,
    ) -> None:
        self._connection = connection
        self._signer = signer
        self._write = write
        self._history_versions = history_versions
        self._effects: EffectWriter | None = None
        if write:
            self._keep_deleted_edits()
            self._adopt_resolutions()

    @property
    def gate(self) -> GateTables:
        """Return the gate's verbs in this transaction."""
        from atom_saas_sync.store.sqlite.gate.tables import GateTables

        return GateTables(self._connection, history_versions=self._history_versions, signer=self._signer)

    def known(self, skill_ids: Iterable[str]) -> dict[str, SkillState]:
        """Return the stored state of these skills; skills without any are absent."""
        return read_states(self._connection, list(skill_ids), write=self._write, signer=self._signer)

    def unstorable(self, versions: Iterable[SkillVersion]) -> dict[str, str]:  # noqa: ARG002 - see there
        """Return nothing: a file holds any text."""
        return {}

    def _keep_deleted_edits(self) -> None:
        """Move local edits that another program deleted into the history; the trigger cannot compress texts."""
        deleted = self._connection.execute(
            "SELECT id, CAST(skill_id AS TEXT) AS skill_id, data, deleted_at FROM deleted_edit WHERE data IS NOT NULL"
        ).fetchall()
        for row in deleted:
            version, now = stored_version(row["skill_id"], row["data"]), parse_time(row["deleted_at"])
            moment = now or datetime.fromtimestamp(0, UTC)
            if version is not None:
                self.keep_local([version], moment, ended_by="deleted_here")
            else:  # not a skill, so the history cannot show it
                write_audit(
                    self._connection, "unknown", "deleted here", row["skill_id"], moment, {"skill_data": row["data"]}
                )
            self._connection.execute("UPDATE deleted_edit SET data = NULL WHERE id = ?", (row["id"],))

    def _adopt_resolutions(self) -> None:
        """Apply resolutions written by other programs, before anything is planned."""
        decided = resolutions.unapplied(self._connection)
        if not decided:
            return
        from atom_saas_sync.core.adoption import plan_adoption

        known = self.known([each.skill_id for each in decided])
        for each in decided:
            action = plan_adoption(known.get(each.skill_id) or SkillState(each.skill_id), each)
            if action is not None:
                self.apply([action], each.resolved_at or datetime.fromtimestamp(0, UTC))
                resolutions.close_older(self._connection, each.skill_id, each.id)
                known.update(self.known([each.skill_id]))
        integrity.distrust(self._connection, [each.skill_id for each in decided])
        resolutions.mark_applied(self._connection)
        self.finish()

    def forget_deleted_edits(self, skill_id: str) -> None:
        """Mark the deleted edits of a skill, which are in the history by now, as seen."""
        self._connection.execute("DELETE FROM deleted_edit WHERE skill_id = ? AND data IS NULL", (skill_id,))

    def gate_standing(self) -> tuple[bool, int]:
        """Return whether the gate has anything to look at, and the id of the newest revocation, 0 without any."""
        return standing(self._connection)

    def seen_otherwise(self, versions: Iterable[SkillVersion]) -> set[str]:
        """Return the skills whose version was seen with another exec digest, not counting their bases."""
        if self._connection.execute("SELECT 1 FROM skill_seen LIMIT 1").fetchone() is None:
            return set()  # as in a first sync
        wanted = {(each.skill_id, version_key(each.fields)): each.exec_digest.hex().upper() for each in versions}
        ids, keys = zip(*wanted, strict=True) if wanted else ((), ())
        # Some rows may be another skill's version: to compare pairs in SQL takes a third longer.
        found = self._connection.execute(
            "SELECT json_group_array(json_array(skill_id, version, hex(exec_digest))) FROM skill_seen "
            "WHERE skill_id IN (SELECT value FROM json_each(?)) AND version IN (SELECT value FROM json_each(?))",
            (json.dumps(ids), json.dumps(keys)),
        ).fetchone()
        return {
            skill_id
            for skill_id, version, exec_digest in json.loads(found[0])
            if wanted.get((skill_id, version), exec_digest) != exec_digest
        }

    def changed_by_events_since(self, moment: datetime, *, now: datetime) -> set[str]:
        """Return the skills changed by a WebSocket message between `moment` and `now`.

        Later timestamps come from a clock that has since been set back.
        """
        rows = self._connection.execute(
            "SELECT key FROM last_message WHERE kind IN ('skill', 'rating') AND applied_at BETWEEN ? AND ?",
            (format_exact_time(moment), format_exact_time(now + _CLOCK_STEPS)),
        )
        return {row[0] for row in rows}

    def apply(
        self,
        actions: Sequence[Action],
        now: datetime,
        *,
        page: int | None = None,
        actor: str = "atom-sync",
    ) -> None:
        """Apply actions; `page` is the page of their skills, `actor` the user who resolves conflicts."""
        if not actions:
            return
        if self._effects is None:
            from atom_saas_sync.store.sqlite.effects import EffectWriter

            self._effects = EffectWriter(self._connection, history_versions=self._history_versions, signer=self._signer)
        self._effects.carry_out(actions, now, page=page, actor=actor)
        for (verdict, by), number in verdicts_of(actions).items():
            increment(self._connection, "atom_saas_admissions_total", number, verdict=verdict, by=by)

    def finish(self) -> None:
        """Update the full-text index; called last."""
        if self._effects is not None:
            self._effects.finish()

    def confirm_page(self, page: int, now: datetime) -> None:
        """Record that the marketplace confirmed a page, and so every skill on it, as unchanged."""
        pages.confirm_page(self._connection, page, now)

    def record_page(
        self, page: int, ids: AbstractSet[str], *, list_key: str, etag: str | None, total: int | None, now: datetime
    ) -> None:
        """Record a page that was read: its validator and its skills; called last."""
        pages.record_page(self._connection, page, ids, list_key=list_key, etag=etag, total=total, now=now)

    def count_changes(self, actions: Iterable[Action]) -> None:
        """Count what these applied actions did to skills."""
        outcomes = Counter(action.outcome for action in actions if action.outcome in _COUNTED)
        for outcome, number in outcomes.items():
            increment(self._connection, "atom_saas_sync_items_total", number, type="skill", action=outcome.value)

    def count_requests(self, requests: dict[tuple[str, str], int]) -> None:
        """Add to the counters of requests by (endpoint, code)."""
        count_requests(self._connection, requests)

    def note(self, actor: str, action: str, subject: str, now: datetime, **details: object) -> None:
        """Record a user's action in the audit log."""
        write_audit(self._connection, actor, action, subject, now, details)

    def keep_local(self, versions: Sequence[SkillVersion], now: datetime, *, ended_by: str) -> None:
        """Keep local texts in the history that are now `superseded` or `deleted`."""
        from atom_saas_sync.store.sqlite.history import keep_local

        keep_local(self._connection, versions, now, ended_by=ended_by, number=max(1, self._history_versions))
