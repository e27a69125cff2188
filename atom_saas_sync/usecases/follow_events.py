"""Apply WebSocket messages in batches, through the same planner as polling (marketplace-api.md, section 4)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from atom_saas_sync.characters import short_id
from atom_saas_sync.core.canonical import canonical, decode_object
from atom_saas_sync.core.deletions import MaxDelete
from atom_saas_sync.core.incoming.messages import CATEGORY_UPDATE, Message
from atom_saas_sync.core.plan.listed import with_alarm
from atom_saas_sync.core.plan.messages import Announced, announced_by, is_outdated, plan_announced
from atom_saas_sync.model import Action, Category, MessageMark, Outcome, SkillState, Strategy
from atom_saas_sync.times import parse_time
from atom_saas_sync.usecases.limited_log import LimitedLog

if TYPE_CHECKING:
    from atom_saas_sync.core.gate.types import Gate, Offer
    from atom_saas_sync.usecases.ports import EventBatch, StoredEvents

log = logging.getLogger(__name__)

_DEFAULT_MAX_DELETE = MaxDelete()
_MOST_UNCONFIRMED = 1000
MOST_ADDED_AN_HOUR = 1000
MOST_BYTES_ADDED_AN_HOUR = 64 * 1024 * 1024
_COUNTED = {Outcome.ADDED, Outcome.UPDATED, Outcome.DELETED}


class EventFollower:
    """Applies batches of messages. Each batch is one transaction: all of it is stored, or nothing (DatabaseError)."""

    def __init__(
        self,
        store: StoredEvents,
        *,
        strategy: Strategy,
        max_delete: MaxDelete = _DEFAULT_MAX_DELETE,
        gate: Callable[[datetime], Gate] | None = None,
    ) -> None:
        """Resolve conflicts with `strategy`, and allow at most `max_delete` deletions an hour.

        `gate` returns the gate at a given time; without it, everything is admitted.
        """
        self._store = store
        self.strategy: Strategy = strategy
        self._max_delete = max_delete
        self._gate = gate
        self._newest_revocation = 0
        self._lines = _Lines()
        self.unconfirmed: dict[str, None] = {}
        """The skills, in order, whose messages must be confirmed by the marketplace."""

    def apply(self, messages: Sequence[Message], now: datetime) -> None:
        """Apply messages in the order of arrival; a message older than the stored data changes nothing."""
        outcomes: Counter[tuple[str, str]] = Counter()
        done: list[tuple[Message, Action]] = []
        categories: list[str] = []
        gate = None if self._gate is None else self._gate(now)
        with self._store.batch() as batch:
            gate = None if gate is None else self._in_force(batch, gate)
            brake, intake = Brake(batch, self._max_delete, now), _Intake(batch, now)
            for group in _groups(messages):
                if group[0].type == CATEGORY_UPDATE:
                    categories += self._apply_categories(batch, group, intake, now)
                else:
                    done += self._apply_skills(batch, group, brake, intake, gate, now)
            brake.note()
            intake.note()
            for _, action in done:
                if action.outcome in _COUNTED:
                    outcomes["skill", action.outcome.value] += 1
            outcomes["category", "updated"] += len(categories)
            batch.count(Counter(message.type for message in messages), outcomes, now)
        self._lines.tell(done, categories, brake, intake)

    def _in_force(self, batch: EventBatch, gate: Gate) -> Gate | None:
        """Return the gate in this transaction, which knows later decisions; None if it admits everything."""
        anything, newest = batch.gate_standing()
        if newest != self._newest_revocation:
            from atom_saas_sync.usecases.gate.loading import renewed

            gate, self._newest_revocation = renewed(gate, batch.gate), newest
        if anything and not gate.anything_stored:
            gate = replace(gate, anything_stored=True)
        return None if gate.idle else gate

    def take_unconfirmed(self, number: int) -> list[str]:
        """Remove and return at most this many skills that must be fetched from the marketplace."""
        ids = list(self.unconfirmed)[:number]
        for skill_id in ids:
            self.unconfirmed.pop(skill_id, None)
        return ids

    def log_suppressed(self, *, at_once: bool = False) -> None:
        """Log how many lines were suppressed."""
        self._lines.log_suppressed(at_once=at_once)

    def _apply_skills(
        self,
        batch: EventBatch,
        group: Sequence[Message],
        brake: Brake,
        intake: _Intake,
        gate: Gate | None,
        now: datetime,
    ) -> list[tuple[Message, Action]]:
        """Apply messages about different skills."""
        ids = [message.key for message in group]
        known, offers = batch.known(ids), {} if gate is None else batch.gate.offers(ids)
        news, rating_news = dict[str, MessageMark](), dict[str, MessageMark]()
        heard = self._heard(batch, group, known, offers, now)
        planned = self._plan(batch, heard, now) if gate is None else self._plan_through(gate, batch, heard, offers, now)
        done: list[tuple[Message, Action]] = []
        for message, announced, action in planned:
            if announced.deleted and action.does_something and not brake.admits():
                continue
            key = message.key
            if key not in known and key not in offers and not intake.admits_skill(announced, action):
                continue
            (rating_news if announced.about_figures else news)[key] = MessageMark(message.sent_at, announced.deleted)
            if announced.has_figures:
                rating_news[key] = MessageMark(message.sent_at)
            if action.does_something:
                done.append((message, action))
        batch.apply([action for _, action in done], now)
        batch.mark("skill", news, now)
        batch.mark("rating", rating_news, now)
        left = {message.key for message, _ in heard}.difference(message.key for message, _, _ in planned)
        told_of = left.union(message.key for message, _ in done)
        stored = [*(known[name].base for name in told_of if name in known), *map(offers.get, told_of)]
        batch.invalidate_pages({each.page for each in stored if each is not None and each.page is not None})
        return done

    def _heard(
        self,
        batch: EventBatch,
        group: Sequence[Message],
        known: Mapping[str, SkillState],
        offers: Mapping[str, Offer],
        now: datetime,
    ) -> list[tuple[Message, Announced]]:
        """Return the contents of these messages, without outdated ones."""
        ids = [message.key for message in group]
        marks, rating_marks = batch.marks("skill", ids), batch.marks("rating", ids)
        heard = []
        for message in group:
            key = message.key
            if message.only_if_held and key not in known:
                log.debug("a message was dropped: no new skill may have the id %s", short_id(key))
                continue
            offered = None if key not in offers else offers[key].text
            announced = announced_by(
                message, known.get(key), marks.get(key), rating_marks.get(key), now, offered=offered
            )
            if announced is not None:
                heard.append((message, announced))
        refused = batch.unstorable([announced.remote for _, announced in heard if announced.remote is not None])
        for skill_id, reason in refused.items():
            log.warning("skipped an invalid item: %s: %s", short_id(skill_id), reason)
        return [each for each in heard if each[0].key not in refused]

    def _plan(
        self, batch: EventBatch, heard: Sequence[tuple[Message, Announced]], now: datetime
    ) -> list[tuple[Message, Announced, Action]]:
        """Plan without a gate: everything is admitted."""
        planned = [(message, announced, plan_announced(announced, self.strategy, now)) for message, announced in heard]
        otherwise = batch.seen_otherwise(
            action.remote for _, _, action in planned if action.remote is not None and action.does_something
        )
        return [
            (message, announced, with_alarm(action, announced.sides, seen_otherwise=message.key in otherwise))
            for message, announced, action in planned
        ]

    def _plan_through(
        self,
        gate: Gate,
        batch: EventBatch,
        heard: Sequence[tuple[Message, Announced]],
        offers: Mapping[str, Offer],
        now: datetime,
    ) -> list[tuple[Message, Announced, Action]]:
        """Plan with the gate; skills that the marketplace must confirm first are added to `unconfirmed`."""
        from atom_saas_sync.core.plan.offered import must_be_confirmed, plan_offered, plan_withdrawn

        evidence = batch.gate.evidence([announced.remote for _, announced in heard if announced.remote is not None])
        planned = []
        for message, announced in heard:
            key, known = message.key, announced.sides.known
            action = Action(key, Outcome.UNCHANGED)
            is_known = known.base is not None or known.local_text is not None or key in offers
            if (announced.remote is not None or (announced.deleted and is_known)) and must_be_confirmed(
                gate, announced.sides, announced.remote, offers.get(key)
            ):
                if len(self.unconfirmed) < _MOST_UNCONFIRMED:  # the next poll finds the others
                    self.unconfirmed[key] = None
                continue
            if announced.deleted:
                action = plan_withdrawn(known, offers.get(key), key, self.strategy) or action
            elif announced.remote is not None:
                action = plan_offered(
                    known, announced.remote, evidence[key], gate, self.strategy, now, source=announced.source
                )
            planned.append((message, announced, action))
        return planned

    def _apply_categories(
        self, batch: EventBatch, group: Sequence[Message], intake: _Intake, now: datetime
    ) -> list[str]:
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
            if stored is None and not intake.admits(len(message.text.encode())):
                continue
            news[message.key] = MessageMark(message.sent_at)
            merged = {**(stored or {}), **message.fields}
            if merged != stored:
                batch.put_category(Category(message.key, canonical(merged).decode()), now)
                changed.append(message.key)
        batch.mark("category", news, now)
        return changed


def _groups(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Split the messages, in order, into groups that name nothing twice; each group is planned as a whole."""
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


