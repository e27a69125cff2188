"""The overall state: status, health, jobs and the request budget."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct, field

from atom_saas_sync.model.runs import PastRun


class SyncState(Struct, frozen=True):
    """The polling sync as the Atom backend reads it: `idle`, `syncing` or `error`; counts of finished runs."""

    status: str = "idle"
    last_sync_at: datetime | None = None
    last_successful_sync_at: datetime | None = None
    total_syncs: int = 0
    successful_syncs: int = 0
    failed_syncs: int = 0
    last_error: str | None = None


class WebSocketState(Struct, frozen=True):
    """The last state stored by `watch`; it is current only with a recent heartbeat and `alive` (its lock is held)."""

    connected: bool = False
    alive: bool = False
    last_connected_at: datetime | None = None
    last_message_at: datetime | None = None
    disconnect_reason: str | None = None
    reconnect_attempts: int = 0
    fallback_to_polling: bool = False
    fallback_started_at: datetime | None = None
    next_attempt_at: datetime | None = None
    enabled: bool = True
    ws_url: str | None = None
    failures: int = 0
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    heartbeat_at: datetime | None = None


class ScheduledJob(Struct, frozen=True):
    """A periodic job and its next run; `minutes` is the interval, None for a calendar schedule."""

    id: str
    name: str
    minutes: int | None
    next_run_time: datetime | None


TRIPPING_REASONS = frozenset({"republished", "abnormal", "lookalike", "publisher", "downgrade"})
"""An update that waits for one of these reasons trips `updates_tripped` until somebody decides."""


class TrustState(Struct, frozen=True):
    """The gate: the configured policy, and what waits, is pinned, revoked or in quarantine.

    `oldest_waiting_at` is when the oldest waiting update was first seen.
    """

    policy: str = "open"
    scope: str = "all"
    waiting_by_reason: Mapping[str, int] = field(default_factory=dict)
    oldest_waiting_at: datetime | None = None
    quarantined: int = 0
    revocations: int = 0
    pinned: int = 0
    revocations_broken: bool = False

    @property
    def waiting(self) -> int:
        """Return how many updates wait."""
        return sum(self.waiting_by_reason.values())

    @property
    def tripped(self) -> int:
        """Return how many of them always need a decision."""
        return sum(number for reason, number in self.waiting_by_reason.items() if reason in TRIPPING_REASONS)


class Status(Struct, frozen=True):
    """Everything that status, health and metrics show, read in one transaction at `read_at`.

    `origin` is who made the database, `backend` (the Atom backend) or `atom-sync`. `revision` is None if there is no
    database, or none of ours in it; then everything else is empty. `migrations_pending` is also true while some tables
    are missing. `runs` are the last ones, newest first.
    """

    read_at: datetime
    database_path: str
    """The file, or the URL of the server, for people."""

    is_on_server: bool = False
    hosts: Mapping[str, str] = field(default_factory=dict)
    """On a server: which host holds the lock of each kind of run, and that of `watch`."""

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
    last_rating_success_at: datetime | None = None
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
    marketplace_reached_at: datetime | None = None
    oldest_page_at: datetime | None = None
    """When the page that was not read in full for the longest time was last read."""

    clock_skew_seconds: float | None = None
    rate_limit_remaining: int = 0
    counters: Mapping[tuple[str, str], float] = field(default_factory=dict)
    trust: TrustState = field(default_factory=TrustState)


class HealthIssue(Struct, frozen=True):
    """A problem: a stable code for programs, a message for people, and what to do."""

    code: str
    message: str
    hint: str


class Health(Struct, frozen=True):
    """The verdict: healthy, or unhealthy with reasons; `notices` deserve attention but do not affect it."""

    reasons: tuple[HealthIssue, ...] = ()
    notices: tuple[HealthIssue, ...] = ()

    @property
    def healthy(self) -> bool:
        """Tell whether there is no reason."""
        return not self.reasons


class BudgetLimit(Struct, frozen=True):
    """A limit on requests and its use; `set_by` is a variable, or the marketplace that declared it."""

    requests: int
    window_seconds: int
    used: int
    free: int
    set_by: str


class BudgetState(Struct, frozen=True):
    """The available requests, and the limits."""

    free: int
    next_free_in_seconds: float
    limits: tuple[BudgetLimit, ...]
    declared_until: datetime | None
    paused_until: datetime | None
