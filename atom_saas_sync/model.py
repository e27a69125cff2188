"""Frozen values that the rooms hand to each other.

Structs, not dataclasses: those write and compile their methods when they are imported, which was a seventh of the
time of `status`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from functools import cached_property
from typing import Any, Literal

from msgspec import Raw, Struct, field

TIME_TO_LIVE = timedelta(hours=24)
# Figures beyond these are unknown: the best average of ratings, and the largest count that JSON holds everywhere.
BEST_RATING = 5
LARGEST_COUNT = 2**53
"""How long an entry lives after the marketplace last confirmed it (data-model.md, rule 6)."""

Strategy = Literal["remote_wins", "local_wins", "merge", "manual"]
Severity = Literal["CRITICAL", "HIGH", "MEDIUM", "LOW"]
ConflictType = Literal["VERSION_MISMATCH", "CONTENT_MISMATCH", "DEPENDENCY_CONFLICT", "DELETION_CONFLICT", "OTHER"]
RunStatus = Literal["success", "partial", "failed", "skipped", "locked"]

Sort = Literal["rating", "name", "updated"]

STRATEGIES: tuple[Strategy, ...] = ("remote_wins", "local_wins", "merge", "manual")
SEVERITIES: tuple[Severity, ...] = ("CRITICAL", "HIGH", "MEDIUM", "LOW")
CONFLICT_TYPES: tuple[ConflictType, ...] = (
    "VERSION_MISMATCH",
    "CONTENT_MISMATCH",
    "DEPENDENCY_CONFLICT",
    "DELETION_CONFLICT",
    "OTHER",
)

METRIC_ERRORS = (
    "timeout",
    "connection",
    "api_error",
    "auth",
    "rate_limited",
    "bad_response",
    "database",
    "locked",
    "interrupted",
    "internal",
)
"""The values of the label `error` (metrics.md)."""

ITEM_ACTIONS = ("added", "updated", "unchanged", "deleted", "invalid", "failed")
"""The values of the label `action` of `atom_saas_sync_items_total`."""

MESSAGE_TYPES = ("skill_update", "category_update", "rating_update", "skill_delete", "ping", "pong", "unknown")
"""The values of the label `type` of `atom_saas_websocket_messages_total`."""

DURATION_BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds in seconds of `atom_saas_sync_duration_seconds` (metrics.md)."""

RUN_TYPES = ("skill", "rating")
"""The values of the label `type` of the metrics of runs."""

DURATION = "atom_saas_sync_duration_seconds"
DURATION_BOUNDS = (*map(str, DURATION_BUCKETS), "+Inf")
"""The values of the label `le` of its buckets."""

_READ_CODES = ("200", "304", "401", "403", "404", "429", "500", "502", "503", "504", "timeout", "connection")
_WRITE_CODES = ("200", "201", "400", "401", "403", "404", "409", "429", "500", "503", "timeout", "connection")


class Counter(Struct, frozen=True):
    """A stored counter: what it counts, its labels, and the values that they take.

    `known` holds groups of values, one tuple for each label: all combinations within a group exist from the start, at
    0. A label in `open_labels` takes other values too. Without `help` it is not a metric by itself.
    """

    help: str
    labels: tuple[str, ...] = ()
    known: tuple[tuple[tuple[str, ...], ...], ...] = ((),)
    open_labels: tuple[str, ...] = ()

    def values_in(self, stored: str) -> tuple[str, ...] | None:
        """Return the values of the labels in the JSON text of a row, None if it is not an object.

        Another version may have written it: a label that is missing there is empty, one that is unknown here is left
        out, so that the rows which differ only in it add up.
        """
        try:
            labels = json.loads(stored)
        except (TypeError, ValueError, RecursionError):
            return None
        if not isinstance(labels, dict):
            return None
        # Half a surrogate pair could not be printed.
        return tuple(str(labels.get(name, "")).encode(errors="replace").decode() for name in self.labels)