class Brake:
    """Limits deletions by messages, which are not confirmed: MaxDelete applies to an hour as to a run."""

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
        """Store the counted deletions, in the transaction that carries them out."""
        if self._made:
            self._batch.note_deletions(self._made, self._listed, self._now)


class _Intake:
    """Limits what messages add, which no list has shown: without a limit, they could fill the disk between polls."""

    def __init__(self, batch: EventBatch, now: datetime) -> None:
        self._batch = batch
        self._now = now
        self._left: tuple[int, int] | None = None
        self._made = self._bytes = 0
        self.left_out = 0

    def admits_skill(self, announced: Announced, action: Action) -> bool:
        """Tell whether something about one more unknown skill may be stored, and count it.

        A deletion stores only the time of its message.
        """
        text = None if announced.remote is None or not action.does_something else announced.remote.text
        return self.admits(None if text is None else len(text.encode()))

    def admits(self, size: int | None) -> bool:
        """Tell whether `size` more bytes may be stored, and count them; None for a mark, which nobody misses."""
        if self._left is None:
            number, stored = self._batch.additions_lately(self._now)
            self._left = MOST_ADDED_AN_HOUR - number, MOST_BYTES_ADDED_AN_HOUR - stored
        number, room = self._left
        if number <= 0 or room < (size or 0):
            self.left_out += size is not None
            return False
        self._left = number - 1, room - (size or 0)
        self._made += 1
        self._bytes += size or 0
        return True

    def note(self) -> None:
        """Store what was counted, in the transaction that adds it."""
        if self._made:
            self._batch.note_additions(self._made, self._bytes, self._now)


