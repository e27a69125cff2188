"""Plan for a WebSocket message about a skill: whether it is outdated, and the version that it results in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from atom_saas_sync.core.canonical import json_text, same, version_from, version_from_fields, version_key
from atom_saas_sync.core.gate.admission import unjudged
from atom_saas_sync.core.incoming.messages import RATING_FIGURES, RATING_UPDATE, SKILL_DELETE, Message
from atom_saas_sync.core.plan.conflicts import fields_of
from atom_saas_sync.core.plan.deletions import plan_deleted
from atom_saas_sync.core.plan.listed import plan_sides
from atom_saas_sync.core.plan.sides import Sides
from atom_saas_sync.core.plan.steps import SENT, Source, identity
from atom_saas_sync.model import Action, MessageMark, Outcome, SkillState, SkillVersion, Strategy
from atom_saas_sync.model.effects import Identity
from atom_saas_sync.times import CLOCK_TOLERANCE, parse_time


class Announced(Struct, frozen=True):
    """The content of a message about a skill: `deleted`, or a version; `remote` is None if nothing changes.

    `about_figures`: it is stored as a message about the figures only; `has_figures`: as one about both.
    """

    sides: Sides
    remote: SkillVersion | None = None
    source: Source = SENT
    deleted: bool = False
    about_figures: bool = False
    has_figures: bool = False


def announced_by(
    message: Message,
    known: SkillState | None,
    mark: MessageMark | None,
    rating_mark: MessageMark | None,
    now: datetime,
    *,
    offered: str | None = None,
) -> Announced | None:
    """Return the content of a message about a skill; None if it is outdated or about an unknown skill.

    The marks are those of the last messages about the skill and about its figures. `offered` is the text of the waiting
    version: it is newer than the base, so a partial message is applied to it.
    """
    sides = Sides(known or SkillState(message.key), offered=offered)
    if message.type == RATING_UPDATE:
        return _announced_rating(sides, message, rating_mark, now)
    stored = fields_of(sides.newest)
    if _comes_too_late(message, stored, mark, now):
        return None
    if message.type == SKILL_DELETE:
        return Announced(sides, deleted=True)
    if sides.is_tampered:  # the message is partial and needs it
        return None
    has_figures = rating_mark is not None and not message.fields.keys().isdisjoint(RATING_FIGURES)
    if rating_mark is not None and _is_older_than(message, rating_mark, now):
        message, has_figures = without_figures(message), False  # a newer message about the figures was applied first
    return Announced(sides, _updated(sides, message, stored), _source(sides), has_figures=has_figures)


def plan_announced(announced: Announced, strategy: Strategy, now: datetime) -> Action:
    """Plan for the content of a message, without the gate and without marking republished versions."""
    action = None
    if announced.deleted:
        action = plan_deleted(announced.sides.known, strategy)
    elif announced.remote is not None:
        (remote,) = unjudged({announced.sides.skill_id: announced.remote}).values()
        action = plan_sides(announced.sides, remote, strategy, now, announced.source)
    return action or Action(announced.sides.skill_id, Outcome.UNCHANGED)


def _comes_too_late(
    message: Message, stored: Mapping[str, Any] | None, mark: MessageMark | None, now: datetime
) -> bool:
    if mark is not None and mark.deleted and stored is None:
        # Deleted since: only a version that is not older than the deletion restores it.
        return _is_older_than(message, mark, now)
    updated_at = None if stored is None else parse_time(stored.get("updated_at"))
    return is_outdated(message, updated_at=updated_at, sent_at=None if mark is None else mark.sent_at, now=now)


def _is_older_than(message: Message, mark: MessageMark, now: datetime) -> bool:
    return is_outdated(message, updated_at=None, sent_at=mark.sent_at, now=now)


def _updated(sides: Sides, message: Message, stored: Mapping[str, Any] | None) -> SkillVersion | None:
    remote = merged_version(message, stored)
    deleted = sides.known.base is not None and sides.known.base.deleted
    if remote is None and (sides.local is None or deleted):
        # Unchanged, but the row is missing here, or the skill was marked as deleted.
        return merged_version(message, None)
    return remote


def _announced_rating(sides: Sides, message: Message, mark: MessageMark | None, now: datetime) -> Announced | None:
    stored, base = fields_of(sides.newest), sides.known.base
    if stored is None or (base is not None and base.deleted) or sides.is_tampered:
        return None  # nothing cached, or a local skill
    sent_at = None if mark is None else mark.sent_at
    updated_at = None if mark is not None else parse_time(stored.get("updated_at"))
    if is_outdated(message, updated_at=updated_at, sent_at=sent_at, now=now):
        return None
    return Announced(sides, merged_version(message, stored), _source(sides), about_figures=True)


def _source(sides: Sides) -> Source:
    """Return the source of a message's version: the version that the message completes, unless the skill is new."""
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
    """Tell whether the stored state is newer than the message; equal times do not count as newer.

    `updated_at` is that of the stored version, `sent_at` the time of the last applied message. The same kinds of time
    are compared, as far as both sides have them: first `updated_at`, then message times. A deletion is compared with
    messages only, and times after `now` are ignored: otherwise a skill could be kept forever.
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
    """Return `stored` with the message's changes; None if there are none.

    Fields that are not in the message are kept: only polling removes fields.
    """
    news = message.fields
    if message.type == RATING_UPDATE:
        news = {name: news[name] for name in RATING_FIGURES if name in news}
    if stored is None:
        return version_from(message.key, message.text, message.fields, message.digest, shape=message.shape)
    if message.type != RATING_UPDATE and news.keys() >= stored.keys():
        # The message has the whole skill: keep its exact text, so that the next poll recognizes it.
        if _equal(news, stored):
            return None
        return version_from(message.key, message.text, news, message.digest, shape=message.shape)
    merged = {**stored, **news}
    return None if _equal(merged, stored) else version_from_fields(message.key, merged)


def without_figures(message: Message) -> Message:
    """Return the message without the fields of a rating_update, so that the stored figures are kept."""
    fields = {name: value for name, value in message.fields.items() if name not in RATING_FIGURES}
    return replace(message, text=json_text(fields), fields=fields, digest=None)


def _equal(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    return left == right and same(left, right)
