"""Follow events: apply WebSocket messages, in batches, through the same planner as polling (marketplace-api.md, 4)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from atom_saas_sync.characters import short_id
from atom_saas_sync.core.canonical import canonical, decode_object
from atom_saas_sync.core.deletions import MaxDelete
from atom_saas_sync.core.incoming.messages import CATEGORY_UPDATE, RATING_FIGURES, RATING_UPDATE, SKILL_DELETE, Message
from atom_saas_sync.core.plan import is_tampered, plan_deleted, plan_listed, with_alarm
from atom_saas_sync.core.realtime import is_outdated, merged_version, remote_text, without_figures
from atom_saas_sync.model import Action, BaseChange, CacheChange, Category, Known, MessageMark, Outcome, Strategy
from atom_saas_sync.times import parse_time
from atom_saas_sync.usecases.limited_log import LimitedLog
from atom_saas_sync.usecases.ports import EventBatch, StoredEvents

log = logging.getLogger(__name__)

_DEFAULT_MAX_DELETE = MaxDelete()


class EventFollower:
    """Applies batches of messages. A batch is one transaction: all of it, or nothing if it raises DatabaseError."""

    def __init__(self, store: StoredEvents, *, strategy: Strategy, max_delete: MaxDelete = _DEFAULT_MAX_DELETE) -> None:
        """Apply with this strategy, and at most so many deletions within an hour."""
        self._store = store
        self.strategy: Strategy = strategy
        self._max_delete = max_delete
        self._lines = _Lines()

    def apply(self, messages: Sequence[Message], now: datetime) -> None:
        """Apply messages in the order in which they came; older ones than what is stored change nothing."""
        outcomes: Counter[tuple[str, str]] = Counter()
        done: list[tuple[Message, Action]] = []
        categories: list[str] = []
        with self._store.batch() as batch:
            brake = _Brake(batch, self._max_delete, now)
            for group in _groups(messages):
                if group[0].type == CATEGORY_UPDATE:
                    categories += self._apply_categories(batch, group, now)
                else:
                    done += self._apply_skills(batch, group, brake, now)
            brake.note()
            for _, action in done:
                if action.outcome is not Outcome.UNCHANGED:
                    outcomes["skill", action.outcome.value] += 1
            outcomes["category", "updated"] += len(categories)
            batch.count(Counter(message.type for message in messages), outcomes, now)
        self._lines.tell(done, categories, brake)

    def settle(self, *, at_once: bool = False) -> None:
        """Tell how many lines were left out of the log lately."""
        self._lines.settle(at_once=at_once)

    def _apply_skills(
        self, batch: EventBatch, group: Sequence[Message], brake: _Brake, now: datetime
    ) -> list[tuple[Message, Action]]:
        """Apply messages about different skills."""
        ids = [message.key for message in group]
        known = batch.known(ids)
        marks = batch.marks("skill", ids)
        rating_marks = batch.marks("rating", ids)
        done: list[tuple[Message, Action]] = []
        news: dict[str, MessageMark] = {}
        rating_news: dict[str, MessageMark] = {}
        for message in group:
            stored = known.get(message.key)
            if message.only_if_held and stored is None:
                log.debug("a message was dropped: no new skill may have the id %s", short_id(message.key))
                continue
            skill_mark, rating_mark = marks.get(message.key), rating_marks.get(message.key)
            if message.type == RATING_UPDATE:
                action, mark = self._plan_rating(message, stored, rating_mark, now), rating_news
            else:
                action, mark = self._plan_skill(message, stored, skill_mark, rating_mark, brake, now), news
            if action is None:
                continue
            mark[message.key] = MessageMark(message.sent_at, message.type == SKILL_DELETE)
            if mark is news and rating_mark is not None and _has_newer_figures(message, rating_mark, now):
                rating_news[message.key] = MessageMark(message.sent_at)
            if _does_something(action):
                done.append((message, action))
        otherwise = batch.seen_otherwise(action.remote for _, action in done if action.remote is not None)
        done = [
            (message, with_alarm(action, known.get(action.skill_id), seen_otherwise=action.skill_id in otherwise))
            for message, action in done
        ]
        actions = [action for _, action in done]
        batch.apply(actions, now)
        batch.mark("skill", news, now)
        batch.mark("rating", rating_news, now)
        pages = {stored.base.page for action in actions if (stored := known.get(action.skill_id)) and stored.base}
        batch.distrust_pages(page for page in pages if page is not None)
        return done

    def _plan_skill(
        self,
        message: Message,
        known: Known | None,
        mark: MessageMark | None,
        rating_mark: MessageMark | None,
        brake: _Brake,
        now: datetime,
    ) -> Action | None:
        """Return what to do; None if the message is outdated, of nothing that we know, or left to the next poll."""
        stored = _remote_fields(known)
        updated_at = None if stored is None else parse_time(stored.get("updated_at"))
        if mark is not None and mark.deleted and stored is None:
            # Gone since: only what is no older than the deletion brings it back.
            if _is_older_than(message, mark, now):
                return None
        elif is_outdated(message, updated_at=updated_at, sent_at=None if mark is None else mark.sent_at, now=now) or (
            message.type != SKILL_DELETE and is_tampered(known)  # which would complete what the message leaves out
        ):
            return None
        unchanged = Action(message.key, Outcome.UNCHANGED)
        if message.type == SKILL_DELETE:
            deletion = None if known is None else plan_deleted(known, self.strategy)
            if deletion is None:
                return unchanged
            return deletion if brake.admits() else None
        if rating_mark is not None and _is_older_than(message, rating_mark, now):
            message = without_figures(message)  # a newer message about them came first
        remote = merged_version(message, stored)
        if remote is None and known is not None and known.local_text is not None and not _is_deleted_there(known):
            return unchanged
        if remote is None:  # the same as before, but the row is gone here, or was thought to be gone there
            remote = merged_version(message, None)
        return unchanged if remote is None else plan_listed(known, remote, self.strategy, now, stored=stored)

    def _plan_rating(
        self, message: Message, known: Known | None, mark: MessageMark | None, now: datetime
    ) -> Action | None:
        stored = _remote_fields(known)
        if known is None or stored is None or _is_deleted_there(known) or is_tampered(known):
            return None  # nothing to rate here, or not the marketplace's
        sent_at = None if mark is None else mark.sent_at
        updated_at = None if mark is not None else parse_time(stored.get("updated_at"))
        if is_outdated(message, updated_at=updated_at, sent_at=sent_at, now=now):
            return None
        remote = merged_version(message, stored)
        if remote is None:
            return Action(message.key, Outcome.UNCHANGED)
        return plan_listed(known, remote, self.strategy, now, stored=stored)

    def _apply_categories(self, batch: EventBatch, group: Sequence[Message], now: datetime) -> list[str]:
        marks = batch.marks("category", [message.key for message in group])
        news: dict[str, MessageMark] = {}
        changed: list[str] = []
        for message in group:
            mark = marks.get(message.key)
            text = batch.category(message.key)
            stored = decode_object(text) if text is not None else None
            updated_at = None if stored is None else parse_time(stored.get("updated_at"))
            sent_at = None if mark is None else mark.sent_at
            if is_outdated(message, updated_at=updated_at, sent_at=sent_at, now=now):
                continue
            news[message.key] = MessageMark(message.sent_at)
            merged = {**(stored or {}), **message.fields}
            if merged != stored:
                batch.put_category(Category(message.key, canonical(merged).decode()), now)
                changed.append(message.key)
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


def _is_older_than(message: Message, mark: MessageMark, now: datetime) -> bool:
    return is_outdated(message, updated_at=None, sent_at=mark.sent_at, now=now)


def _has_newer_figures(message: Message, rating_mark: MessageMark, now: datetime) -> bool:
    """Tell whether a message about a skill says what a rating_update would say, and no older one comes after it."""
    return not message.fields.keys().isdisjoint(RATING_FIGURES) and not _is_older_than(message, rating_mark, now)


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


class _Brake:
    """Limits the deletions by messages, which nothing confirms: MaxDelete holds for an hour as it does for a run."""

    def __init__(self, batch: EventBatch, max_delete: MaxDelete, now: datetime) -> None:
        self._batch = batch
        self._max_delete = max_delete
        self._now = now
        self._left: int | None = None
        self._made = self._listed = 0
        self.limit = 0
        self.held_back = 0

    def admits(self) -> bool:
        """Tell whether one more skill may be deleted, and count it."""
        if self._left is None:
            lately, self._listed, most = self._batch.deletions_lately(self._now)
            self.limit = self._max_delete.limit(most)
            self._left = self.limit - lately
        if self._left <= 0:
            self.held_back += 1
            return False
        self._left -= 1
        self._made += 1
        return True

    def note(self) -> None:
        """Write down what was admitted, in the transaction that does it."""
        if self._made:
            self._batch.note_deletions(self._made, self._listed, self._now)


class _Lines:
    """The log of what messages have changed: whoever sends them must not fill it."""

    def __init__(self) -> None:
        self._changes = LimitedLog(log, logging.INFO, "%d more changes by messages within a second")
        self._deletions = LimitedLog(log, logging.INFO, "%d more deletions by messages within a second")
        self._held_back = LimitedLog(log, logging.WARNING, "%d more times deletions were left to the next poll", most=1)
        self._republished = LimitedLog(log, logging.WARNING, "%d more skills were republished within a second")
        self._conflicts = LimitedLog(log, logging.INFO, "%d more conflicts by messages within a second")

    def tell(self, done: Sequence[tuple[Message, Action]], categories: Sequence[str], brake: _Brake) -> None:
        for message, action in done:
            if action.outcome is Outcome.DELETED:
                self._deletions.say("%s: deleted %s", message.type, short_id(action.skill_id))
            elif action.outcome is not Outcome.UNCHANGED:
                self._changes.say("%s: %s %s", message.type, action.outcome.value, short_id(action.skill_id))
            if action.republished:
                self._republished.say("%s was republished: same version, different code", short_id(action.skill_id))
            if action.conflict is not None:
                conflict, resolution = action.conflict.conflict, action.conflict.resolution
                settled = "waits" if resolution is None else f"resolved by {resolution.strategy}"
                text = "conflict on %s: %s, %s, %s"
                self._conflicts.say(text, short_id(action.skill_id), conflict.type, conflict.severity, settled)
        for name in categories:
            self._changes.say("%s: updated %s", CATEGORY_UPDATE, short_id(name))
        if brake.held_back:
            self._held_back.say(
                "left %d deletions by messages to the next poll, which confirms each: at most %d within an hour",
                brake.held_back,
                brake.limit,
            )

    def settle(self, *, at_once: bool) -> None:
        for each in (self._changes, self._deletions, self._held_back, self._republished, self._conflicts):
            each.settle(at_once=at_once)