class _Lines:
    """The log of changes by messages, rate-limited so that a flood cannot fill it."""

    def __init__(self) -> None:
        self._changes = LimitedLog(log, logging.INFO, "%d more changes by messages within a second")
        self._deletions = LimitedLog(log, logging.INFO, "%d more deletions by messages within a second")
        self._held_back = LimitedLog(log, logging.WARNING, "%d more times deletions were left to the next poll", most=1)
        self._left_out = LimitedLog(log, logging.WARNING, "%d more times additions were left to the next poll", most=1)
        self._republished = LimitedLog(log, logging.WARNING, "%d more skills were republished within a second")
        self._conflicts = LimitedLog(log, logging.INFO, "%d more conflicts by messages within a second")

    def tell(
        self, done: Sequence[tuple[Message, Action]], categories: Sequence[str], brake: Brake, intake: _Intake
    ) -> None:
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
        if intake.left_out:
            self._left_out.say(
                "left %d additions by messages to the next poll: "
                "at most %d skills and categories (%d MiB) within an hour",
                intake.left_out,
                MOST_ADDED_AN_HOUR,
                MOST_BYTES_ADDED_AN_HOUR // 2**20,
            )

    def log_suppressed(self, *, at_once: bool) -> None:
        waiting = self._held_back, self._left_out
        for each in (self._changes, self._deletions, *waiting, self._republished, self._conflicts):
            each.log_suppressed(at_once=at_once)
