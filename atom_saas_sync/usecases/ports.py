"""The ports: what the use cases and commands need of the store, the marketplace and the clock, and no more.

This is the contract that every storage engine has to keep. Each verb is tested in tests/store/contract/.
Unless a verb says otherwise:

- *Threading.* An object of the store, and all that it hands out, is used by the thread that made it.
- *Transactions.* A verb that reads sees one consistent state. A verb that writes is one transaction: all of it is
  committed, or nothing. A batch is one transaction of several verbs: it commits at the end of the block, and nothing is
  stored if the block ends with an exception, Ctrl-C included. Its verbs see what it has written so far. While a batch
  is open, no other verb may be called on the same connection: that raises RuntimeError.
- *Locks.* Reading neither waits for writers nor keeps them waiting. Writing waits for other writers as long as the
  store was opened to wait. A verb that finds nothing to change takes no lock if it says so.
- *Errors.* DatabaseBusy if another program holds the lock for longer; DatabaseError for every other failure of the
  database or the disk. Both mean that nothing was written. There is never an empty result in place of an error.
- *Absent.* Of one thing that is not stored, None is returned; of several, the absent ones are left out. Changing
  something absent does nothing.
- *Order.* Lists are in the order that the verb names; if it names none, in any order.
- *Times.* `now` is an aware datetime, and the store's clock. It asks its own only where a rating is changed and the
  time of its last change is left as it was: a change must have a time of its own.
- *Source.* A cached skill is the marketplace's own (`marketplace`), the marketplace's with a change made here
  (`edited`), or exists only here (`local`). Another program may write to the tables: what it writes is an edit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Protocol

from atom_saas_sync.core.run_log import LoggedRun
from atom_saas_sync.model import (
    Action,
    CachedSkill,
    CacheStatistics,
    Category,
    ConflictFilter,
    Delivery,
    InvalidItem,
    Known,
    LinkState,
    LinkSwitch,
    ListedPage,
    ListedRating,
    LoggedConflict,
    Look,
    MessageMark,
    OutgoingRating,
    PageRecord,
    PurgePlan,
    Rating,
    RatingConflict,
    RatingReceipt,
    RatingReport,
    RunReport,
    ScheduledJob,
    SentVersion,
    ShownRatings,
    SkillVersion,
    Sort,
    Wanted,
)


class Progress(Protocol):
    """Is told how far the run is."""

    def advance(self, done: int, total: int | None) -> None:
        """`done` skills of `total` have been looked at."""


# The catalogue


class KnownSkills(Protocol):
    """What is stored of skills."""

    def known(self, skill_ids: Iterable[str]) -> dict[str, Known]:
        """Return what is stored of these skills: the cached row, the base, an open conflict.

        Skills without any of the three are absent. Text that another program has stored in another encoding is
        returned as UTF-8, with U+FFFD for what cannot be decoded; a batch that writes stores it that way.
        """


class SkillBatch(KnownSkills, Protocol):
    """One transaction in which skills are read, planned and changed."""

    def seen_otherwise(self, versions: Iterable[SkillVersion]) -> set[str]:
        """Return the skills whose version the marketplace has sent before with different executable content.

        The base does not count. Whether the history still has the text of the earlier one does not matter.
        """


class StoredBatch(SkillBatch, Protocol):
    """One transaction of a catalogue run."""

    def told_since(self, moment: datetime, *, now: datetime) -> set[str]:
        """Return the skills that messages have changed between `moment` and `now`.

        Later entries come from a clock that has since been set back.
        """

    def digests_on_page(self, page: int) -> dict[bytes, str]:
        """Return what the catalogue's verb of this name does, as this transaction sees it."""

    def apply(self, actions: Sequence[Action], now: datetime, *, page: int | None = None) -> None:
        """Carry out actions in their order: cached rows, bases, history and conflict log.

        `known` must have been called for their skills in this batch. A version of the marketplace that ends here goes
        into the history. `page` is where the list showed the skills; None leaves their page as it is.
        """

    def confirm_page(self, page: int, now: datetime) -> None:
        """Note that the marketplace has confirmed every skill on a page as unchanged."""

    def record_page(
        self, page: int, ids: AbstractSet[str], *, list_key: str, etag: str | None, total: int | None, now: datetime
    ) -> None:
        """Note that a page has been read and holds exactly these skills; called last.

        Skills that were on the page and are not in `ids` are on no page, and keep their time of confirmation. If one of
        `ids` has no base, the page is stored without its ETag: the next run must read it whole.
        """

    def count_changes(self, actions: Iterable[Action]) -> None:
        """Add what these actions did to the counters of items; unchanged ones are not counted."""

    def count_requests(self, requests: dict[tuple[str, str], int]) -> None:
        """Add to the counters of requests by (endpoint, code)."""


