"""Pull the catalogue: one polling sync of categories and skills."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from atom_saas_sync.characters import counted, short_id
from atom_saas_sync.core.deletions import MaxDelete
from atom_saas_sync.core.listing import with_fresh_etags
from atom_saas_sync.errors import (
    ApiError,
    AtomSyncError,
    BadResponse,
    DatabaseError,
    MarketplaceError,
    RateLimited,
    TokenRefused,
    TooLarge,
)
from atom_saas_sync.model import (
    Action,
    PageRecord,
    RunReport,
    Strategy,
    WalkProof,
)
from atom_saas_sync.usecases.delete_unlisted import Deletions
from atom_saas_sync.usecases.disk_room import DiskRoom
from atom_saas_sync.usecases.gate.planning import Planner
from atom_saas_sync.usecases.pull_categories import pull_categories
from atom_saas_sync.usecases.run_tally import LOGGED, NEEDS_PERSON, PAGES_MISSING, RunTally
from atom_saas_sync.usecases.walk import PageFailed, PageSource, Walk
from atom_saas_sync.usecases.write_pages import PageWriter

if TYPE_CHECKING:
    from atom_saas_sync.usecases.gate.run import RunGate
    from atom_saas_sync.usecases.ports import Clock, Marketplace, Progress, RunLog, StoredBatch, StoredCatalogue

log = logging.getLogger(__name__)

_SMALLER = 4
"""Pages too large for the memory are asked for again with so many times fewer skills."""


class PullOptions(Struct, frozen=True):
    """The options of a run, from a user or a timer.

    `adopting` is the user in whose name the first sync admits everything.

    `confirm_deletions` is off only in a dry run: then every skill that is not listed counts as deleted, without a
    request. The run stops before less than `min_free_disk_gb` is free, if it writes much.
    """

    strategy: Strategy
    page_size: int
    skills: bool = True
    categories: bool = True
    dry_run: bool = False
    confirm_deletions: bool = True
    force: bool = False
    max_delete: MaxDelete = field(default_factory=MaxDelete)
    fail_on_conflict: bool = False
    fail_on_held: bool = False
    adopting: str | None = None
    min_free_disk_gb: float = 0.0


class CataloguePull:
    """One run. `check` is called between transactions and raises Interrupted or DeadlineReached to end it cleanly.

    At most so many `connections` are used at a time.
    """

    def __init__(
        self,
        *,
        marketplace: Marketplace,
        catalogue: StoredCatalogue,
        runs: RunLog,
        clock: Clock,
        options: PullOptions,
        check: Callable[[], None],
        connections: int = 1,
        gate: RunGate | None = None,
        progress: Progress | None = None,
        on_start: Callable[[int | None], None] = lambda _run_id: None,
    ) -> None:
        self._marketplace = marketplace
        self._catalogue = catalogue
        self._runs = runs
        self._clock = clock
        self._options = options
        self._check = check
        self._progress = progress
        self._on_start = on_start
        self._tally = RunTally(dry_run=options.dry_run)
        self._connections = connections
        self._gate = gate
        self._planner = Planner(gate, options.strategy, marketplace.statistics)

    def run(self, *, started_by: str) -> RunReport:
        """Run, record it in the audit trail, and return the report. Only bugs and database errors are raised."""
        kind = "skills" if self._options.skills else "categories"
        started = self._clock.monotonic()
        now = self._clock.now()
        run_id = None if self._options.dry_run else self._runs.begin(kind, started_by=started_by, now=now)
        self._on_start(run_id)
        tally = self._tally
        complete = False
        log.info("sync of %s started", "skills" if self._options.skills else "categories")
        try:
            if self._options.categories:
                try:
                    pull_categories(
                        self._marketplace,
                        self._catalogue,
                        self._runs,
                        self._clock,
                        tally,
                        force=self._options.force,
                        dry_run=self._options.dry_run,
                    )
                except (TokenRefused, RateLimited):
                    raise
                except MarketplaceError as error:
                    self._note_failed_categories(error)
            if self._options.skills:
                complete = self._pull_skills()
        except AtomSyncError as error:
            tally.fail(error)
        if self._gate is not None and not isinstance(tally.error, DatabaseError):
            self._gate.note_waiting(tally, fail=self._options.fail_on_held)
        if tally.counts.invalid > LOGGED:
            log.warning("skipped %d more invalid items", tally.counts.invalid - LOGGED)
        statistics, seconds = self._marketplace.statistics, self._clock.monotonic() - started
        report = tally.report(kind, run_id, statistics, complete=complete, seconds=seconds)
        report = replace(report, replaced_edits=self._replaced_edits())
        if run_id is not None:
            self._runs.finish(report, now=self._clock.now(), requests=statistics.drain())
            # Only valid responses count: a proxy's error page must not let the cache expire (rule 6).
            if tally.listed or tally.counts.categories_synced or statistics.not_modified:
                self._runs.reached_marketplace(self._clock.now(), statistics.clock_skew_seconds)
        return report

    def _replaced_edits(self) -> tuple[int, ...]:
        """Return the conflicts in which this run replaced a local edit."""
        number = self._tally.counts.edits_replaced
        if not number or self._options.dry_run or isinstance(self._tally.error, DatabaseError):
            return ()
        return tuple(self._catalogue.newest_replaced_edits(number))

    def _note_failed_categories(self, error: MarketplaceError) -> None:
        """Record that the categories failed; the skills are synced anyway."""
        if self._options.skills and isinstance(error, ApiError | BadResponse):
            leave_out = "`atom-sync sync skills --no-categories` leaves them out"
            error.hint = f"{error.hint}; {leave_out}" if error.hint else leave_out
        self._tally.fail(error)

    # Skills

    def _pull_skills(self) -> bool:
        """Walk the list, twice if it changed meanwhile; then delete what is gone. Return whether it was complete."""
        if self._gate is not None:
            self._tally.took(self._gate.begin(self._clock.now()))
        self._tally.waiting = set(self._catalogue.waiting_ids())
        tampered = self._look_for_tampered_rows()
        walk = self._walk_in_suitable_pages()
        self._look_after_touched_rows(walk.seen, tampered)
        self._look_again_at_waiting_conflicts(walk.seen)
        if walk.complete:
            if not self._options.dry_run:
                self._catalogue.forget_pages_from(walk.listing.pages_read + 1)
            Deletions(
                self._marketplace,
                self._catalogue,
                self._clock,
                self._tally,
                self._planner,
                max_delete=self._options.max_delete,
                dry_run=self._options.dry_run,
                confirm=self._options.confirm_deletions,
                connections=self._connections,
                check=self._check,
            ).delete_unlisted(walk.listed)
        if not self._options.dry_run:
            self._finish_with_gate()
            self._catalogue.refresh_expiry(self._clock.now())
            left = self._catalogue.note_tampered(tampered, self._clock.now())
            if left < len(tampered):
                log.warning("repaired %d tampered skills", len(tampered) - left)
        self._tally.counts.conflicts_manual = len(self._tally.waiting)
        if self._tally.waiting and self._options.fail_on_conflict:
            self._tally.note("conflicts_open", NEEDS_PERSON)
        return walk.complete

    def _finish_with_gate(self) -> None:
        """Judge waiting versions again, and admit what is due, even if every page was unchanged."""
        if self._gate is not None:
            skew = self._marketplace.statistics.clock_skew_seconds
            done = self._gate.finish(self._clock.now(), skew, served=self._catalogue.marketplace_skills)
            self._tally.took(done)

    def _look_for_tampered_rows(self) -> list[str]:
        """Return the skills whose text counts as the marketplace's but is not what it sent.

        A forced run looks at all rows. It reads these skills again, and those that are not signed with the key or whose
        digests may be forged.
        """
        tampered = self._catalogue.tampered(everything=self._options.force)
        self._tally.counts.tampered = len(tampered)
        for skill_id in tampered[:LOGGED]:
            log.error("%s was tampered with: its text is not what the marketplace sent", short_id(skill_id))
        if len(tampered) > LOGGED:
            log.error("%d more skills were tampered with", len(tampered) - LOGGED)
        if self._options.force and not self._options.dry_run:
            self._catalogue.distrust([*tampered, *self._catalogue.unsigned(), *self._catalogue.respelled()])
        return tampered

    def _walk_in_suitable_pages(self) -> Walk:
        """Walk the list, in smaller pages if one is too large for our memory."""
        sizes = [self._options.page_size]
        while sizes[-1] > 1:
            sizes.append(max(1, sizes[-1] // _SMALLER))
        records: Mapping[int, PageRecord] | None = None
        if not self._options.force:  # with the size that worked last time
            stored = ((size, self._catalogue.page_records(self._marketplace.list_key(size))) for size in sizes)
            first, records = next((each for each in stored if each[1]), (sizes[0], None))
            sizes = sizes[sizes.index(first) :]
        for page_size in sizes:
            try:
                return self._walk_twice(page_size, records)
            except TooLarge as error:
                if page_size == 1:
                    raise
                log.warning("pages of %d skills are too large for the memory: %s", page_size, error)
                records = None
        raise AssertionError

    def _walk_twice(self, page_size: int, stored: Mapping[int, PageRecord] | None) -> Walk:
        """Walk the list, twice if it changed meanwhile. `stored` are its stored pages, if they have been read."""
        list_key = self._marketplace.list_key(page_size)
        if not self._options.dry_run:
            self._catalogue.forget_other_lists(list_key)
        unconditional = self._options.force
        for _ in range(2):
            records: Mapping[int, PageRecord] = {}
            if not unconditional:
                stored = self._catalogue.page_records(list_key) if stored is None else stored
                records = with_fresh_etags(stored, self._clock.now())
                stored = None
            walk = self._walk(PageSource(self._marketplace, self._clock, records, page_size))
            if walk.complete or walk.listing.failed:
                return walk
            # With equal totals, the list is stable, but our records of its pages, from an earlier change, lack skills.
            unconditional = walk.listing.first_total == walk.listing.total
            totals = ["unknown" if each is None else each for each in walk.evidence[:2]]
            log.warning(
                "the list changed while it was read (total %s, then %s; %d distinct skills)", *totals, walk.distinct
            )
        self._tally.note("incomplete", PAGES_MISSING)
        return walk

    def _walk(self, source: PageSource) -> Walk:
        walk = Walk(
            source,
            records=source.records,
            page_size=source.page_size,
            connections=self._connections,
            check=self._check,
        )
        writer = PageWriter(
            self._marketplace,
            self._catalogue,
            self._runs,
            self._clock,
            self._tally,
            self._planner,
            source=source,
            walk=walk,
            write=not self._options.dry_run,
            room=DiskRoom(self._catalogue.free_disk_gb, self._options.min_free_disk_gb),
        )
        with walk.pages() as pages, closing(writer):  # keep what was read, however the walk ends
            for page in pages:
                self._check()
                if isinstance(page, PageFailed):
                    self._tally.miss_page(page.number, page.error)
                    continue
                writer.take(page)
                if self._progress is not None:
                    self._progress.advance(len(walk.seen), walk.listing.total)
        self._tally.listed = len(walk.seen)
        log.info("read the list: %s on %s", counted(walk.distinct, "skill"), counted(walk.listing.pages_read, "page"))
        self._tally.proof = WalkProof(
            walks=self._tally.proof.walks + 1,
            pages_read=walk.listing.pages_read,
            distinct_ids=walk.distinct,
            total_before=walk.listing.first_total,
            total_after=walk.listing.total,
            confirmations=self._tally.proof.confirmations,
        )
        return walk

    def _look_after_touched_rows(self, listed: Collection[str], tampered: Collection[str]) -> None:
        """Restore rows that another program deleted, and volatile fields that it changed, even behind a 304.

        Not for skills that are not listed: `Deletions` finds out whether they were deleted.
        """
        touched = [name for name in self._catalogue.modified_ids() if name in listed and name not in tampered]
        if not touched:
            return
        with self._catalogue.batch(write=not self._options.dry_run) as batch:
            self._apply(batch, self._planner.touched(batch, touched, self._clock.now()))

    def _look_again_at_waiting_conflicts(self, listed: Collection[str]) -> None:
        """Close conflicts that edits have resolved, and apply a changed strategy, even behind a 304.

        Not for skills that are not listed: `Deletions` finds out whether they were deleted.
        """
        if not self._tally.waiting:
            return
        with self._catalogue.batch(write=not self._options.dry_run) as batch:
            self._apply(batch, self._planner.waiting(batch, self._tally.waiting, self._clock.now(), listed))

    def _apply(self, batch: StoredBatch, plans: Iterable[Action | None]) -> None:
        actions = [action for action in plans if action is not None and action.does_something]
        if not self._options.dry_run:
            batch.apply(actions, self._clock.now())
            batch.count_changes(actions)
        self._tally.took(actions)