COUNTERS: Mapping[str, Counter] = {
    f"{DURATION}_bucket": Counter("", ("type", "le"), ((RUN_TYPES, DURATION_BOUNDS),)),
    f"{DURATION}_sum": Counter("", ("type",), ((RUN_TYPES,),)),
    "atom_saas_sync_success_total": Counter("Successful syncs", ("type",), ((RUN_TYPES,),)),
    "atom_saas_sync_errors_total": Counter("Sync errors by kind", ("type", "error"), ((RUN_TYPES, METRIC_ERRORS),)),
    "atom_saas_sync_items_total": Counter(
        "Items that syncs looked at, by what became of them",
        ("type", "action"),
        ((("skill", "category", "rating"), ITEM_ACTIONS),),
    ),
    "atom_saas_cache_requests_total": Counter(
        "Reads of single skills from the cache", ("result",), ((("hit", "miss", "stale"),),)
    ),
    "atom_saas_websocket_reconnects_total": Counter("Attempts to connect the WebSocket again"),
    "atom_saas_websocket_messages_total": Counter("WebSocket messages received", ("type",), ((MESSAGE_TYPES,),)),
    "atom_saas_websocket_messages_invalid_total": Counter("WebSocket messages that were malformed and dropped"),
    "atom_saas_websocket_fallback_seconds_total": Counter("Seconds spent in fallback to polling"),
    "atom_saas_conflicts_detected_total": Counter("Conflicts detected", ("type",), ((CONFLICT_TYPES,),)),
    "atom_saas_conflicts_resolved_total": Counter(
        "Conflicts resolved, by strategy; converged: the two sides became equal by themselves",
        ("strategy",),
        (((*STRATEGIES, "converged"),),),
    ),
    "atom_saas_api_requests_total": Counter(
        "Requests sent to the marketplace, by HTTP code or kind of failure",
        ("endpoint", "code"),
        ((("skills", "skill", "categories"), _READ_CODES), (("ratings",), _WRITE_CODES)),
        open_labels=("code",),
    ),
    "republished": Counter(""),
    "runs": Counter("", ("result",), ((("success", "failed"),),)),
}
"""All stored counters: the store writes no others (store/counters.py), and metrics.py renders them."""


class SkillVersion(Struct, frozen=True):
    """One version of a skill, from the marketplace or from the cache.

    `text` is the JSON text whole, as it came; `fields` is what it says. The digests are SHA-256 (data-model.md,
    rule 11): `wire_digest` over the text, `content_digest` over everything but the volatile fields, `exec_digest`
    over what can be executed. `dropped` are the volatile fields that came malformed: the text is without them.
    `memory` is how many bytes it takes, estimated from above; 0 where that is not asked for.
    """

    skill_id: str
    text: str
    fields: Mapping[str, Any]
    wire_digest: bytes
    content_digest: bytes
    exec_digest: bytes
    dropped: tuple[str, ...] = ()
    memory: int = 0


class InvalidItem(Struct, frozen=True):
    """An unusable item of a response: its id as far as it is known, and why.

    A `damaged` one is not UTF-8, probably because it was damaged on its way. `if_held` is what it is if the database
    holds a skill of that id already.
    """

    skill_id: str | None
    reason: str
    damaged: bool = False
    if_held: SkillVersion | None = None


class Category(Struct, frozen=True):
    """One category, whole, as canonical JSON text: two texts differ only if their content does."""

    name: str
    text: str


class SkillPage(Struct, frozen=True):
    """One page of the list: each item as the bytes that came, and `total`, None if the server does not say.

    The items are views of the body, which takes megabytes and stays as long as one of them does.
    """

    items: tuple[Raw, ...]
    total: int | None


class ListedPage(Struct, frozen=True):
    """The answer for a page of the list; `page` is None if it was not modified."""

    page: SkillPage | None
    etag: str | None


class PageRecord(Struct, frozen=True):
    """What is stored of one page of the list; `etag` is None if it must be fetched whole."""

    etag: str | None
    items: int
    total: int | None


class Base(Struct, frozen=True):
    """What the marketplace last sent of a skill.

    `version` is as `version_key` makes it. `text` is None as long as the cached text is the base itself. `deleted` says
    that the marketplace has confirmed the deletion while a locally edited copy waits for a person.
    """

    wire_digest: bytes
    content_digest: bytes
    exec_digest: bytes
    text: str | None
    page: int | None
    deleted: bool
    version: str


class WaitingConflict(Struct, frozen=True):
    """An unresolved conflict of a skill; `remote_text` is None if the marketplace deleted it.

    `held` says that a person has undone its resolution: it waits for a person, whatever the strategy is.
    """

    id: int
    remote_text: str | None
    held: bool = False