class StoredCatalogue(KnownSkills, Protocol):
    """The catalogue as a run sees it: skills, pages and categories."""

    def page_records(self, list_key: str) -> Mapping[int, PageRecord]:
        """Return what is stored of each page of a list; `list_key` names marketplace, dialect and page size."""

    def forget_other_lists(self, list_key: str) -> None:
        """Forget the pages of all other lists, and take every skill off its page.

        Takes no lock if there are none.
        """

    def digests_on_page(self, page: int) -> dict[bytes, str]:
        """Return the wire digests of the skills on a page, each with its skill.

        Skills with an open conflict are excluded: their remote version is not the base, so seeing the base again is a
        change. So are deleted skills, and those that must be read again (`distrust`).
        """

    def ids_on_page(self, page: int) -> list[str]:
        """Return the skills that were last seen on a page."""

    def batch(self, *, write: bool = True, fetched: bool = True) -> AbstractContextManager[StoredBatch]:
        """Open a transaction. Without `write` it is a snapshot that takes no lock; what it writes is not kept.

        With a key, versions are signed if the marketplace has just sent them (`fetched`), or if they had been signed.
        """

    def tampered(self, *, everything: bool) -> list[str]:
        """Return the skills that count as the marketplace's although their text does not have its digest.

        Without `everything`, only those are checked that were written since the last `note_tampered`, edited or
        deleted here, or found then.
        With a key, a skill with a forged signature is tampered with, too.
        """

    def unsigned(self) -> list[str]:
        """Return the skills that are not signed with our key. Without a key the list is empty."""

    def respelled(self) -> list[str]:
        """Return the skills whose text is not byte for byte what the marketplace sent."""

    def distrust(self, skill_ids: Sequence[str]) -> None:
        """Make the next run read these skills and their pages again, even if the marketplace sends the same bytes."""

    def note_tampered(self, found: Sequence[str], now: datetime) -> int:
        """Store which of these skills are still tampered with, and that the check was made; return how many."""

    def forget_pages_from(self, page: int) -> None:
        """Forget this page and those behind it, and take their skills off. Takes no lock if there are none."""

    def unlisted_ids(self, listed: AbstractSet[str], *, recorded: bool) -> list[str]:
        """Return, sorted, the marketplace's skills that are not in `listed` and not known as deleted.

        A skill that exists only here counts as long as it has an open conflict with one of the marketplace. With
        `recorded`, every page of the list has just been recorded, and only skills on no page are considered.
        """

    def marketplace_skills(self) -> int:
        """Return how many skills have a base."""

    def approved_deletions(self) -> int:
        """Return how many deletions `db rebind` has approved; 0 after the next successful run."""

    def touched_ids(self) -> list[str]:
        """Return, sorted, the marketplace's skills whose row was edited or removed here."""

    def waiting_ids(self) -> list[str]:
        """Return the skills with an open conflict."""

    def newest_replaced_edits(self, number: int) -> list[int]:
        """Return at most so many conflicts in which a strategy has replaced a local edit, the last ones first.

        Those that a person has looked at are left out.
        """

    def refresh_expiry(self, now: datetime) -> None:
        """Extend the life of skills that the marketplace has confirmed within the last hour.

        Only once half of their life is over, or if a clock that has since been set back gave them more than a day.
        Takes no lock if there are none.
        """

    def validator(self, resource: str) -> str | None:
        """Return the ETag of a resource."""

    def apply_categories(
        self, categories: Sequence[Category] | None, *, whole: bool, resource: str, etag: str | None, now: datetime
    ) -> int:
        """Store the marketplace's categories and the list's ETag; return how many changed.

        None means unchanged: all live for another day. With `whole` those that are not listed are removed, but an
        empty list removes none: it does not prove that all are gone.
        """

    def changed_categories(self, categories: Sequence[Category], *, whole: bool) -> int:
        """Return how many categories `apply_categories` would change."""

    def count_categories(self) -> int:
        """Return how many categories are cached."""


