"""Follow events: apply WebSocket messages, in batches, through the same planner as polling (marketplace-api.md, 4)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from atom_saas_sync.characters import short_id
from atom_saas_sync.core.canonical import canonical, decode_object
from atom_saas_sync.core.incoming import (
    CATEGORY_UPDATE,
    RATING_FIGURES,
    RATING_UPDATE,
    SKILL_DELETE,
    Message,
)
from atom_saas_sync.core.plan import plan_deleted, plan_listed
from atom_saas_sync.core.realtime import is_outdated, merged_version, remote_text, without_figures
from atom_saas_sync.model import Action, BaseChange, CacheChange, Category, Known, MessageMark, Outcome, Strategy
from atom_saas_sync.times import parse_time
from atom_saas_sync.usecases.ports import EventBatch, StoredEvents

log = logging.getLogger(__name__)


class EventFollower:
    """Applies batches of messages. A batch is one transaction: all of it, or nothing if it raises DatabaseError."""

    def __init__(self, store: StoredEvents, *, strategy: Strategy) -> None:
        self._store = store
        self.strategy: Strategy = strategy

    def apply(self, messages: Sequence[Message], now: datetime) -> None:
        """Apply messages in the order in which they came; older ones than what is stored change nothing."""
        outcomes: Counter[tuple[str, str]] = Counter()
        done: list[Action] = []
        with self._store.batch() as batch:
            for group in _groups(messages):
                if group[0].type == CATEGORY_UPDATE:
                    outcomes["category", "updated"] += self._apply_categories(batch, group, now)
                else:
                    done += self._apply_skills(batch, group, now)
            for action in done:
                if action.outcome is not Outcome.UNCHANGED:
                    outcomes["skill", action.outcome.value] += 1
            batch.count(Counter(message.type for message in messages), outcomes, now)
        for action in done:
            _log(action)

    def _apply_skills(self, batch: EventBatch, group: Sequence[Message], now: datetime) -> list[Action]:
        """Apply messages about different skills."""
        ids = [message.key for message in group]
        known = batch.known(ids)
        marks = batch.marks("skill", ids)
        rating_marks = batch.marks("rating", ids)
        actions: list[Action] = []
        news: dict[str, MessageMark] = {}
        rating_news: dict[str, MessageMark] = {}
        for message in group:
            stored = known.get(message.key)
            skill_mark, rating_mark = marks.get(message.key), rating_marks.get(message.key)
            if message.type == RATING_UPDATE:
                action, mark = self._plan_rating(message, stored, rating_mark, now), rating_news
            else:
                action, mark = self._plan_skill(message, stored, skill_mark, rating_mark, now), news
            if action is None:
                continue
            mark[message.key] = MessageMark(message.sent_at, message.type == SKILL_DELETE)
            if mark is news and rating_mark is not None and _has_newer_figures(message, rating_mark):
                rating_news[message.key] = MessageMark(message.sent_at)
            if _does_something(action):
                actions.append(action)
        batch.apply(actions, now)
        batch.mark("skill", news, now)
        batch.mark("rating", rating_news, now)
        pages = {stored.base.page for action in actions if (stored := known.get(action.skill_id)) and stored.base}
        batch.distrust_pages(page for page in pages if page is not None)
        return actions

    def _plan_skill(
        self,
        message: Message,
        known: Known | None,
        mark: MessageMark | None,
        rating_mark: MessageMark | None,
        now: datetime,
    ) -> Action | None:
        """Return what to do; None if the message is outdated or of nothing that we know."""
        stored = _remote_fields(known)
        updated_at = None if stored is None else parse_time(stored.get("updated_at"))
        if mark is not None and mark.deleted and stored is None:
            # Gone since: only what is no older than the deletion brings it back.
            if _is_older_than(message, mark):
                return None
        elif is_outdated(message, updated_at=updated_at, sent_at=None if mark is None else mark.sent_at):
            return None
        unchanged = Action(message.key, Outcome.UNCHANGED)
        if message.type == SKILL_DELETE:
            return unchanged if known is None else plan_deleted(known, self.strategy) or unchanged
        if rating_mark is not None and _is_older_than(message, rating_mark):
            message = without_figures(message)  # a newer message about them came first
        remote = merged_version(message, stored)
        if remote is None and known is not None and known.local_text is not None and not _is_deleted_there(known):
            return unchanged
        if remote is None:  # the same as before, but the row is gone here, or was thought to be gone there
            remote = merged_version(message, None)
        return unchanged if remote is None else plan_listed(known, remote, self.strategy, now)

    def _plan_rating(
        self, message: Message, known: Known | None, mark: MessageMark | None, now: datetime
    ) -> Action | None:
        stored = _remote_fields(known)
        if known is None or stored is None or _is_deleted_there(known):
            return None  # nothing to rate here
        sent_at = None if mark is None else mark.sent_at
        updated_at = None if mark is not None else parse_time(stored.get("updated_at"))
        if is_outdated(message, updated_at=updated_at, sent_at=sent_at):
            return None
        remote = merged_version(message, stored)
        return (
            Action(message.key, Outcome.UNCHANGED) if remote is None else plan_listed(known, remote, self.strategy, now)
        )

    def _apply_categories(self, batch: EventBatch, group: Sequence[Message], now: datetime) -> int:
        marks = batch.marks("category", [message.key for message in group])
        news: dict[str, MessageMark] = {}
        changed = 0
        for message in group:
            mark = marks.get(message.key)
            text = batch.category(message.key)
            stored = decode_object(text) if text is not None else None
            updated_at = None if stored is None else parse_time(stored.get("updated_at"))
            if is_outdated(message, updated_at=updated_at, sent_at=None if mark is None else mark.sent_at):
                continue
            news[message.key] = MessageMark(message.sent_at)
            merged = {**(stored or {}), **message.fields}
            if merged != stored:
                batch.put_category(Category(message.key, canonical(merged).decode()), now)
                changed += 1
        batch.mark("category", news, now)
        return changed


def _groups(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Cut the messages into groups, in order, in which nothing is named twice: each group is planned as a whole."""
    group: list[Message] = []
    keys: set[str] = set()
    category = False
    for message in messages:
        if group and (message.key in keys or (message.type == CATEGORY_UPDATE) != category):
            yield group
            group, keys = [], set()
        group.append(message)
        keys.add(message.key)
        category = message.type == CATEGORY_UPDATE
    if group:
        yield group


