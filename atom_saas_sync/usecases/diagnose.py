"""`doctor`: the troubleshooting chapter of the deployment guide as checks, each with its hint.

A check that makes no sense after what was found before it is skipped: with a wrong token nothing can be said of the
WebSocket, and one cause gives one finding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from shlex import quote
from typing import Literal, Protocol

from msgspec import Struct

from atom_saas_sync.characters import counted, short_id
from atom_saas_sync.core.health import (
    duration,
    is_of_other_marketplace,
    judge,
    minutes_since,
    watch_is_running,
)
from atom_saas_sync.core.incoming.fields import name_problem
from atom_saas_sync.errors import ConfigError, ConnectionFailed, DatabaseError, MarketplaceError
from atom_saas_sync.model import Health, Status
from atom_saas_sync.times import parse_time

Verdict = Literal["ok", "warning", "problem", "skipped"]

_EXPIRY_NOTICED = timedelta(days=14)
_SKEW_WARNED, _SKEW_WRONG = 30.0, 300.0
_LONG_RUN_MINUTES = 60
_LITTLE_BUDGET = 10
# As the alert HighErrorRate has them.
_ERRORS_WITHIN, _MANY_ERRORS, _ERROR_SHARE = timedelta(hours=4), 2, 0.1
_NO_ERRORS = frozenset({None, "interrupted", "deadline", "locked"})


_SYNC_REASONS = frozenset({"never_synced", "sync_stale", "sync_failed", "deletions_refused"})


_IDS_NAMED = 5


class Finding(Struct, frozen=True):
    """What one check found, and, unless all is well, what to do and the command to run."""

    check: str
    verdict: Verdict
    message: str
    hint: str | None = None
    reason: str | None = None
    """The reason of `status --check`, where the finding is one."""


class Timers(Struct, frozen=True):
    """What starts syncs regularly, as far as this host tells: timers or crontabs by name, and which are broken."""

    active: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class Checkup(Struct, frozen=True):
    """The settings that the checks need."""

    enabled: bool
    has_token: bool
    token_expires_at: datetime | None
    api_url: str
    ws_enabled: bool
    scheduler_enabled: bool
    conflict_strategy: str
    sync_interval_minutes: int
    min_free_disk_gb: float
    warnings: tuple[str, ...]


class Network(Protocol):
    """Single requests to the marketplace."""

    def look_up(self, url: str) -> int:
        """Return how many addresses the host of a URL has."""

    def health(self) -> tuple[int, float | None]:
        """Return the status of the health route, and how far the marketplace's clock is ahead of ours."""

    def skills(self) -> int:
        """Return the status of the list of skills."""

    def websocket(self) -> None:
        """Connect as `watch` does."""


class Store(Protocol):
    """The database as the checks see it."""

    def read(self) -> Status:
        """Return the state."""

    def integrity(self) -> tuple[int, int]:
        """Return how many skills count as the marketplace's and are not what it sent, and how many are not signed."""

    def try_writing(self) -> None:
        """Raise DatabaseError if nothing can be written."""

    def skill_ids(self) -> list[str]:
        """Return the ids of all skills that are held."""

    def free_disk_gb(self) -> float:
        """Return the room on its disk."""


class Host(Protocol):
    """The machine."""

    def timers(self) -> Timers:
        """Return what starts syncs regularly."""


def diagnose(plan: Checkup, *, network: Network, store: Store, host: Host, now: datetime) -> list[Finding]:
    """Make every check that can be made, and return what each found."""
    findings = list(_configuration(plan, now))
    online = plan.enabled and plan.has_token
    findings += _reachability(plan, network) if online else [_skip("marketplace", "no token, or disabled")]
    findings += _database(plan, store)
    try:
        status = store.read()
    except DatabaseError:
        return [*findings, _skip("sync", "the database can't be read")]
    findings += _schedule(plan, host, status, now)
    findings += _state(plan, status, now)
    return findings