# What `watch` needs


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

    def distrust_pages(self, pages: Iterable[int]) -> None:
        """Forget the ETags of pages: the next run reads them whole, because a message may be wrong."""

    def count(self, messages: Mapping[str, int], outcomes: Mapping[tuple[str, str], int], now: datetime) -> None:
        """Add messages by type and outcomes by (type, action) to the counters, and store when the last one came."""


class StoredEvents(Protocol):
    """What applying messages needs of the store."""

    def batch(self) -> AbstractContextManager[EventBatch]:
        """Open the transaction in which one batch of messages is applied."""


class StateStore(Protocol):
    """What `watch` tells of itself, and needs to know of others."""

    def begin(self, ws_url: str, now: datetime) -> LinkSwitch:
        """Store that `watch` has started in this process, not yet connected; what its predecessor did is over.

        Returns the switch of administrators, which is never written. Deletions by messages that are more than a day old
        are forgotten.
        """

    def note(self, state: LinkState, now: datetime) -> LinkSwitch:
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
        """Let `watch` connect, or only poll, from its next heartbeat on, and after every start."""

    def reset(self, *, actor: str, now: datetime) -> None:
        """Let a `watch` that waits for its next attempt connect at its next heartbeat; else it changes nothing."""


class LogStore(Protocol):
    """The database's write-ahead log, over a connection of its own."""

    def checkpoint(self) -> None:
        """Move what no reader needs from the log to the database file.

        It does not wait: pages that a reader still needs are left for the next call, which is not an error.
        """


class JobStore(Protocol):
    """The plan of the periodic jobs."""

    def plan(self, jobs: Sequence[ScheduledJob], now: datetime) -> None:
        """Store these jobs in place of all others; each one has its `minutes`."""

    def last_started(self, kind: str) -> datetime | None:
        """Return when the last run of this kind began, no matter what started it."""

    def stopped(self) -> bool:
        """Tell whether `jobs stop` is in force, or the Atom backend has switched scheduled syncs off."""


# What people do


class PersonsBatch(KnownSkills, Protocol):
    """One transaction in which a person's wishes are carried out."""

    def apply(self, actions: Sequence[Action], now: datetime, *, actor: str) -> None:
        """Carry out actions, as in a catalogue run; `actor` is who resolves the conflicts among them."""

    def note(self, actor: str, action: str, subject: str, now: datetime, **details: object) -> None:
        """Write what a person did into the audit log."""

    def keep_local(self, versions: Sequence[SkillVersion], now: datetime, *, ended_by: str) -> None:
        """Keep in the history texts that were written here and end now, `superseded` or `deleted`.

        They are counted apart from the marketplace's versions: neither pushes the other out.
        """


class EditableCatalogue(KnownSkills, Protocol):
    """What editing needs of the store."""

    def batch(self) -> AbstractContextManager[PersonsBatch]:
        """Open the transaction of one edit."""


class ConflictDesk(PersonsBatch, Protocol):
    """One transaction in which a person resolves conflicts. It confirms no skill: the marketplace was not asked."""

    def conflict(self, conflict_id: int) -> LoggedConflict | None:
        """Return one conflict with its versions, and what the cache holds now."""

    def open_ids(self, wanted: ConflictFilter) -> Sequence[int]:
        """Return, sorted, the ids of the open conflicts that match; `resolved` of the filter is ignored."""

    def mark_undone(self, conflict_id: int, actor: str, now: datetime) -> None:
        """Store who has undone a resolution."""


class StoredConflicts(Protocol):
    """What resolving conflicts needs of the store."""

    def conflict(self, conflict_id: int) -> LoggedConflict | None:
        """Return one conflict with its versions, and what the cache holds now."""

    def deciding(self) -> AbstractContextManager[ConflictDesk]:
        """Open the one transaction in which decisions are made and carried out: all of them, or none."""


