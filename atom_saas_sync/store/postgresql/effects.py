"""Apply plans: each kind of effect has its statement. No decisions are made here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import Action
from atom_saas_sync.model.effects import (
    AddServed,
    DropBase,
    DropOffer,
    Effect,
    EndVersion,
    KeepBase,
    LogConflict,
    MarkDeleted,
    NoteRepublished,
    NoteSeen,
    PutOffer,
    Quarantine,
    ReadAgain,
    ReadPageAgain,
    RefreshBase,
    RefreshFigures,
    Release,
    RemoveServed,
    ReplaceServed,
    SetBase,
    UnmarkDeleted,
)
from atom_saas_sync.store.postgresql.bases import note_seen, set_bases
from atom_saas_sync.store.postgresql.conflict_log import log_conflict
from atom_saas_sync.store.postgresql.counters import increment
from atom_saas_sync.store.postgresql.history import end_versions
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.postgresql.served import ServedSkills

_TEXTS = "FROM unnest(%b::text[], %b::text[]) AS new (skill_id, text) WHERE b.skill_id = new.skill_id"
_KEEP_BASE = f"UPDATE skill_base AS b SET data = new.text {_TEXTS} AND b.data IS NULL"  # noqa: S608 - constants
_REFRESH_BASE = f"UPDATE skill_base AS b SET data = new.text {_TEXTS}"  # noqa: S608 - constants
_READ_AGAIN = "UPDATE skill_base SET wire_digest = ''::bytea WHERE skill_id = ANY(%b)"
_READ_PAGE_AGAIN = """
    UPDATE http_validator SET etag = NULL WHERE page IN (SELECT page FROM skill_base WHERE skill_id = ANY(%b))
"""
_DROP_BASE = "DELETE FROM skill_base WHERE skill_id = ANY(%b)"
_MARK_DELETED = "UPDATE skill_base SET deleted_at = %s WHERE skill_id = ANY(%b)"
_UNMARK_DELETED = "UPDATE skill_base SET deleted_at = NULL WHERE skill_id = ANY(%b)"


class _Context(NamedTuple):
    """What all effects of one call have in common."""

    now: datetime
    moment: datetime
    page: int | None
    actor: str


class EffectWriter:
    """Applies effects in one transaction."""

    def __init__(self, connection: psycopg.Connection[Row], *, history_versions: int, signer: Signer | None) -> None:
        self._connection = connection
        served = ServedSkills(connection)

        def ids(statement: str) -> Callable[[list[Any], _Context], object]:
            return lambda effects, _: connection.execute(statement, ([each.skill_id for each in effects],))

        def texts(statement: str) -> Callable[[list[Any], _Context], object]:
            return lambda effects, _: connection.execute(
                statement, ([each.skill_id for each in effects], [each.text for each in effects])
            )

        # In this order: effects that read a row come before those that remove it.
        self._statements: Mapping[type[Effect], Callable[[list[Any], _Context], object]] = {
            RemoveServed: lambda effects, _: served.remove(effects),
            AddServed: lambda effects, context: served.add(effects, context.now),
            ReplaceServed: lambda effects, context: served.replace(effects, context.now),
            RefreshFigures: lambda effects, _: served.refresh(effects),
            SetBase: lambda effects, context: set_bases(
                connection, effects, context.now, page=context.page, signer=signer
            ),
            NoteSeen: lambda effects, _: note_seen(connection, effects, signer=signer),
            KeepBase: texts(_KEEP_BASE),
            RefreshBase: texts(_REFRESH_BASE),
            ReadAgain: ids(_READ_AGAIN),
            ReadPageAgain: ids(_READ_PAGE_AGAIN),
            DropBase: ids(_DROP_BASE),
            MarkDeleted: lambda effects, context: connection.execute(
                _MARK_DELETED, (context.moment, [each.skill_id for each in effects])
            ),
            UnmarkDeleted: ids(_UNMARK_DELETED),
            EndVersion: lambda effects, context: end_versions(
                connection, effects, context.moment, number=history_versions
            ),
            LogConflict: self._log_conflicts,
            NoteRepublished: lambda effects, _: increment(connection, "republished", len(effects)),
            PutOffer: self._put_offers,
            DropOffer: self._drop_offers,
            Quarantine: self._quarantine,
            Release: self._release,
        }
        self._connection, self._history_versions, self._signer = connection, history_versions, signer

    def carry_out(self, actions: Iterable[Action], now: datetime, *, page: int | None, actor: str) -> None:
        """Apply these actions; `page` is the skills' page in the list, `actor` is who resolves conflicts."""
        found: dict[type[Effect], list[Effect]] = defaultdict(list)
        for action in actions:
            for effect in action.effects:
                found[type(effect)].append(effect)
        context = _Context(now, now.replace(microsecond=0), page, actor)
        for kind, carry_out in self._statements.items():
            if effects := found.pop(kind, None):
                carry_out(effects, context)
        assert not found, "an effect without a statement"

    def _log_conflicts(self, effects: list[LogConflict], context: _Context) -> None:
        for each in effects:
            log_conflict(self._connection, each.skill_id, each.entry, context.moment, resolved_by=context.actor)

    # The gate's modules are only imported if something waits or is in quarantine.

    def _put_offers(self, effects: list[PutOffer], context: _Context) -> None:
        from atom_saas_sync.store.postgresql.gate.effects import put_offers

        put_offers(
            self._connection,
            effects,
            context.now,
            page=context.page,
            history_versions=self._history_versions,
            signer=self._signer,
        )

    def _drop_offers(self, effects: list[DropOffer], context: _Context) -> None:
        from atom_saas_sync.store.postgresql.gate.effects import drop_offers

        drop_offers(self._connection, effects, context.now, history_versions=self._history_versions)

    def _quarantine(self, effects: list[Quarantine], context: _Context) -> None:
        from atom_saas_sync.store.postgresql.gate.effects import quarantine

        quarantine(self._connection, effects, context.now)

    def _release(self, effects: list[Release], _: _Context) -> None:
        from atom_saas_sync.store.postgresql.gate.effects import release

        release(self._connection, effects)
