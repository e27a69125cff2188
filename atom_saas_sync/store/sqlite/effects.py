"""Apply plans: each kind of effect has one statement, and nothing is decided here."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

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
from atom_saas_sync.store.sqlite.bases import note_seen, set_bases
from atom_saas_sync.store.sqlite.conflict_log import log_conflict
from atom_saas_sync.store.sqlite.counters import increment
from atom_saas_sync.store.sqlite.history import end_versions
from atom_saas_sync.store.sqlite.served import ServedSkills
from atom_saas_sync.times import format_time

_KEEP_BASE = "UPDATE skill_base SET data = ?2 WHERE skill_id = ?1 AND data IS NULL"
_REFRESH_BASE = "UPDATE skill_base SET data = ?2 WHERE skill_id = ?1"
_READ_AGAIN = "UPDATE skill_base SET wire_digest = x'' WHERE skill_id = ?"
_READ_PAGE_AGAIN = "UPDATE http_validator SET etag = NULL WHERE page = (SELECT page FROM skill_base WHERE skill_id = ?)"
_DROP_BASE = "DELETE FROM skill_base WHERE skill_id = ?"
_MARK_DELETED = "UPDATE skill_base SET deleted_at = ?2 WHERE skill_id = ?1"
_UNMARK_DELETED = "UPDATE skill_base SET deleted_at = NULL WHERE skill_id = ?"


class _Context(NamedTuple):
    """Values shared by all effects of one call."""

    now: datetime
    moment: str
    page: int | None
    actor: str


class EffectWriter:
    """Applies effects in one transaction. Call `finish` last: it updates the full-text index."""

    def __init__(self, connection: sqlite3.Connection, *, history_versions: int, signer: Signer | None) -> None:
        self._connection = connection
        served = ServedSkills(connection)
        self.finish = served.finish
        many = connection.executemany

        def ids(statement: str) -> Callable[[list[Any], _Context], object]:
            return lambda effects, _: many(statement, [(each.skill_id,) for each in effects])

        def texts(statement: str) -> Callable[[list[Any], _Context], object]:
            return lambda effects, _: many(statement, [(each.skill_id, each.text) for each in effects])

        # Applied in this order: effects that read a row come before those that remove it.
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
            MarkDeleted: lambda effects, context: many(
                _MARK_DELETED, [(each.skill_id, context.moment) for each in effects]
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
        """Apply the effects of these actions; `page` is the skills' page, `actor` the user who resolves conflicts."""
        found: dict[type[Effect], list[Effect]] = defaultdict(list)
        for action in actions:
            for effect in action.effects:
                found[type(effect)].append(effect)
        context = _Context(now, format_time(now), page, actor)
        for kind, carry_out in self._statements.items():
            if effects := found.pop(kind, None):
                carry_out(effects, context)
        assert not found, "an effect without a statement"

    def _log_conflicts(self, effects: list[LogConflict], context: _Context) -> None:
        for each in effects:
            log_conflict(self._connection, each.skill_id, each.entry, context.moment, resolved_by=context.actor)

    # The gate's modules are imported only if something waits or is in quarantine.

    def _put_offers(self, effects: list[PutOffer], context: _Context) -> None:
        from atom_saas_sync.store.sqlite.gate.effects import put_offers

        put_offers(
            self._connection,
            effects,
            context.now,
            page=context.page,
            history_versions=self._history_versions,
            signer=self._signer,
        )

    def _drop_offers(self, effects: list[DropOffer], context: _Context) -> None:
        from atom_saas_sync.store.sqlite.gate.effects import drop_offers

        drop_offers(self._connection, effects, context.now, history_versions=self._history_versions)

    def _quarantine(self, effects: list[Quarantine], context: _Context) -> None:
        from atom_saas_sync.store.sqlite.gate.effects import quarantine

        quarantine(self._connection, effects, context.now)

    def _release(self, effects: list[Release], _: _Context) -> None:
        from atom_saas_sync.store.sqlite.gate.effects import release

        release(self._connection, effects)