class ListedConflicts(StoredConflicts, Protocol):
    """The conflict log as it is shown."""

    def list_conflicts(
        self, wanted: ConflictFilter, *, limit: int | None = None, offset: int = 0
    ) -> list[LoggedConflict]:
        """Return the conflicts that match, without their texts, after skipping `offset` of them.

        Open ones: the most severe first, then the oldest. Resolved ones: the last resolved first.
        """

    def note_seen(self, ids: Sequence[int]) -> None:
        """Note that a person has looked at these conflicts; nothing is written if that was noted before."""

    def count(self, wanted: ConflictFilter) -> int:
        """Return how many conflicts match."""


class StoredReading(Protocol):
    """The cache as readers see it at a moment, which decides what is stale.

    A skill that was edited here and deleted by the marketplace is not shown.
    """

    def list_skills(self, wanted: Wanted, *, sort: Sort = "name", limit: int | None = None) -> list[CachedSkill]:
        """Return the skills that match, sorted; by rating and time, the largest first and those without last."""

    def count(self, wanted: Wanted) -> int:
        """Return how many skills match."""

    def search(
        self, text: str, wanted: Wanted, *, sort: Sort | None = None, limit: int | None = None
    ) -> tuple[list[CachedSkill], int]:
        """Return the skills with every word of `text`, the best first unless `sort`, and how many there are.

        The last word also matches as a prefix. Words without letters or digits are ignored; if the text has no other
        words, names are searched for them. No character has a special meaning, and an empty text finds nothing.
        """

    def skill(self, skill_id: str) -> CachedSkill | None:
        """Return one skill."""

    def count_read(self, skills: Sequence[CachedSkill]) -> None:
        """Count one read that found these skills, or a miss if there are none.

        Neither waits nor fails: if another program is writing, or the database is read-only, nothing is counted.
        """


class StoredHistory(Protocol):
    """The versions of a skill that the marketplace sent."""

    def versions(self, skill_id: str) -> list[SentVersion]:
        """Return the versions that are kept, the newest first: the base, then those that ended.

        There is no base if the skill is deleted, or was never the marketplace's.
        """


class StoredLifetime(Protocol):
    """What purging the cache needs of the store."""

    def marketplace_reached_at(self) -> datetime | None:
        """Return when the marketplace last gave a valid answer."""

    def choose(self, now: datetime, *, older_than: timedelta | None, everything: bool, local: bool) -> PurgePlan:
        """Return what a purge would remove: expired entries, those confirmed before `older_than`, or all.

        Skills with local edits, and those that exist only here, are spared unless `local`.
        """

    def purge(
        self, now: datetime, *, older_than: timedelta | None, everything: bool, local: Collection[str], actor: str
    ) -> PurgePlan:
        """Choose again and remove it, with bases and open conflicts; the next run fetches it again.

        `local` are the skills whose local edits may go. The audit log keeps their texts.
        """

    def prune_logs(self, now: datetime) -> None:
        """Remove what was kept long enough. Open conflicts stay.

        That is conflicts resolved more than 90 days ago, an audit log of more than a year, and copies that migrations
        made more than 30 days ago.
        """


class CacheFigures(Protocol):
    """How old the cache is, and how it is used."""

    def statistics(self, now: datetime) -> CacheStatistics:
        """Return the figures of `cache stats`; times of an empty cache are None."""


# Runs


class RunLog(Protocol):
    """The audit trail as a run writes it. The caller holds the lock of the run's kind."""

    def begin(self, kind: str, *, started_by: str, now: datetime) -> int:
        """Store that a run of this process has begun; return its id.

        A run of the same kind that never ended was killed: it becomes a failed one. Runs of more than 90 days ago are
        forgotten.
        """

    def finish(self, report: RunReport | RatingReport, *, now: datetime, requests: dict[tuple[str, str], int]) -> None:
        """Store how a run ended, with its counts and error, and add to the counters.

        The state that the Atom backend reads follows runs of the skills alone. A successful one ends the approval of
        deletions.
        """

    def bind(self, now: datetime) -> None:
        """Store which marketplace the database belongs to. One that is stored already stays."""

    def reached_marketplace(self, now: datetime, skew_seconds: float | None) -> None:
        """Store that the marketplace has answered, and, if known, how far its clock is ahead of ours."""


