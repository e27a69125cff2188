"""What `watch` needs from the store: applying messages, its stored state, the plan of its jobs."""

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
        """Apply actions, as in a catalogue run."""

    def marks(self, kind: str, keys: Iterable[str]) -> dict[str, MessageMark]:
        """Return the last applied messages about these keys; `kind` is skill, rating or category."""

    def mark(self, kind: str, marks: Mapping[str, MessageMark], now: datetime) -> None:
        """Record applied messages. A message without a time keeps the stored time."""

    def category(self, name: str) -> str | None:
        """Return the JSON text of a category."""

    def put_category(self, category: Category, now: datetime) -> None:
        """Add or replace a category for a day, and make the next run read the full list of categories."""

    def deletions_lately(self, now: datetime) -> tuple[int, int, int]:
        """Return the deletions by messages in the last hour, the number of listed skills, and its maximum in that hour.

        Skills count as listed if a page has them.
        """

    def note_deletions(self, number: int, listed: int, now: datetime) -> None:
        """Record deletions by messages, and the number of listed skills before them."""

    def additions_lately(self, now: datetime) -> tuple[int, int]:
        """Return the number and the bytes of what messages have added in the last hour."""

    def note_additions(self, number: int, size: int, now: datetime) -> None:
        """Record additions by messages, and their bytes."""

    def invalidate_pages(self, pages: Iterable[int]) -> None:
        """Delete the ETags of pages, so that the next run reads them in full: a message may be wrong."""

    def count(self, messages: Mapping[str, int], outcomes: Mapping[tuple[str, str], int], now: datetime) -> None:
        """Add messages by type and outcomes by (type, action) to the counters; store the last arrival time."""


class ConfirmBatch(StoredBatch, EventBatch, Protocol):
    """One transaction that applies the response about a skill that a message named."""


class StoredConfirmations(Protocol):
    """What confirming messages needs from the store."""

    def batch(self) -> AbstractContextManager[ConfirmBatch]:
        """Open the transaction for one response."""


class StoredEvents(Protocol):
    """What applying messages needs from the store."""

    def batch(self) -> AbstractContextManager[EventBatch]:
        """Open the transaction in which one batch of messages is applied."""


class StateStore(Protocol):
    """The stored state of `watch`, and what other programs write into it."""

    def begin(self, ws_url: str, now: datetime) -> ConnectionSwitch:
        """Record that `watch` has started in this process, not yet connected; this replaces its predecessor's state.

        Returns the administrators' switch, which is never written. Forgets deletions by messages more than a day old.
        """

    def note(self, state: ReportedConnection, now: datetime) -> ConnectionSwitch:
        """Store the state of the connection and the heartbeat, and add to the counters.

        Returns the previous content, read in the same transaction, so no write of another program is missed. If a time
        of the last connection or message is None, the stored time stays; a fallback to polling keeps the time at which
        it began.
        """

    def end(self, reason: str, now: datetime) -> None:
        """Record that `watch` was stopped on request."""

    def last_poll(self) -> datetime | None:
        """Return when the last sync of the skills began, whatever started it."""


class StoredSwitch(Protocol):
    """The switch that controls the connection of `watch`. Both methods write to the audit log."""

    def set(self, *, enabled: bool, actor: str, now: datetime) -> None:
        """Allow `watch` to connect, or make it only poll; applies from its next heartbeat, and after restarts."""

    def reset(self, *, actor: str, now: datetime) -> None:
        """Make a waiting `watch` connect at its next heartbeat; otherwise changes nothing."""


class StoreUpkeep(Protocol):
    """Maintenance for a process that writes continuously, over a connection of its own."""

    def tidy(self) -> None:
        """Do maintenance that is better done outside the writer thread than in the middle of a commit.

        Does not wait: what a reader still needs is left to the next call; that is not an error.
        """

    def pause(self, writing: float, *, of: float) -> float:
        """Return how many seconds to pause so that other programs can write; 0.0 if no pause is needed.

        `writing` of the last `of` seconds were spent writing. Thread-safe.
        """


class JobStore(Protocol):
    """The plan of the periodic jobs."""

    def plan(self, jobs: Sequence[ScheduledJob], now: datetime) -> None:
        """Replace the stored jobs by these; each has its `minutes`."""

    def last_started(self, kind: str) -> datetime | None:
        """Return when the last run of this kind began, whatever started it."""

    def stopped(self) -> bool:
        """Tell whether `jobs stop` is in force, or the Atom backend has switched scheduled syncs off."""