def worst(findings: list[Finding]) -> int:
    """Return the exit code: 1 if there is a problem; a warning alone is none."""
    return int(any(finding.verdict == "problem" for finding in findings))


def _configuration(plan: Checkup, now: datetime) -> Iterator[Finding]:
    if plan.warnings:
        for warning in plan.warnings:
            yield Finding("configuration", "warning", warning, "`atom-sync config show` tells where each value is from")
    else:
        yield Finding("configuration", "ok", "every value is in its range")
    if not plan.enabled:
        yield Finding(
            "enabled", "warning", "ATOM_SAAS_ENABLED is false: nothing is synced", "set ATOM_SAAS_ENABLED=true"
        )
        return
    if not plan.has_token:
        yield Finding(
            "token",
            "problem",
            "no token for the marketplace is set",
            "set ATOM_SAAS_API_TOKEN or ATOM_SAAS_API_TOKEN_FILE; `atom-sync config check` looks again",
        )
        return
    yield _token_age(plan.token_expires_at, now)


def _token_age(expires_at: datetime | None, now: datetime) -> Finding:
    hint = "get a new one in the dashboard, under settings, API tokens, and set ATOM_SAAS_API_TOKEN"
    if expires_at is None:
        return Finding("token", "ok", "a token is set; it does not say when it expires")
    if expires_at <= now:
        return Finding("token", "problem", f"the token expired at {expires_at:%Y-%m-%d %H:%M} UTC", hint)
    left = duration((expires_at - now).total_seconds())
    if expires_at - now < _EXPIRY_NOTICED:
        return Finding("token", "warning", f"the token expires in {left}", hint)
    return Finding("token", "ok", f"a token is set; it expires in {left}")


def _reachability(plan: Checkup, network: Network) -> Iterator[Finding]:
    try:
        network.look_up(plan.api_url)
    except ConnectionFailed as error:
        yield Finding(
            "dns", "problem", error.message, "check ATOM_SAAS_API_URL for typos, and the resolver: `resolvectl status`"
        )
        yield _skip("http", "the marketplace's name is not known")
        return
    yield Finding("dns", "ok", "the marketplace's host name resolves")
    try:
        status, skew = network.health()
        yield _health(status)
        if skew is not None:
            yield _clock(skew)
        token = _token_accepted(network.skills())
        yield token
    except MarketplaceError as error:
        yield Finding("http", "problem", error.message, _hint_for(error))
        return
    if plan.ws_enabled and token.verdict == "ok":
        yield _websocket(network)


def _health(status: int) -> Finding:
    if status == 200:  # noqa: PLR2004 - HTTP
        return Finding("http", "ok", "the marketplace answers and says that it is healthy")
    if status >= 500:  # noqa: PLR2004 - HTTP
        return Finding(
            "http",
            "problem",
            f"the marketplace says that it is not healthy: {status}",
            "wait; see https://status.atomsaas.com; the cache serves what it has meanwhile",
        )
    return Finding(
        "http",
        "warning",
        f"the health route answered {status}",
        "check ATOM_SAAS_API_URL and ATOM_SAAS_API_DIALECT: `atom-sync config show`",
    )


def _token_accepted(status: int) -> Finding:
    if status == 200:  # noqa: PLR2004 - HTTP
        return Finding("api", "ok", "the marketplace accepts the token and lists skills")
    if status in {401, 403}:
        return Finding(
            "api",
            "problem",
            f"the marketplace refuses the token: {status}",
            "get a new one in the dashboard, under settings, API tokens, and set ATOM_SAAS_API_TOKEN",
        )
    if status == 404:  # noqa: PLR2004 - HTTP
        return Finding(
            "api",
            "problem",
            "there is no list of skills at this address: 404",
            "check ATOM_SAAS_API_URL and ATOM_SAAS_API_DIALECT (v1, plain or mothership): `atom-sync config show`",
        )
    if status == 429:  # noqa: PLR2004 - HTTP
        return Finding(
            "api",
            "problem",
            "the marketplace's rate limit is used up: 429",
            "wait; does another instance use this token? ATOM_SAAS_RATE_LIMIT_PER_HOUR lowers our share",
        )
    return Finding("api", "problem", f"the list of skills answered {status}", "try again later, then contact support")