class Known(Struct, frozen=True, dict=True):
    """All that is stored of one skill: the cached row, its base, a conflict that waits. Any part can be missing."""

    skill_id: str
    local_text: str | None = None
    local_updated_at: str | None = None
    base: Base | None = None
    waiting: WaitingConflict | None = None

    @property
    def base_text(self) -> str | None:
        """Return the text of the base version, wherever it is kept."""
        if self.base is None:
            return None
        return self.local_text if self.base.text is None else self.base.text

    @cached_property
    def base_is_as_it_came(self) -> bool:
        """Whether the base text has the digest of the bytes that came; it is hashed once."""
        from hashlib import sha256  # most commands hash nothing

        return self.base is not None and sha256(self.base_bytes).digest() == self.base.wire_digest

    @cached_property
    def base_bytes(self) -> bytes:
        """The base text as UTF-8, empty if there is none."""
        return (self.base_text or "").encode(errors="replace")


class CachedSkill(Struct, frozen=True):
    """A skill as readers see it: `source` is marketplace, edited or local; `confirmed_at` is None if it is local."""

    skill_id: str
    text: str
    source: str
    confirmed_at: str | None
    stale: bool


class Wanted(Struct, frozen=True):
    """Which skills are asked for: each given condition must hold."""

    category: str | None = None
    tag: str | None = None
    modified: bool = False

    @property
    def everything(self) -> bool:
        """Tell whether this filter matches everything."""
        return self.category is None and self.tag is None and not self.modified


class Conflict(Struct, frozen=True):
    """Local and remote both differ from the base, and from each other (data-model.md, rules 1 and 2).

    `local_text` is None only where a waiting conflict closes because another program deleted the row.
    """

    type: ConflictType
    severity: Severity
    local_text: str | None
    remote_text: str | None
    base_text: str | None


class Resolution(Struct, frozen=True):
    """How a conflict ended: the strategy's name and the text that the cache holds now, None if it is deleted.

    The strategy `converged` is no one's choice: the two sides became equal. `replaces_edit` tells that a sync, not a
    person, has put the marketplace's version in the place of what was written here.
    """

    strategy: str
    result_text: str | None
    replaces_edit: bool = False


class ConflictEntry(Struct, frozen=True):
    """A line for the conflict log: new, or the new state of the one that waits under `waiting_id`."""

    conflict: Conflict
    resolution: Resolution | None
    waiting_id: int | None = None


class LoggedConflict(Struct, frozen=True):
    """A conflict as the log has it, with its three versions, and what the cache holds now."""

    id: int
    skill_id: str
    type: ConflictType
    severity: Severity
    local_text: str | None
    remote_text: str | None
    base_text: str | None
    resolved: bool
    strategy: str | None
    result_text: str | None
    resolved_at: str | None
    resolved_by: str | None
    undone_at: str | None
    undone_by: str | None
    created_at: str
    updated_at: str
    cached_text: str | None
    cached_at: str | None


class ConflictFilter(Struct, frozen=True):
    """Which conflicts are asked for: waiting ones or resolved ones; each other condition that is given must hold."""

    severity: str | None = None
    type: str | None = None
    skill_id: str | None = None
    resolved: bool = False


class SentVersion(Struct, frozen=True):
    """A version that the marketplace sent, or one written here (`origin` is `local`) that was replaced or deleted.

    The marketplace's newest has no number: it is the base, and has not ended. `ended_by` is `superseded`, `deleted` or
    `deleted_here` (by another program).
    """

    number: int | None
    version: str | None
    text: str
    ended_at: str | None
    ended_by: str | None
    content_digest: bytes
    exec_digest: bytes
    origin: str = "marketplace"


class CacheStatistics(Struct, frozen=True):
    """How many entries there are, how old they are, and how they are used.

    `stale` entries were not confirmed for 24 hours; `expired` ones are what `cache purge` would remove if the
    marketplace can be reached. `reads` counts hit, miss and stale.
    """

    skills: int
    edited: int
    only_here: int
    stale: int
    expired: int
    oldest_confirmed_at: str | None
    newest_confirmed_at: str | None
    hits_of_entries: int
    categories: int
    expired_categories: int
    reads: Mapping[str, int]
    size_bytes: int
    marketplace_reached_at: str | None


