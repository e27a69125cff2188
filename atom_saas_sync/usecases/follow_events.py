"""Follow events: apply WebSocket messages, in batches, through the same planner as polling (marketplace-api.md, 4)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from atom_saas_sync.characters import short_id
from atom_saas_sync.core.canonical import canonical, decode_object
from atom_saas_sync.core.deletions import MaxDelete
from atom_saas_sync.core.incoming.messages import CATEGORY_UPDATE, SKILL_DELETE, Message
from atom_saas_sync.core.plan.listed import with_alarm
from atom_saas_sync.core.plan.messages import PlannedMessage, is_outdated, plan_message
from atom_saas_sync.model import Action, Category, MessageMark, Outcome, Strategy
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
        planned: list[tuple[Message, PlannedMessage]] = []
        news: dict[str, MessageMark] = {}
        rating_news: dict[str, MessageMark] = {}
        for message in group:
            stored, key = known.get(message.key), message.key
            if message.only_if_held and stored is None:
                log.debug("a message was dropped: no new skill may have the id %s", short_id(key))
                continue
            plan = plan_message(message, stored, marks.get(key), rating_marks.get(key), self.strategy, now)
            if plan is None:
                continue
            deletes = message.type == SKILL_DELETE
            if deletes and plan.action.does_something and not brake.admits():
                continue
            (rating_news if plan.about_figures else news)[key] = MessageMark(message.sent_at, deletes)
            if plan.has_figures:
                rating_news[key] = MessageMark(message.sent_at)
            if plan.action.does_something:
                planned.append((message, plan))
        otherwise = batch.seen_otherwise(plan.action.remote for _, plan in planned if plan.action.remote is not None)
        done = [
            (message, with_alarm(plan.action, plan.sides, seen_otherwise=message.key in otherwise))
            for message, plan in planned
        ]
        batch.apply([action for _, action in done], now)
        batch.mark("skill", news, now)
        batch.mark("rating", rating_news, now)
        bases = [plan.sides.known.base for _, plan in planned]
        batch.distrust_pages({base.page for base in bases if base is not None and base.page is not None})
        return done

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