def _clock(skew: float) -> Finding:
    apart = f"this clock is {duration(abs(skew))} {'behind' if skew > 0 else 'ahead of'} the marketplace's"
    hint = "synchronise it: `timedatectl set-ntp true`"
    if abs(skew) >= _SKEW_WRONG:
        return Finding("clock", "problem", f"{apart}: tokens and the order of changes go wrong", hint)
    if abs(skew) >= _SKEW_WARNED:
        return Finding("clock", "warning", apart, hint)
    return Finding("clock", "ok", "this clock and the marketplace's agree")


def _websocket(network: Network) -> Finding:
    hint = "check ATOM_SAAS_WS_URL, and that firewall and proxy let WebSockets through; polling goes on meanwhile"
    try:
        network.websocket()
    except (MarketplaceError, ConfigError) as error:
        return Finding("websocket", "problem", error.message, hint)
    return Finding("websocket", "ok", "the WebSocket connects")


def _hint_for(error: MarketplaceError) -> str:
    if "TLS" in error.message:
        return "set ATOM_SAAS_CA_FILE to the authority of your proxy or marketplace; check the clock"
    if error.kind == "rate_limited":
        return "wait; `atom-sync status` shows when requests are free again"
    return "check ATOM_SAAS_API_URL, the network and the firewall (outbound HTTPS): `curl -I` of that URL"


def _database(plan: Checkup, store: Store) -> Iterator[Finding]:
    try:
        free = store.free_disk_gb()
        if free < plan.min_free_disk_gb:
            yield Finding(
                "disk",
                "problem",
                f"{free:.1f} GB are free, less than {plan.min_free_disk_gb:g} GB",
                "make room, or lower ATOM_SYNC_MIN_FREE_DISK_GB: `df -h` shows the file systems",
            )
        else:
            yield Finding("disk", "ok", f"{free:.1f} GB are free")
        status = store.read()
        if status.revision is not None:
            store.try_writing()
    except DatabaseError as error:
        yield Finding("database", "problem", error.message, error.hint or "`atom-sync db check` looks closer")
        return
    yield Finding("database", "ok", "it can be read and written" if status.revision else "there is none yet")
    if status.revision is not None and status.migrations_pending:
        yield Finding(
            "migrations", "problem", f"it is at {status.revision}: some are pending", "`atom-sync db upgrade`"
        )
    elif status.revision is not None:
        yield Finding("migrations", "ok", f"all are applied, up to {status.revision}")
        yield from _ids(store)
    if status.revision is not None and not status.migrations_pending:
        yield _integrity(store)
    if plan.enabled and is_of_other_marketplace(status, plan.api_url):
        yield Finding(
            "marketplace",
            "problem",
            f"the database belongs to {status.marketplace}, but ATOM_SAAS_API_URL is {plan.api_url}: syncs are refused",
            f"set ATOM_SAAS_DATABASE_URL to another database; or `atom-sync db rebind {quote(plan.api_url)}` shows "
            "what would change in this one, and asks",
        )


def _ids(store: Store) -> Iterator[Finding]:
    """Name the skills whose ids no new skill may have."""
    odd = [(skill_id, problem) for skill_id in store.skill_ids() if (problem := name_problem(skill_id))]
    if odd:
        named = ", ".join(f"{short_id(skill_id)!a} ({problem})" for skill_id, problem in odd[:_IDS_NAMED])
        more = f" and {len(odd) - _IDS_NAMED} more" if len(odd) > _IDS_NAMED else ""
        yield Finding(
            "ids",
            "warning",
            f"ids that could be taken for others: {named}{more}",
            "they are synced as before; `atom-sync skills show ID` tells what each is",
        )