class PurgePlan(Struct, frozen=True):
    """What a purge removes; `local` of the skills were edited here or existed only here, `protected` are spared.

    `local_ids` are the former's.
    """

    skills: tuple[str, ...]
    categories: tuple[str, ...]
    local: int
    protected: int
    local_ids: tuple[str, ...] = ()


class Outcome(Enum):
    """What happened to a skill in the cache, as counted in a run's report."""

    ADDED = "added"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DELETED = "deleted"


class CacheChange(Enum):
    """What is done to the row of skill_cache."""

    KEEP = "keep"
    WRITE = "write"
    REMOVE = "remove"


class BaseChange(Enum):
    """What is done to the base: nothing, take the remote version, forget it, note or unnote that it is deleted.

    RESTORE puts a former base back when a resolution is undone.
    """

    KEEP = "keep"
    ADVANCE = "advance"
    RESTORE = "restore"
    DROP = "drop"
    MARK_DELETED = "mark_deleted"
    UNMARK_DELETED = "unmark_deleted"


class Action(Struct, frozen=True):
    """What a plan says of one skill. A plan is data: `--dry-run` prints it, the store carries it out.

    `changed_at` is when the local side was last changed, where the row's own time must go on saying so because only
    volatile fields are refreshed. `passed_over` is a version that the marketplace sent and replaced while a conflict
    waited: it never became the base, and belongs to the history. `before` is the decoded skill that `text` replaces, if
    the planner had it.
    """

    skill_id: str
    outcome: Outcome
    cache: CacheChange = CacheChange.KEEP
    text: str | None = None
    base: BaseChange = BaseChange.KEEP
    remote: SkillVersion | None = None
    conflict: ConflictEntry | None = None
    republished: bool = False
    changed_at: str | None = None
    passed_over: SkillVersion | None = None
    before: Mapping[str, Any] | None = None


class ErrorInfo(Struct, frozen=True):
    """An error as reports show it; `type` is one of the metric's `error` values, or `config`."""

    type: str
    message: str
    hint: str | None = None


class CatalogueCounts(Struct):
    """The figures of one catalogue run (cli.md, "JSON of sync skills")."""

    skills_synced: int = 0
    categories_synced: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    invalid: int = 0
    refused: int = 0
    conflicts_detected: int = 0
    conflicts_resolved: int = 0
    conflicts_manual: int = 0
    edits_replaced: int = 0
    republished: int = 0
    tampered: int = 0
    categories_changed: int = 0
    requests: int = 0
    not_modified: int = 0
    bytes_received: int = 0


class WalkProof(Struct, frozen=True):
    """A run's proof of completeness (data-model.md, rule 10)."""

    walks: int = 0
    pages_read: int = 0
    distinct_ids: int = 0
    total_before: int | None = None
    total_after: int | None = None
    confirmations: int = 0


class RunReport(Struct, frozen=True):
    """What one run did."""

    run_id: int | None
    kind: str
    status: RunStatus
    exit_code: int
    counts: CatalogueCounts
    proof: WalkProof = field(default_factory=WalkProof)
    complete: bool = False
    dry_run: bool = False
    duration_seconds: float = 0.0
    reasons: tuple[str, ...] = ()
    error: ErrorInfo | None = None
    plan: tuple[Action, ...] = ()
    replaced_edits: tuple[int, ...] = ()
    """The conflicts in which a strategy has replaced what was written here."""


class Rating(Struct, frozen=True):
    """A user's rating as it is stored here.

    `version` is the random name of this version of it, None if it came from the marketplace. `base_digest` is of what
    the marketplace had when it and we last agreed. `retry_count` is None unless the rating is on the failed list.
    """

    id: str
    skill_id: str
    user_id: str
    stars: int
    comment: str | None
    updated_at: str
    version: str | None = None
    remote_rating_id: str | None = None
    base_digest: bytes | None = None
    retry_count: int | None = None
    max_retries: int = 5


class OutgoingRating(Struct, frozen=True):
    """A rating as it goes over the wire: `user_id` may be a keyed hash."""

    skill_id: str
    user_id: str
    stars: int
    comment: str | None


class RemoteRating(Struct, frozen=True):
    """A rating as the marketplace shows it; each of the last three can be missing."""

    stars: int
    comment: str | None
    rating_id: str | None
    user_id: str | None
    rated_at: datetime | None


