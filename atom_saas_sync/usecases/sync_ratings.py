"""Sync ratings in both directions: send pending ones, each exactly once; fetch newer ones.

Several threads send; only the thread that called `run` uses the store. Results are stored within a fraction of a
second. If the process dies before that, the next run sends the rating with the same idempotency key, and gets the same
response.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from atom_saas_sync.characters import counted, short_id
from atom_saas_sync.core.incoming.fields import id_problem
from atom_saas_sync.core.ratings import after_failure, next_try
from atom_saas_sync.errors import AtomSyncError, MarketplaceError, RateLimited
from atom_saas_sync.model import (
    Delivery,
    ErrorInfo,
    Rating,
    RatingCounts,
    RatingFailure,
    RatingReport,
    RatingsCheck,
    RunStatus,
    ShownRatings,
)
from atom_saas_sync.usecases.in_threads import Answer, Task, in_threads
from atom_saas_sync.usecases.rating_exchange import RatingExchange

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import Clock, Progress, RatingMarketplace, RequestsLeft, RunLog, StoredRatings


log = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 50
"""After this many ratings without a success, the marketplace counts as down: the rest keep their retries."""

RATINGS_REFUSED = 1

_LOADED = 500
_NOTABLE_SKEW = timedelta(minutes=1)


class RatingOptions(Struct, frozen=True):
    """The options of a run."""

    everything: bool = False
    retry_failed: bool = False
    dry_run: bool = False


class _RunState(Struct):
    """The progress of the run. `stopped` ended it; `refused` and `failed` concern single ratings."""

    stopped: AtomSyncError | None = None
    refused: ErrorInfo | None = None
    failed: ErrorInfo | None = None
    refusals: int = 0
    failures_in_a_row: int = 0
    failed_exit_code: int = 0
    deliveries: list[Delivery] = field(default_factory=list)
    checks: list[RatingsCheck] = field(default_factory=list)


class RatingSync:
    """One run. `check` raises Interrupted or DeadlineReached to end it cleanly; `sent_user` maps user names."""

    def __init__(
        self,
        *,
        marketplace: RatingMarketplace,
        ratings: StoredRatings,
        runs: RunLog,
        budget: RequestsLeft,
        clock: Clock,
        options: RatingOptions,
        check: Callable[[], None],
        sent_user: Callable[[str], str] = lambda user_id: user_id,
        workers: int,
        progress: Progress | None = None,
        on_start: Callable[[int | None], None] = lambda _run_id: None,
    ) -> None:
        self._marketplace = marketplace
        self._ratings = ratings
        self._runs = runs
        self._budget = budget
        self._clock = clock
        self._options = options
        self._check = check
        self._sent_user = sent_user
        self._exchange = RatingExchange(marketplace, clock=clock, sent_user=sent_user)
        self._workers = workers
        self._progress = progress
        self._on_start = on_start
        self._counts = RatingCounts()
        self._state = _RunState()
        self._noted_not_updatable = False

    def run(self, *, started_by: str) -> RatingReport:
        """Run, record it in the audit trail, and return the report. Only bugs and database errors are raised."""
        if self._options.dry_run:
            return self._dry_run()
        started = self._clock.monotonic()
        run_id = self._runs.begin("ratings", started_by=started_by, now=self._clock.now())
        self._on_start(run_id)
        try:
            self._send_all()
            self._check_all()
        except AtomSyncError as error:
            self._state.stopped = error
        self._tell_skew()
        report = replace(self._report(run_id), duration_seconds=self._clock.monotonic() - started)
        statistics = self._marketplace.statistics
        self._runs.finish(report, now=self._clock.now(), requests=statistics.drain())
        if self._counts.uploaded or self._counts.skipped or self._counts.looked_at or self._counts.updated_local:
            self._runs.reached_marketplace(self._clock.now(), statistics.clock_skew_seconds)
        return report

    def _dry_run(self) -> RatingReport:
        ids = self._ratings.due_ids(self._clock.now(), retry_failed=self._options.retry_failed)
        self._counts.pending = self._ratings.count_pending()
        return RatingReport(
            run_id=None,
            kind="ratings",
            status="success",
            exit_code=0,
            counts=self._counts,
            dry_run=True,
            plan=tuple(self._ratings.load(ids)),
        )

    # Sending

    def _send_all(self) -> None:
        if self._options.everything:
            self._ratings.reopen_all()
        elif not self._ratings.can_update(self._marketplace.resource_of_ratings()):
            self._exchange.cannot_update.set()
        ids = self._ratings.due_ids(self._clock.now(), retry_failed=self._options.retry_failed)
        log.info("%s to send", counted(len(ids), "rating"))

        def loaded() -> Iterator[Rating]:
            for start in range(0, len(ids), _LOADED):
                yield from self._ratings.load(ids[start : start + _LOADED])

        done = 0
        for finished in self._in_threads(loaded(), self._exchange.deliver):
            for rating, future in finished:
                self._note_delivery(rating, future)
            self._store()
            done += len(finished)
            if self._progress is not None:
                self._progress.advance(done, len(ids))
        if self._state.stopped is not None:
            raise self._state.stopped

    def _note_delivery(self, rating: Rating, future: Future[Delivery]) -> None:
        """Record the outcome of one rating; a failure that concerns the whole run ends it instead."""
        state = self._state
        result = self._result(future)
        if result is None:
            return
        delivery = self._failure(rating, result) if isinstance(result, MarketplaceError) else result
        state.deliveries.append(delivery)
        self._count(delivery)
        if delivery.failure is not None and delivery.failure.type != "invalid":
            state.failures_in_a_row += 1
        else:
            state.failures_in_a_row = 0
        if state.failures_in_a_row >= FAILURES_IN_A_ROW and state.failed is not None and state.stopped is None:
            state.stopped = _Outage(state.failed, state.failed_exit_code)

    def _failure(self, rating: Rating, error: MarketplaceError) -> Delivery:
        """Return the entry of a failed attempt for the failed list; a refused rating needs a manual retry."""
        info = ErrorInfo(error.kind, error.message, error.hint)
        if after_failure(error) == "refused":
            return self._refusal(rating, info)
        state = self._state
        state.failed = state.failed or info
        state.failed_exit_code = state.failed_exit_code or error.exit_code
        retries = 0 if rating.retry_count is None else min(rating.retry_count + 1, rating.max_retries)
        moment = next_try(retries, rating.max_retries, self._clock.now())
        log.info("could not send rating %s of %s: %s", rating.id, short_id(rating.skill_id), error.message)
        failure = RatingFailure(error.kind, error.message, retries, moment)
        return Delivery(rating, "failed", failure=failure)

    def _refusal(self, rating: Rating, info: ErrorInfo) -> Delivery:
        self._state.refused = self._state.refused or info
        self._state.refusals += 1
        log.info("rating %s of %s was refused: %s", rating.id, short_id(rating.skill_id), info.message)
        return Delivery(rating, "failed", failure=RatingFailure(info.type, info.message, rating.max_retries, None))

    # Fetching

    def _check_all(self) -> None:
        """Check the ratings of skills that have local ratings, using half of the available requests."""
        prefix = self._marketplace.resource_of_ratings()
        limit = self._budget.free(self._clock.now()) // 2
        skills = [each for each in self._ratings.least_recently_checked(prefix, limit) if id_problem(each[0]) is None]
        for finished in self._in_threads(iter(skills), self._read_ratings):
            for (skill_id, _), future in finished:
                self._note_check(prefix, skill_id, future)
            self._store()
        if self._state.stopped is not None and not isinstance(self._state.stopped, RateLimited):
            raise self._state.stopped
        self._state.stopped = None  # the rest is first next time

    def _read_ratings(self, skill: tuple[str, str | None]) -> ShownRatings:
        skill_id, etag = skill
        return self._marketplace.ratings_of(skill_id, None if self._options.everything else etag)

    def _note_check(self, prefix: str, skill_id: str, future: Future[ShownRatings]) -> None:
        state = self._state
        shown = self._result(future)
        if shown is None:
            return
        if isinstance(shown, MarketplaceError):
            log.warning("could not fetch the ratings of %s: %s", short_id(skill_id), shown.message)
            state.failed = state.failed or ErrorInfo(shown.kind, shown.message, shown.hint)
            state.failed_exit_code = state.failed_exit_code or shown.exit_code
            return
        self._counts.looked_at += 1
        state.checks.append(RatingsCheck(f"{prefix}{skill_id}", shown.etag))
        by_user = {rating.user_id: rating for rating in shown.ratings or ()}
        for ours in self._ratings.settled_of(skill_id) if by_user else ():
            theirs = by_user.get(self._sent_user(ours.user_id))
            if theirs is not None and (delivery := self._exchange.taken(ours, theirs)) is not None:
                state.deliveries.append(delivery)
                self._count(delivery)

    # Both directions

    def _in_threads(
        self, tasks: Iterator[Task], work: Callable[[Task], Answer]
    ) -> Iterator[list[tuple[Task, Future[Answer]]]]:
        return in_threads(tasks, work, threads=self._workers, stopped=self._is_over)

    def _result(self, future: Future[Answer]) -> Answer | MarketplaceError | None:
        """Return a response, or the failure of a single rating; None for a failure that ends the run."""
        try:
            return future.result()
        except AtomSyncError as error:
            if isinstance(error, MarketplaceError) and after_failure(error) != "stop":
                return error
            self._state.stopped = self._state.stopped or error
            return None

    def _is_over(self) -> bool:
        if self._state.stopped is not None:
            return True
        try:
            self._check()
        except AtomSyncError as error:
            self._state.stopped = error
            return True
        return False

    def _store(self) -> None:
        state, now = self._state, self._clock.now()
        deliveries, checks = state.deliveries, state.checks
        state.deliveries, state.checks = [], []
        if deliveries or checks:
            requests = self._marketplace.statistics.drain()
            self._ratings.record_deliveries(deliveries, checks=checks, now=now, requests=requests)
        if self._exchange.cannot_update.is_set() and not self._noted_not_updatable:
            self._noted_not_updatable = True
            self._ratings.note_not_updatable(self._marketplace.resource_of_ratings(), now)

    def _count(self, delivery: Delivery) -> None:
        rating, remote, counts = delivery.rating, delivery.remote, self._counts
        if delivery.end in {"sent", "updated"}:
            counts.uploaded += 1
        elif delivery.end == "kept":
            counts.skipped += 1
            log.warning("rating %s of %s: %s", rating.id, short_id(rating.skill_id), delivery.note)
        elif delivery.end == "failed":
            counts.failed += 1
        elif remote is not None:
            counts.updated_local += 1
            log.info(
                "rating %s of %s: the marketplace's newer one (%d stars) replaced ours (%d stars); "
                "`atom-sync ratings restore %s` puts it back",
                rating.id,
                short_id(rating.skill_id),
                remote.stars,
                rating.stars,
                rating.id,
            )
        if delivery.failure is not None and delivery.failure.type == "invalid":
            self._state.refused = self._state.refused or ErrorInfo("api_error", delivery.failure.message)
            self._state.refusals += 1
            log.info(
                "rating %s of %s can't be sent: %s", rating.id, short_id(rating.skill_id), delivery.failure.message
            )

    def _tell_skew(self) -> None:
        skew = self._exchange.skew()
        if abs(skew) >= _NOTABLE_SKEW:
            log.warning(
                "the marketplace's clock is %d s %s ours; comparing ratings takes that into account",
                abs(skew).total_seconds(),
                "ahead of" if skew > timedelta() else "behind",
            )

    def _report(self, run_id: int) -> RatingReport:
        state, counts = self._state, self._counts
        counts.pending = self._ratings.count_pending()
        counts.requests = self._marketplace.statistics.requests
        reasons: list[str] = []
        error: ErrorInfo | None = None
        exit_code = 0
        if state.refused is not None:
            some = "a rating was" if state.refusals == 1 else f"{state.refusals} ratings were"
            message = f"{some} refused; the first: {state.refused.message}"
            error = ErrorInfo(state.refused.type, message, "see `atom-sync ratings failed`")
            reasons, exit_code = ["ratings_refused"], RATINGS_REFUSED
        if state.failed is not None:
            error = error or state.failed
            reasons.append(state.failed.type)
            exit_code = exit_code or state.failed_exit_code
        if state.stopped is not None:
            stop = state.stopped
            error = ErrorInfo(stop.kind, stop.message, stop.hint)
            reasons = [stop.kind, *(reason for reason in reasons if reason != stop.kind)]
            exit_code = stop.exit_code
        status: RunStatus = "success"
        if error is not None:
            did_something = counts.uploaded or counts.updated_local or counts.skipped or counts.looked_at
            status = "partial" if did_something else "failed"
        return RatingReport(
            run_id=run_id,
            kind="ratings",
            status=status,
            exit_code=exit_code,
            counts=counts,
            reasons=tuple(reasons),
            error=error,
        )


class _Outage(AtomSyncError):
    """Many ratings in a row have failed: the cause is the marketplace, not the ratings."""

    def __init__(self, first: ErrorInfo, exit_code: int) -> None:
        super().__init__(
            f"{FAILURES_IN_A_ROW} ratings in a row could not be sent; the first: {first.message}",
            hint=first.hint or "the rest stays pending; the next run continues from there",
        )
        self.kind = first.type
        self.exit_code = exit_code
