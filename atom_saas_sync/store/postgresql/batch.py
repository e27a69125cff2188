"""One transaction over skills: reading their state and applying a plan. No decisions are made here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import psycopg

from atom_saas_sync.core.canonical import stored_version, version_key
from atom_saas_sync.core.gate.verdicts import verdicts_of
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import Action, Outcome, SkillState, SkillVersion
from atom_saas_sync.store.postgresql import integrity, pages, resolutions
from atom_saas_sync.store.postgresql.audit import write_audit
from atom_saas_sync.store.postgresql.backend.fitting import unfit
from atom_saas_sync.store.postgresql.counters import Counted, increment_all, requests_counted
from atom_saas_sync.store.postgresql.effects import EffectWriter
from atom_saas_sync.store.postgresql.history import keep_local
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.postgresql.skill_states import read_states

if TYPE_CHECKING:
    from atom_saas_sync.store.postgresql.gate.tables import GateTables

STANDING = f"""
    SELECT EXISTS (SELECT FROM deleted_edit WHERE data IS NOT NULL) AS deleted_edits,
        EXISTS (SELECT FROM conflict_log WHERE {resolutions.UNAPPLIED}) AS resolutions,
        EXISTS (SELECT FROM skill_seen) AS seen,
        (SELECT extract(epoch FROM max(applied_at))::float8 FROM last_message) AS last_message,
        EXISTS (SELECT FROM skill_offer) OR EXISTS (SELECT FROM gate_decision)
            OR EXISTS (SELECT FROM gate_pin) OR EXISTS (SELECT FROM gate_quarantine) AS gate,
        (SELECT coalesce(max(id), 0) FROM gate_revocation) AS newest_revocation