class StoredRuns(RunLog, Protocol):
    """The audit trail as commands see it, and the emergency stop."""

    def count_locked_out(self, kind: str) -> None:
        """Count a run that found another one of its kind running."""

    def marketplace(self) -> str | None:
        """Return which marketplace the database belongs to; None until it has answered for the first time."""

    def scheduling_stopped(self) -> bool:
        """Tell whether the emergency stop is on."""

    def auto_sync_is_off(self) -> bool:
        """Tell whether the Atom backend has switched scheduled syncs off in the database."""

    def stop_scheduling(self, *, actor: str, now: datetime) -> None:
        """Turn the emergency stop on, and write that into the audit log."""

    def resume_scheduling(self, *, actor: str, now: datetime) -> None:
        """Turn the emergency stop off, and write that into the audit log."""

    def last_scheduled_success(self, kind: str) -> datetime | None:
        """Return when the last successful run of a kind that a timer started began."""

    def run_of_process(self, pid: int, *, since: datetime) -> int | None:
        """Return the last run that a process has begun since a moment."""


# The marketplace


class StoredRunHistory(Protocol):
    """The audit trail as it is shown."""

    def list_runs(self, kind: str | None, *, limit: int | None = None) -> list[LoggedRun]:
        """Return the runs of a kind, or of all, the newest first; kind `watch` means the runs that `watch` started.

        A run whose process was killed has failed, even if nothing has noted it yet.
        """

    def count(self, kind: str | None) -> int:
        """Return how many runs `list_runs` has without a limit."""

    def run(self, run_id: int) -> LoggedRun | None:
        """Return one run, None if there is none."""


class Statistics(Protocol):
    """What went over the wire."""

    requests: int
    not_modified: int
    bytes_received: int
    clock_skew_seconds: float | None

    def drain(self) -> dict[tuple[str, str], int]:
        """Return the requests by (endpoint, code) since the last call."""


class Marketplace(Protocol):
    """What a catalogue run needs of the marketplace. Its methods raise MarketplaceError."""

    @property
    def statistics(self) -> Statistics:
        """Return what went over the wire so far."""

    def list_key(self, page_size: int) -> str:
        """Return the name of the list of skills in pages of this size: two lists of one name have the same pages."""

    def resource_of_categories(self) -> str:
        """Return the name under which the ETag of the categories is stored."""

    def list_skills(self, page: int, page_size: int, etag: str | None = None, *, intact: bool = False) -> ListedPage:
        """Return a page of the list; without content if it still has this ETag.

        With `intact` a page that is not valid UTF-8, and so probably damaged on its way, is fetched again.
        """

    def get_skill(self, skill_id: str) -> SkillVersion | InvalidItem | None:
        """Return one skill, None if the marketplace says that there is none."""

    def list_categories(
        self, etag: str | None = None
    ) -> tuple[tuple[list[Category], list[InvalidItem]] | None, str | None]:
        """Return the categories and what is invalid among them, None if they still have this ETag; and the new ETag."""


# Ratings


class StoredRatings(Protocol):
    """What sending ratings needs of the store.

    A rating is pending until it has been uploaded or has failed for good. Any change, by any program, makes it pending
    again, as a new version.
    """

    def due_ids(self, now: datetime, *, retry_failed: bool = False) -> list[str]:
        """Return the ratings to send, the oldest change first: pending ones, and failed ones whose time has come.

        With `retry_failed` all failed ones, including those that wait for a person.
        """

    def load(self, ids: Sequence[str]) -> list[Rating]:
        """Return these ratings in the order of `ids`; settled ones are absent."""

    def reopen_all(self) -> None:
        """Make every rating pending, also failed ones; each keeps the name of its version."""

    def count_pending(self) -> int:
        """Return how many ratings are pending; failed ones are not."""

    def settle(
        self,
        deliveries: Sequence[Delivery],
        *,
        looks: Sequence[Look] = (),
        now: datetime,
        requests: dict[tuple[str, str], int],
    ) -> None:
        """Store what became of ratings, which skills' ratings were read, and add to the counters.

        Only the version that was sent is settled: a rating that changed meanwhile stays pending. The skill's average
        and count become those of the receipt.
        """

    def can_update(self, marketplace: str) -> bool:
        """Tell whether nothing is stored against a marketplace's ability to update ratings."""

    def note_not_updatable(self, marketplace: str, now: datetime) -> None:
        """Store that a marketplace cannot update ratings; `reopen_all` forgets it."""

    def oldest_looks(self, prefix: str, limit: int) -> list[tuple[str, str | None]]:
        """Return skills with settled ratings and their ETags, those first whose ratings were not read for longest.

        `prefix` and the skill's id make the name under which the ETag is stored.
        """

    def settled_of(self, skill_id: str) -> list[Rating]:
        """Return the settled ratings of a skill."""


