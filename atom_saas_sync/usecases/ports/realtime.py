"""What `watch` needs: applying messages, telling of itself, the plan of its jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from atom_saas_sync.model import Action, Category, ConnectionSwitch, MessageMark, ReportedConnection, ScheduledJob
from atom_saas_sync.usecases.ports.catalogue import SkillBatch, StoredBatch


class EventBatch(SkillBatch, Protocol):
    """One transaction in which messages are applied."""

    def apply(self, actions: Sequence[Action], now: datetime) -> None:
        """Carry out actions, as in a catalogue run."""

    def marks(self, kind: str, keys: Iterable[str]) -> dict[str, MessageMark]:
        """Return the last applied messages about these things; `kind` is skill, rating or category."""

    def mark(self, kind: str, marks: Mapping[str, MessageMark], now: datetime) -> None:
        """Store that messages were applied. One without a time keeps the stored time."""

    def category(self, name: str) -> str | None:
        """Return the JSON text of a category."""

    def put_category(self, category: Category, now: datetime) -> None:
        """Add or replace a category for a day, and make the next run read the list of categories whole."""

    def deletions_lately(self, now: datetime) -> tuple[int, int, int]:
        """Return the deletions by messages within the last hour, the listed skills, and their maximum in that hour.

        Skills count as listed if a page has them.
        """

    def note_deletions(self, number: int, listed: int, now: datetime) -> None:
        """Add deletions by messages, and how many skills were listed before them."""

    def invalidate_pages(self, pages: Iterable[int]) -> None:
        """Forget the ETags of pages: the next run reads them whole, because a message may be wrong."""

    def count(self, messages: Mapping[str, int], outcomes: Mapping[tuple[str, str], int], now: datetime) -> None:
        """Add messages by type and outcomes by (type, action) to the counters, and store when the last one came."""


class ConfirmBatch(StoredBatch, EventBatch, Protocol):
    """One transaction in which an answer about a skill is taken, of which a message told."""


class StoredConfirmations(Protocol):
    """What confirming messages needs of the store."""

    def batch(self) -> AbstractContextManager[ConfirmBatch]:
        """Open the transaction for one answer."""


class StoredEvents(Protocol):
    """What applying messages needs of the store."""

    def batch(self) -> AbstractContextManager[EventBatch]:
        """Open the transaction in which one batch of messages is applied."""


class StateStore(Protocol):
    """The stored state of `watch`, and what it reads of others."""

    def begin(self, ws_url: str, now: datetime) -> ConnectionSwitch:
        """Store that `watch` has started in this process, not yet connected; what its predecessor did is over.

        Returns the switch of administrators, which is never written. Deletions by messages that are more than a day old
        are forgotten.
        """

    def note(self, state: ReportedConnection, now: datetime) -> ConnectionSwitch:
        """Store the state of the connection and the heartbeat, and add to the counters.

        Returns what stood there just before, in the same transaction: what other programs wrote there is never missed.
        A time of the last connection or message that is None keeps the stored one; a fallback to polling keeps the time
        at which it began.
        """

    def end(self, reason: str, now: datetime) -> None:
        """Store that `watch` was told to stop."""

    def last_poll(self) -> datetime | None:
        """Return when the last sync of the skills began, no matter what started it."""


class StoredSwitch(Protocol):
    """The switch by which people control the connection of `watch`. Both methods write the audit log."""

    def set(self, *, enabled: bool, actor: str, now: datetime) -> None:
        """Allow `watch` to connect, or make it poll only, from its next heartbeat on and after every start."""

    def reset(self, *, actor: str, now: datetime) -> None:
        """Let a `watch` that waits for its next attempt connect at its next heartbeat; else it changes nothing."""


class StoreUpkeep(Protocol):
    """Maintenance for a process that writes continuously, over a connection of its own."""

    def tidy(self) -> None:
        """Do what the engine does better beside the thread that writes than in the middle of a commit.

        It does not wait: what a reader still needs is left for the next call, which is not an error.
        """

    def pause(self, writing: float, *, of: float) -> float:
        """Return for how many seconds to pause so that other programs can write; 0.0 if they can.

        So many of the last so many seconds were spent writing. Any thread may ask.
        """


class JobStore(Protocol):
    """The plan of the periodic jobs."""

    def plan(self, jobs: Sequence[ScheduledJob], now: datetime) -> None:
        """Store these jobs in place of all others; each one has its `minutes`."""

    def last_started(self, kind: str) -> datetime | None:
        """Return when the last run of this kind began, no matter what started it."""

    def stopped(self) -> bool:
        """Tell whether `jobs stop` is in force, or the Atom backend has switched scheduled syncs off."""