def _is_older_than(message: Message, mark: MessageMark) -> bool:
    return is_outdated(message, updated_at=None, sent_at=mark.sent_at)


def _has_newer_figures(message: Message, rating_mark: MessageMark) -> bool:
    """Tell whether a message about a skill says what a rating_update would say, and no older one comes after it."""
    return not message.fields.keys().isdisjoint(RATING_FIGURES) and not _is_older_than(message, rating_mark)


def _remote_fields(known: Known | None) -> dict[str, object] | None:
    text = remote_text(known)
    return None if text is None else decode_object(text)


def _is_deleted_there(known: Known) -> bool:
    return known.base is not None and known.base.deleted


def _does_something(action: Action) -> bool:
    return (
        action.outcome is not Outcome.UNCHANGED
        or action.cache is not CacheChange.KEEP
        or action.base is not BaseChange.KEEP
        or action.conflict is not None
    )


def _log(action: Action) -> None:
    if action.republished:
        log.warning("%s was republished: the same version has another executable content", short_id(action.skill_id))
    if action.conflict is not None:
        resolution = action.conflict.resolution
        log.info(
            "conflict on %s: %s, %s, %s",
            short_id(action.skill_id),
            action.conflict.conflict.type,
            action.conflict.conflict.severity,
            "waits" if resolution is None else f"resolved by {resolution.strategy}",
        )
