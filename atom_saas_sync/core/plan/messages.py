"""The plan for a WebSocket message about a skill: what it is newer than, and what it makes of the stored version."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from atom_saas_sync.core.canonical import json_text, same, version_from, version_from_fields, version_key
from atom_saas_sync.core.incoming.messages import RATING_FIGURES, RATING_UPDATE, SKILL_DELETE, Message
from atom_saas_sync.core.plan.conflicts import fields_of
from atom_saas_sync.core.plan.deletions import plan_deleted
from atom_saas_sync.core.plan.listed import plan_sides
from atom_saas_sync.core.plan.sides import Sides
from atom_saas_sync.core.plan.steps import SENT, Source, identity
from atom_saas_sync.model import Action, MessageMark, Outcome, SkillState, SkillVersion, Strategy
from atom_saas_sync.model.effects import Identity
from atom_saas_sync.times import CLOCK_TOLERANCE, parse_time


class Told(Struct, frozen=True):
    """What a message tells of a skill: that it is `deleted`, or a version; `remote` is None if that is nothing new.

    `about_figures`: it is remembered as a message about the figures; `has_figures`: as one about them, too.
    """

    sides: Sides
    remote: SkillVersion | None = None
    source: Source = SENT
    deleted: bool = False
    about_figures: bool = False
    has_figures: bool = False


def told_by(
    message: Message,
    known: SkillState | None,
    mark: MessageMark | None,
    rating_mark: MessageMark | None,
    now: datetime,
    *,
    offered: str | None = None,
) -> Told | None:
    """Return what a message about a skill tells; None if it is outdated, or about nothing that we know.

    The marks are what is remembered of the last messages about the skill and about its figures. `offered` is the text
    of the marketplace's version that waits: it is newer than the base, and a message continues it.
    """
    sides = Sides(known or SkillState(message.key), offered=offered)
    if message.type == RATING_UPDATE:
        return _rating_told(sides, message, rating_mark, now)
    stored = fields_of(sides.newest)
    if _comes_too_late(message, stored, mark, now):
        return None
    if message.type == SKILL_DELETE:
        return Told(sides, deleted=True)
    if sides.is_tampered:  # it would complete what the message leaves out
        return None
    has_figures = rating_mark is not None and not message.fields.keys().isdisjoint(RATING_FIGURES)
    if rating_mark is not None and _is_older_than(message, rating_mark, now):
        message, has_figures = without_figures(message), False  # a newer message about them came first
    return Told(sides, _updated(sides, message, stored), _source(sides), has_figures=has_figures)


def plan_told(told: Told, strategy: Strategy, now: datetime) -> Action:
    """Plan for what a message tells, without the gate and without the alarm."""
    action = None
    if told.deleted:
        action = plan_deleted(told.sides.known, strategy)
    elif told.remote is not None:
        action = plan_sides(told.sides, told.remote, strategy, now, told.source)
    return action or Action(told.sides.skill_id, Outcome.UNCHANGED)


def _comes_too_late(
    message: Message, stored: Mapping[str, Any] | None, mark: MessageMark | None, now: datetime
) -> bool:
    if mark is not None and mark.deleted and stored is None:
        # Gone since: only what is no older than the deletion brings it back.
        return _is_older_than(message, mark, now)
    updated_at = None if stored is None else parse_time(stored.get("updated_at"))
    return is_outdated(message, updated_at=updated_at, sent_at=None if mark is None else mark.sent_at, now=now)


def _is_older_than(message: Message, mark: MessageMark, now: datetime) -> bool:
    return is_outdated(message, updated_at=None, sent_at=mark.sent_at, now=now)


def _updated(sides: Sides, message: Message, stored: Mapping[str, Any] | None) -> SkillVersion | None:
    remote = merged_version(message, stored)
    deleted = sides.known.base is not None and sides.known.base.deleted
    if remote is None and (sides.local is None or deleted):
        # The same as before, but the row is gone here, or was thought to be gone there.
        return merged_version(message, None)
    return remote


def _rating_told(sides: Sides, message: Message, mark: MessageMark | None, now: datetime) -> Told | None:
    stored, base = fields_of(sides.newest), sides.known.base
    if stored is None or (base is not None and base.deleted) or sides.is_tampered:
        return None  # nothing to rate here, or not the marketplace's
    sent_at = None if mark is None else mark.sent_at
    updated_at = None if mark is not None else parse_time(stored.get("updated_at"))
    if is_outdated(message, updated_at=updated_at, sent_at=sent_at, now=now):
        return None
    return Told(sides, merged_version(message, stored), _source(sides), about_figures=True)


def _source(sides: Sides) -> Source:
    """Return what proves a version that a message has brought: that which completes it, unless the skill is new."""
    waits, base = sides.offered or sides.waiting, sides.known.base
    if waits is not None:
        version = waits.version
        return (
            Source(named=True) if version is None else Source(continues=identity(version, version_key(version.fields)))
        )
    if base is None:
        return Source()
    return Source(continues=Identity(base.version, base.content_digest, base.exec_digest))


def is_outdated(message: Message, *, updated_at: datetime | None, sent_at: datetime | None, now: datetime) -> bool:
    """Tell whether what is stored is newer than the message; one of the same time applies.

    `updated_at` is that of what is stored, `sent_at` the time of the last message about it that was applied. Like is
    compared with like as far as both sides have it: `updated_at` first, then the times of the messages. A deletion is
    compared with messages only, and a time that is ahead of `now` counts as none: either could keep a skill for ever.
    """
    latest = now + CLOCK_TOLERANCE
    mine, stored = _until(latest, message.updated_at), _until(latest, updated_at)
    if message.type == SKILL_DELETE:
        mine = stored = None
    mine_sent, last_sent = _until(latest, message.sent_at), _until(latest, sent_at)
    if mine is not None and stored is not None and mine != stored:
        return mine < stored
    if mine_sent is not None and last_sent is not None:
        return mine_sent < last_sent
    mine, stored = mine or mine_sent, stored or last_sent
    return mine is not None and stored is not None and mine < stored


def _until(latest: datetime, moment: datetime | None) -> datetime | None:
    return moment if moment is not None and moment <= latest else None


def merged_version(message: Message, stored: Mapping[str, Any] | None) -> SkillVersion | None:
    """Return the version of the skill that the message makes of `stored`; None if it changes nothing.

    Fields that the message does not carry are kept: only polling removes fields.
    """
    news = message.fields
    if message.type == RATING_UPDATE:
        news = {name: news[name] for name in RATING_FIGURES if name in news}
    if stored is None:
        return version_from(message.key, message.text, message.fields, message.digest, shape=message.shape)
    if message.type != RATING_UPDATE and news.keys() >= stored.keys():
        # The skill is whole: in the very text that came, so that the next poll can see that it is the same.
        if _equal(news, stored):
            return None
        return version_from(message.key, message.text, news, message.digest, shape=message.shape)
    merged = {**stored, **news}
    return None if _equal(merged, stored) else version_from_fields(message.key, merged)


def without_figures(message: Message) -> Message:
    """Return the message without what a rating_update says: then the stored figures are kept."""
    fields = {name: value for name, value in message.fields.items() if name not in RATING_FIGURES}
    return replace(message, text=json_text(fields), fields=fields, digest=None)


def _equal(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    return left == right and same(left, right)
