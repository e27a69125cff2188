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
from atom_saas_sync.core.plan.steps import Source, identity
from atom_saas_sync.model import Action, Known, MessageMark, Outcome, SkillVersion, Strategy
from atom_saas_sync.model.effects import Identity
from atom_saas_sync.times import CLOCK_TOLERANCE, parse_time


class PlannedMessage(Struct, frozen=True):
    """What follows from a message, and what to remember of it: whether of the skill, and whether of its figures."""

    action: Action
    sides: Sides
    about_figures: bool = False
    has_figures: bool = False


def plan_message(
    message: Message,
    known: Known | None,
    mark: MessageMark | None,
    rating_mark: MessageMark | None,
    strategy: Strategy,
    now: datetime,
) -> PlannedMessage | None:
    """Plan for a message about a skill; None if it is outdated, or about nothing that we know.

    The marks are what is remembered of the last messages about the skill and about its figures.
    """
    sides = Sides(known or Known(message.key))
    if message.type == RATING_UPDATE:
        return _plan_rating(sides, message, rating_mark, strategy, now)
    stored = fields_of(sides.newest)
    if _comes_too_late(message, stored, mark, now):
        return None
    if message.type == SKILL_DELETE:
        action = None if known is None else plan_deleted(known, strategy)
        return PlannedMessage(action or _nothing(message), sides)
    if sides.is_tampered:  # it would complete what the message leaves out
        return None
    has_figures = rating_mark is not None and not message.fields.keys().isdisjoint(RATING_FIGURES)
    if rating_mark is not None and _is_older_than(message, rating_mark, now):
        message, has_figures = without_figures(message), False  # a newer message about them came first
    return PlannedMessage(_plan_update(sides, message, stored, strategy, now), sides, has_figures=has_figures)


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


def _plan_update(
    sides: Sides, message: Message, stored: Mapping[str, Any] | None, strategy: Strategy, now: datetime
) -> Action:
    remote = merged_version(message, stored)
    deleted = sides.known.base is not None and sides.known.base.deleted
    if remote is None and (sides.local is None or deleted):
        # The same as before, but the row is gone here, or was thought to be gone there.
        remote = merged_version(message, None)
    return _nothing(message) if remote is None else plan_sides(sides, remote, strategy, now, _source(sides))


def _plan_rating(
    sides: Sides, message: Message, mark: MessageMark | None, strategy: Strategy, now: datetime
) -> PlannedMessage | None:
    stored, base = fields_of(sides.newest), sides.known.base
    if stored is None or (base is not None and base.deleted) or sides.is_tampered:
        return None  # nothing to rate here, or not the marketplace's
    sent_at = None if mark is None else mark.sent_at
    updated_at = None if mark is not None else parse_time(stored.get("updated_at"))
    if is_outdated(message, updated_at=updated_at, sent_at=sent_at, now=now):
        return None
    remote = merged_version(message, stored)
    action = _nothing(message)
    if remote is not None:
        action = plan_sides(sides, remote, strategy, now, _source(sides))
    return PlannedMessage(action, sides, about_figures=True)


def _nothing(message: Message) -> Action:
    return Action(message.key, Outcome.UNCHANGED)


def _source(sides: Sides) -> Source:
    """Return what proves a version that a message has brought: that which completes it, unless the skill is new."""
    waiting, base = sides.waiting, sides.known.base
    if waiting is not None:
        version = waiting.version
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