def _integrity(store: Store) -> Finding:
    try:
        number, unsigned = store.integrity()
    except DatabaseError as error:
        return Finding("integrity", "problem", error.message, error.hint or "`atom-sync db check` looks closer")
    if number:
        return Finding(
            "integrity",
            "problem",
            f"{counted(number, 'skill is', 'skills are')} not what the marketplace sent, but count as such",
            "find out who writes to the database; `atom-sync db check` names them, `atom-sync sync skills --force` "
            "puts the marketplace's text back",
        )
    if unsigned:
        return Finding(
            "integrity",
            "warning",
            f"{counted(unsigned, 'skill is', 'skills are')} not signed with the key",
            "`atom-sync sync skills --force` fetches and signs them",
        )
    return Finding("integrity", "ok", "every skill of the marketplace is what it sent")


def _schedule(plan: Checkup, host: Host, status: Status, now: datetime) -> Iterator[Finding]:
    timers = host.timers()
    jobs = bool(status.jobs) and watch_is_running(status.websocket, now)
    if status.emergency_stop:
        yield Finding(
            "schedule", "problem", "the emergency stop is on: scheduled runs do nothing", "`atom-sync jobs start`"
        )
    elif status.auto_sync_off:
        yield Finding(
            "schedule",
            "problem",
            "the Atom backend has switched scheduled syncs off: scheduled runs do nothing",
            "switch them on in the backend (`sync_state.auto_sync_enabled`)",
        )
    elif timers.failed:
        yield Finding(
            "schedule",
            "problem",
            f"failed: {', '.join(timers.failed)}",
            f"`systemctl status {timers.failed[0]}` and `journalctl -u {timers.failed[0]}` say why",
        )
    elif not (timers.active or jobs):
        yield Finding(
            "schedule",
            "warning",
            "nothing starts syncs regularly: no timer, no crontab, no `watch --jobs`",
            "`atom-sync schedule systemd --install` or `atom-sync schedule cron --install`",
        )
    elif not plan.scheduler_enabled:
        yield Finding(
            "schedule",
            "problem",
            f"{', '.join(timers.active) or 'watch'} would sync, but ENABLE_SCHEDULER is not true",
            "set ENABLE_SCHEDULER=true where the timers read it",
        )
    else:
        yield Finding("schedule", "ok", f"syncs are started by {', '.join(timers.active) or '`watch --jobs`'}")


def _state(plan: Checkup, status: Status, now: datetime) -> Iterator[Finding]:
    health = judge(
        status,
        now,
        sync_interval_minutes=plan.sync_interval_minutes,
        enabled=plan.enabled,
        websocket_enabled=plan.ws_enabled,
        api_url=plan.api_url,
    )
    if status.revision is not None and status.migrations_pending:
        for check in ("sync", "cache", "rate_limit", "conflicts", "ratings"):
            yield _skip(check, "unknown until `atom-sync db upgrade`")
        return
    yield _sync(health)
    yield from _errors(status, now)
    if status.sync.last_successful_sync_at:
        yield _cache(status)
    yield from _watch(plan, health)
    for run in status.runs:
        minutes = minutes_since(run.started_at, now) or 0
        if run.status == "running" and run.kind in status.running and minutes >= _LONG_RUN_MINUTES:
            yield Finding(
                "run",
                "problem",
                f"run {run.id} ({run.kind}) has been at work for {duration(minutes * 60)}",
                "`atom-sync sync skills` names the process that holds the lock; `kill` it, and what it did is kept",
            )
    if status.revision is not None and status.rate_limit_remaining < _LITTLE_BUDGET:
        yield Finding(
            "rate_limit",
            "warning",
            f"only {counted(status.rate_limit_remaining, 'request')} can be sent now",
            "longer intervals: ATOM_SAAS_SYNC_INTERVAL_MINUTES; does another instance use this token?",
        )
    yield _conflicts(plan, status)
    if status.ratings_failed:
        yield Finding(
            "ratings",
            "problem",
            f"{counted(status.ratings_failed, 'rating')} could not be sent",
            "`atom-sync ratings failed` says why; `atom-sync sync ratings --retry-failed` tries again",
        )
    else:
        yield Finding("ratings", "ok", "none has failed")