class PersonsRatings(Protocol):
    """The ratings as people see and change them."""

    def is_cached(self, skill_id: str) -> bool:
        """Tell whether readers can see a skill."""

    def add(self, skill_id: str, user_id: str, stars: int, comment: str | None, *, now: datetime) -> ListedRating:
        """Store or change a user's rating of a skill, and return it.

        Without a comment the stored one stays; an empty one removes it. The same again changes nothing.
        """

    def listed(
        self,
        *,
        state: str | None = None,
        skill_id: str | None = None,
        user_id: str | None = None,
        limit: int | None = None,
    ) -> tuple[list[ListedRating], int]:
        """Return the ratings that match, the last changed first, and how many there are without `limit`."""

    def find(self, rating_id: str) -> ListedRating | None:
        """Return one rating."""

    def retry(self, ids: Sequence[str], *, actor: str, now: datetime) -> list[str]:
        """Take ratings off the failed list, each under the name of its version; return, sorted, those that were on it.

        The audit log says so.
        """

    def delete(self, ids: Sequence[str], *, actor: str, now: datetime) -> list[str]:
        """Delete, in one transaction, those of these ratings that were never sent, and return their ids.

        The caller holds the lock of the ratings: one that is being sent now would be sent and forgotten.
        """

    def restore(self, rating_id: str, *, actor: str, now: datetime) -> ListedRating | None:
        """Bring back what a rating of the marketplace replaced, as a new version; None if nothing is kept.

        The audit log says so.
        """


class RatingMarketplace(Protocol):
    """What sending ratings needs of the marketplace. Threads share it; its methods raise MarketplaceError."""

    @property
    def statistics(self) -> Statistics:
        """Return what went over the wire so far."""

    def send_rating(self, rating: OutgoingRating, key: str) -> RatingReceipt | RatingConflict:
        """Create a rating. The marketplace creates one at most for each idempotency key."""

    def update_rating(self, rating: OutgoingRating, rating_id: str, key: str) -> RatingReceipt | None:
        """Change a rating; None if the marketplace has no route for that."""

    def resource_of_ratings(self) -> str:
        """Return what, with a skill's id behind it, names the ETag of its ratings."""

    def ratings_of(self, skill_id: str, etag: str | None = None) -> ShownRatings:
        """Return the ratings of a skill; without content if they still have this ETag."""


# Requests


class RequestsLeft(Protocol):
    """What reading ratings back needs of the request budget."""

    def free(self, now: datetime) -> int:
        """Return how many requests are free now."""


class StoredBudget(RequestsLeft, Protocol):
    """The request budget that all processes share. Threads may share the object: they take turns."""

    def take(self, now: datetime) -> float:
        """Take one request and return 0.0, or take none and return the seconds until one is free.

        Several may be taken at a time for the current second; what is not used is given back.
        """

    def learn(self, now: datetime, *, limit: int, remaining: int | None, reset_seconds: float | None) -> None:
        """Store the limit that the marketplace declares; it holds, below ours, until its window is over.

        A reset more than a minute away means a window of an hour, otherwise of a minute. `remaining=0` with a reset
        within a minute means: no request at all until then.
        """

    def close(self) -> None:
        """Give back what is left, and close; waits for a thread that is using it.

        Never fails because the database is locked: what could not be given back counts as used.
        """


class Clock(Protocol):
    """Time, handed in."""

    def now(self) -> datetime:
        """Return the time as an aware datetime; it may be set back."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