"""  # noqa: S608 - constants
"""SQL for rare states; most transactions find none and save the detailed queries."""

_COUNTED = {Outcome.ADDED, Outcome.UPDATED, Outcome.DELETED}
_CLOCK_STEPS = timedelta(minutes=1)  # corrections of a clock under NTP


class Batch:
    """One transaction in which the state of some skills is read and their plan is applied."""

    def __init__(
        self,
        connection: psycopg.Connection[Row],
        history_versions: int,
        *,
        write: bool = True,
        signer: Signer | None = None,
        standing: Row | None = None,
    ) -> None:
        """Work in a transaction; `standing` is the result of STANDING, if it was already queried."""
        self._connection = connection
        self._asked_already = standing
        self._signer = signer
        self._write = write
        self._history_versions = history_versions
        self._effects = EffectWriter(connection, history_versions=history_versions, signer=signer)
        self.changes = 0
        """How many skills were added, changed and deleted here."""
        self._counted: list[Counted] = []
        self._has_applied = False
        if write and self._standing["deleted_edits"]:
            self._keep_deleted_edits()
        if write and self._standing["resolutions"]:
            self._adopt_resolutions()

    @property
    def gate(self) -> GateTables:
        """Return the gate's verbs in this transaction."""
        from atom_saas_sync.store.postgresql.gate.tables import GateTables

        return GateTables(self._connection, history_versions=self._history_versions, signer=self._signer)

    def known(self, skill_ids: Iterable[str]) -> dict[str, SkillState]:
        """Return the stored state of these skills, without unknown ones."""
        return read_states(self._connection, list(skill_ids), write=self._write, signer=self._signer)

    @cached_property
    def _standing(self) -> Row:
        row = self._asked_already or self._connection.execute(STANDING).fetchone()
        assert row is not None
        return row

    def unstorable(self, versions: Iterable[SkillVersion]) -> dict[str, str]:
        """Return the skills that the Atom backend's own table cannot hold, if it is shared."""
        return unfit(self._connection, versions)

    def _keep_deleted_edits(self) -> None:
        """Move edits that other programs deleted into the history; triggers can't compress text."""
        deleted = self._connection.execute(
            "SELECT id, skill_id, data, deleted_at FROM deleted_edit WHERE data IS NOT NULL"
        ).fetchall()
        for row in deleted:
            version = stored_version(row["skill_id"], row["data"])
            if version is not None:
                self.keep_local([version], row["deleted_at"], ended_by="deleted_here")
            else:  # not a skill, so the history could not show it
                details = {"skill_data": row["data"]}
                write_audit(self._connection, "unknown", "deleted here", row["skill_id"], row["deleted_at"], details)
            self._connection.execute("UPDATE deleted_edit SET data = NULL WHERE id = %s", (row["id"],))

    def _adopt_resolutions(self) -> None:
        """Apply resolutions by other programs before anything is planned."""
        decided = resolutions.unapplied(self._connection)
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
        """Mark the deleted edits of a skill as seen."""
        self._connection.execute("DELETE FROM deleted_edit WHERE skill_id = %s AND data IS NULL", (skill_id,))

    def gate_standing(self) -> tuple[bool, int]:
        """Return whether the gate has anything to look at, and the id of the newest revocation, 0 without any."""
        return self._standing["gate"], self._standing["newest_revocation"]

    def seen_otherwise(self, versions: Iterable[SkillVersion]) -> set[str]:
        """Return the skills whose version was also seen with another exec digest, not counting their bases."""
        wanted = [(each.skill_id, version_key(each.fields), each.exec_digest) for each in versions]
        if not wanted or not (self._standing["seen"] or self._has_applied):
            return set()  # as in a first sync
        rows = self._connection.execute(
            "SELECT DISTINCT s.skill_id "
            "FROM unnest(%b::text[], %b::text[], %b::bytea[]) AS w (skill_id, version, exec_digest) "
            "JOIN skill_seen AS s ON s.skill_id = w.skill_id AND s.version = w.version "
            "AND s.exec_digest <> w.exec_digest",
            ([each[0] for each in wanted], [each[1] for each in wanted], [each[2] for each in wanted]),
        )
        return {row[0] for row in rows}

    def changed_by_events_since(self, moment: datetime, *, now: datetime) -> set[str]:
        """Return the skills changed by a WebSocket message between `moment` and `now`.

        Later timestamps come from a clock that has since been set back.
        """
        last = self._standing["last_message"]
        if last is None or last < moment.timestamp() - 1:
            return set()
        rows = self._connection.execute(
            "SELECT key FROM last_message WHERE kind IN ('skill', 'rating') AND applied_at BETWEEN %s AND %s",
            (moment, now + _CLOCK_STEPS),
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
        """Apply actions; `page` is the skills' page in the list, `actor` is who resolves conflicts."""
        self._has_applied = True
        self.changes += sum(action.outcome in _COUNTED for action in actions)
        self._effects.carry_out(actions, now, page=page, actor=actor)
        self._counted += [
            ("atom_saas_admissions_total", number, {"verdict": verdict, "by": by})
            for (verdict, by), number in verdicts_of(actions).items()
        ]

    def finish(self) -> None:
        """End the batch: write all counters in one statement."""
        increment_all(self._connection, self._counted)
        self._counted = []

    def confirm_page(self, page: int, now: datetime) -> None:
        """Record that the marketplace has confirmed a page, and so every skill on it, as unchanged."""
        pages.confirm_page(self._connection, page, now)

    def record_page(
        self, page: int, ids: AbstractSet[str], *, list_key: str, etag: str | None, total: int | None, now: datetime
    ) -> None:
        """Record, as the last step, that a page was stored: its validator and its skills."""
        pages.record_page(self._connection, page, ids, list_key=list_key, etag=etag, total=total, now=now)

    def count_changes(self, actions: Iterable[Action]) -> None:
        """Count the changes made by these applied actions."""
        outcomes = Counter(action.outcome for action in actions if action.outcome in _COUNTED)
        self._counted += [
            ("atom_saas_sync_items_total", number, {"type": "skill", "action": outcome.value})
            for outcome, number in outcomes.items()
        ]

    def count_requests(self, requests: dict[tuple[str, str], int]) -> None:
        """Add to the counters of requests by (endpoint, code)."""
        self._counted += requests_counted(requests)

    def note(self, actor: str, action: str, subject: str, now: datetime, **details: object) -> None:
        """Record a user's action in the audit log."""
        write_audit(self._connection, actor, action, subject, now, details)

    def keep_local(self, versions: Sequence[SkillVersion], now: datetime, *, ended_by: str) -> None:
        """Keep local texts that end (`superseded`, `deleted`) in the history."""
        keep_local(self._connection, versions, now, ended_by=ended_by, number=max(1, self._history_versions))