class RatingReceipt(Struct, frozen=True):
    """The marketplace has stored a rating; the skill's average and number of ratings, where it says them."""

    rating_id: str
    average: float | None
    count: int | None


class RatingConflict(Struct, frozen=True):
    """The marketplace has a rating of this user already, and may show it."""

    stored: RemoteRating | None


class ShownRatings(Struct, frozen=True):
    """The answer for the ratings of a skill; `ratings` is None if they were not modified."""

    ratings: tuple[RemoteRating, ...] | None
    etag: str | None


class RatingFailure(Struct, frozen=True):
    """Why a rating could not be sent; `next_retry_at` is None if it waits for a person."""

    type: str
    message: str
    retry_count: int
    next_retry_at: str | None


RatingEnd = Literal["sent", "updated", "taken", "kept", "failed"]


class Delivery(Struct, frozen=True):
    """What became of one version of a rating.

    `sent`: the marketplace has it; `digest` is of what it has now. `updated`: likewise, in place of an older one.
    `taken`: the marketplace's own is newer, and is `remote`, with its time in our clock in `taken_at`. `kept`: ours is
    newer, but the marketplace can't update; `note` says so. `failed`: `failure` says why.
    """

    rating: Rating
    end: RatingEnd
    digest: bytes | None = None
    receipt: RatingReceipt | None = None
    remote: RemoteRating | None = None
    taken_at: str | None = None
    note: str | None = None
    failure: RatingFailure | None = None


class Look(Struct, frozen=True):
    """The ratings of a skill were looked at; `resource` names them, `etag` is for the next look."""

    resource: str
    etag: str | None


class RatingCounts(Struct):
    """The figures of one run for ratings (cli.md, "JSON of sync skills", last paragraph)."""

    uploaded: int = 0
    updated_local: int = 0
    failed: int = 0
    skipped: int = 0
    pending: int = 0
    looked_at: int = 0
    requests: int = 0


class RatingReport(Struct, frozen=True):
    """What one run for ratings did."""

    run_id: int | None
    status: RunStatus
    exit_code: int
    counts: RatingCounts
    kind: str = "ratings"
    dry_run: bool = False
    duration_seconds: float = 0.0
    reasons: tuple[str, ...] = ()
    error: ErrorInfo | None = None
    plan: tuple[Rating, ...] = ()


class ListedRating(Struct, frozen=True):
    """A rating with all that people may want to know of it; `state` is pending, sent or failed.

    `replaced` is a JSON object: what was written here until a newer rating of the marketplace took its place.
    """

    id: str
    skill_id: str
    user_id: str
    stars: int
    comment: str | None
    state: str
    created_at: str
    updated_at: str
    synced_at: str | None
    remote_rating_id: str | None
    note: str | None
    replaced: str | None
    error_type: str | None
    error_message: str | None
    failed_at: str | None
    last_retry_at: str | None
    next_retry_at: str | None
    retry_count: int | None
    max_retries: int | None


class PastRun(Struct, frozen=True):
    """One run of the audit trail; `status` is `running` while it is at work.

    `refused` deletions were too many, `invalid` items could not be stored.
    """

    id: int
    kind: str
    started_at: str
    finished_at: str | None
    duration_seconds: float | None
    status: str
    started_by: str
    reasons: tuple[str, ...]
    error_type: str | None
    error_message: str | None
    refused: int = 0
    invalid: int = 0


class SyncState(Struct, frozen=True):
    """The polling sync as the Atom backend reads it: `idle`, `syncing` or `error`; counts of finished runs."""

    status: str = "idle"
    last_sync_at: str | None = None
    last_successful_sync_at: str | None = None
    total_syncs: int = 0
    successful_syncs: int = 0
    failed_syncs: int = 0
    last_error: str | None = None


class WebSocketState(Struct, frozen=True):
    """What `watch` wrote last; whether that still holds says its heartbeat, and `alive`: its lock is held."""

    connected: bool = False
    alive: bool = False
    last_connected_at: str | None = None
    last_message_at: str | None = None
    disconnect_reason: str | None = None
    reconnect_attempts: int = 0
    fallback_to_polling: bool = False
    fallback_started_at: str | None = None
    next_attempt_at: str | None = None
    enabled: bool = True
    ws_url: str | None = None
    failures: int = 0
    started_at: str | None = None
    stopped_at: str | None = None
    heartbeat_at: str | None = None