def _watch(plan: Checkup, health: Health) -> Iterator[Finding]:
    for trouble in health.reasons:
        if trouble.code in {"watch_gone", "websocket_disconnected"}:
            yield Finding("watch", "problem", trouble.message, _watch_hint(plan, trouble.hint))
    for notice in health.notices:
        if notice.code == "websocket_disabled":
            yield Finding("watch", "warning", notice.message, notice.hint)


def _sync(health: Health) -> Finding:
    troubles = [trouble for trouble in health.reasons if trouble.code in _SYNC_REASONS]
    if not troubles:
        for notice in health.notices:
            if notice.code in {"items_invalid", "sync_partial"}:
                return Finding("sync", "warning", notice.message, notice.hint)
        return Finding("sync", "ok", "the last sync is recent and was successful")
    message = "; ".join(trouble.message for trouble in troubles)
    hints = [trouble.hint for trouble in troubles if trouble.code == "deletions_refused"]
    hint = hints[0] if hints else "fix the problems above, if any; then run `atom-sync sync skills`"
    return Finding("sync", "problem", message, hint, reason=troubles[0].code)


def _errors(status: Status, now: datetime) -> Iterator[Finding]:
    recent = [run for run in status.runs if (parse_time(run.started_at) or now) > now - _ERRORS_WITHIN]
    failed = Counter(run.error_type for run in recent if run.error_type not in _NO_ERRORS)
    if failed.total() >= _MANY_ERRORS and failed.total() > _ERROR_SHARE * len(recent):
        kinds = ", ".join(f"{number} {kind}" for kind, number in failed.most_common())
        yield Finding(
            "errors",
            "warning",
            f"{failed.total()} of the last {len(recent)} runs ended with an error: {kinds}",
            "fix the problems above, if any; `atom-sync runs list` and `atom-sync status --json` show the errors",
        )


def _cache(status: Status) -> Finding:
    if not status.skills:
        return Finding(
            "cache",
            "warning",
            "it is empty, though a sync has succeeded",
            "is ATOM_SAAS_API_URL the right marketplace (`atom-sync config show`)? `atom-sync sync skills --force` "
            "reads everything again",
        )
    if status.expired_skills:
        return Finding(
            "cache",
            "warning",
            f"{status.expired_skills:,} of {status.skills:,} skills have expired",
            "`atom-sync sync skills` confirms those that still exist; `atom-sync cache purge` removes the others",
        )
    return Finding(
        "cache",
        "ok",
        f"{counted(status.skills, 'skill')} and {counted(status.categories, 'category', 'categories')}, none expired",
    )


def _conflicts(plan: Checkup, status: Status) -> Finding:
    waiting = sum(status.conflicts_open.values())
    if not waiting:
        return Finding("conflicts", "ok", "none is open")
    more = ""
    if plan.conflict_strategy == "manual":
        more = "; with ATOM_SAAS_CONFLICT_STRATEGY=manual every new one needs a decision, too"
    return Finding(
        "conflicts",
        "warning",
        f"{counted(waiting, 'conflict needs', 'conflicts need')} a decision",
        "`atom-sync conflicts show ID` compares the two sides, `atom-sync conflicts resolve ID` asks which to keep; "
        f"`atom-sync conflicts list` shows the ids{more}",
    )


def _watch_hint(plan: Checkup, hint: str) -> str:
    """Return the hint of the verdict, unless it names doctor itself."""
    if "doctor" not in hint:
        return hint
    if plan.has_token:
        return "see the checks of the marketplace and its WebSocket above; `watch` connects again by itself"
    return "set a token; `watch` connects again by itself"


def _skip(check: str, why: str) -> Finding:
    return Finding(check, "skipped", why)