class MessageMark(Struct, frozen=True):
    """The last WebSocket message about something that was applied: when it was sent, and whether it deleted it."""

    sent_at: datetime | None
    deleted: bool = False


class LinkSwitch(Struct, frozen=True):
    """What other programs may write into the state of the connection: `enabled`, and zeros to have it tried at once."""

    enabled: bool = True
    attempts: int = 0
    fallback: bool = False


class LinkState(Struct, frozen=True):
    """The connection as `watch` reports it, and what it counted since its last report.

    `reconnects`, `invalid`, `internal_errors`, `messages` by type and `fallback_seconds` are added to the counters.
    """

    connected: bool
    ws_url: str
    connected_at: datetime | None = None
    reason: str | None = None
    attempts: int = 0
    failures: int = 0
    fallback: bool = False
    next_attempt_at: datetime | None = None
    last_message_at: datetime | None = None
    messages: Mapping[str, int] = field(default_factory=dict)
    invalid: int = 0
    internal_errors: int = 0
    reconnects: int = 0
    fallback_seconds: float = 0.0


class ScheduledJob(Struct, frozen=True):
    """A periodic job and when it runs next; `minutes` lie between two runs, None where a calendar says when."""

    id: str
    name: str
    minutes: int | None
    next_run_time: str | None


class Status(Struct, frozen=True):
    """All that status, health and metrics tell, read in one transaction at `read_at`.

    `origin` is who made the database, `backend` (the Atom backend) or `atom-sync`.
    `revision` is None if there is no database, or none of ours in it; then everything else is empty.
    `migrations_pending` is true as long as some are missing, too. `runs` are the last ones, newest first.
    """

    read_at: str
    database_path: str
    marketplace: str | None = None
    database_bytes: int = 0
    revision: str | None = None
    origin: str = "atom-sync"
    migrations_pending: bool = True
    sync: SyncState = field(default_factory=SyncState)
    websocket: WebSocketState = field(default_factory=WebSocketState)
    running: frozenset[str] = frozenset()
    runs: tuple[PastRun, ...] = ()
    last_runs: Mapping[str, PastRun] = field(default_factory=dict)
    last_rating_success_at: str | None = None
    skills: int = 0
    categories: int = 0
    expired_skills: int = 0
    expired_categories: int = 0
    modified_skills: int = 0
    republished: int = 0
    tampered: int = 0
    ratings_pending: int = 0
    ratings_synced: int = 0
    ratings_failed: int = 0
    conflicts_open: Mapping[str, int] = field(default_factory=dict)
    conflicts_resolved: int = 0
    edits_replaced: int = 0
    edits_deleted: int = 0
    deleted_edit: str | None = None
    emergency_stop: bool = False
    auto_sync_off: bool = False
    """Whether the Atom backend has switched scheduled syncs off (`sync_state.auto_sync_enabled`)."""

    jobs: tuple[ScheduledJob, ...] = ()
    marketplace_reached_at: str | None = None
    clock_skew_seconds: float | None = None
    rate_limit_remaining: int = 0
    counters: Mapping[tuple[str, str], float] = field(default_factory=dict)


class Trouble(Struct, frozen=True):
    """Something that is wrong: a stable word for programs, words for people, and what to do."""

    code: str
    message: str
    hint: str


class Health(Struct, frozen=True):
    """The verdict: unhealthy with its reasons, or healthy; `notices` are worth a look but wake nobody."""

    reasons: tuple[Trouble, ...] = ()
    notices: tuple[Trouble, ...] = ()

    @property
    def healthy(self) -> bool:
        """Tell whether there is no reason."""
        return not self.reasons


class BudgetLimit(Struct, frozen=True):
    """A limit on requests, and how much of it is used; `set_by` is a variable, or the marketplace that declared it."""

    requests: int
    window_seconds: int
    used: int
    free: int
    set_by: str


class BudgetState(Struct, frozen=True):
    """What is left of the request budget, and who limits it."""

    free: int
    next_free_in_seconds: float
    limits: tuple[BudgetLimit, ...]
    declared_until: str | None
    paused_until: str | None
