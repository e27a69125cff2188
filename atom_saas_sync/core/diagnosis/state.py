"""Findings about the stored state of syncs, `watch`, conflicts and ratings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from atom_saas_sync.characters import counted
from atom_saas_sync.core.diagnosis.findings import DoctorFinding, DoctorSettings, Timers, skipped
from atom_saas_sync.core.diagnosis.trust import trust
from atom_saas_sync.core.health import check_health, duration, minutes_since, watch_is_running
from atom_saas_sync.model import Health, Status

_LONG_RUN_MINUTES = 60
_LITTLE_BUDGET = 10
# The same limits as in the alert HighErrorRate.
_ERRORS_WITHIN, _MANY_ERRORS, _ERROR_SHARE = timedelta(hours=4), 2, 0.1
_NO_ERRORS = frozenset({None, "interrupted", "deadline", "locked"})
_SYNC_REASONS = frozenset({"never_synced", "sync_stale", "sync_failed", "deletions_refused"})


def schedule(plan: DoctorSettings, timers: Timers, status: Status, now: datetime) -> Iterator[DoctorFinding]:
    """Check that something starts syncs regularly, and that nothing has switched them off."""
    jobs = bool(status.jobs) and watch_is_running(status.websocket, now)
    user = "--user " if timers.own else ""
    if status.emergency_stop:
        yield DoctorFinding(
            "schedule", "problem", "the emergency stop is on: scheduled runs do nothing", "`atom-sync jobs start`"
        )
    elif status.auto_sync_off:
        yield DoctorFinding(
            "schedule",
            "problem",
            "the Atom backend has switched scheduled syncs off: scheduled runs do nothing",
            "switch them on in the backend (`sync_state.auto_sync_enabled`)",
        )
    elif timers.failed:
        yield DoctorFinding(
            "schedule",
            "problem",
            f"failed: {', '.join(timers.failed)}",
            f"`systemctl {user}status {timers.failed[0]}` and `journalctl {user}-u {timers.failed[0]}` say why",
        )
    elif not (timers.active or jobs):
        yield DoctorFinding(
            "schedule",
            "warning",
            "nothing starts syncs regularly: no timer, no crontab, no `watch --jobs`",
            "`atom-sync schedule systemd --install` or `atom-sync schedule cron --install`",
        )
    elif not plan.scheduler_enabled:
        yield DoctorFinding(
            "schedule",
            "problem",
            f"{', '.join(timers.active) or 'watch'} would sync, but ENABLE_SCHEDULER is not true",
            "set ENABLE_SCHEDULER=true where the timers read it",
        )
    else:
        yield DoctorFinding("schedule", "ok", f"syncs are started by {', '.join(timers.active) or '`watch --jobs`'}")


def state(plan: DoctorSettings, timers: Timers, status: Status, now: datetime) -> Iterator[DoctorFinding]:
    """Check the results of syncs, the state of `watch`, and open conflicts."""
    health = check_health(
        status,
        now,
        sync_interval_minutes=plan.sync_interval_minutes,
        enabled=plan.enabled,
        websocket_enabled=plan.ws_enabled,
        api_url=plan.api_url,
    )
    if status.revision is not None and status.migrations_pending:
        for check in ("sync", "cache", "rate_limit", "updates", "conflicts", "ratings"):
            yield skipped(check, "unknown until `atom-sync db upgrade`")
        return
    yield _sync(health)
    yield from _errors(status, now)
    if status.sync.last_successful_sync_at:
        yield _cache(status)
    yield from _watch(plan, timers, health)
    for run in status.runs:
        minutes = minutes_since(run.started_at, now) or 0
        if run.status == "running" and run.kind in status.running and minutes >= _LONG_RUN_MINUTES:
            yield DoctorFinding(
                "run",
                "problem",
                f"run {run.id} ({run.kind}) has been running for {duration(minutes * 60)}",
                "`atom-sync sync skills` names the process that holds the lock; `kill` it: what it committed is kept",
            )
    if status.revision is not None and status.rate_limit_remaining < _LITTLE_BUDGET:
        yield DoctorFinding(
            "rate_limit",
            "warning",
            f"only {counted(status.rate_limit_remaining, 'request')} can be sent now",
            "longer intervals: ATOM_SAAS_SYNC_INTERVAL_MINUTES; does another instance use this token?",
        )
    yield from trust(plan, status.trust, now)
    yield _conflicts(plan, status)
    if status.ratings_failed:
        yield DoctorFinding(
            "ratings",
            "problem",
            f"{counted(status.ratings_failed, 'rating')} could not be sent",
            "`atom-sync ratings failed` says why; `atom-sync sync ratings --retry-failed` tries again",
        )
    else:
        yield DoctorFinding("ratings", "ok", "none has failed")


def _watch(plan: DoctorSettings, timers: Timers, health: Health) -> Iterator[DoctorFinding]:
    for trouble in health.reasons:
        if trouble.code in {"watch_gone", "websocket_disconnected"}:
            hint = trouble.hint
            if trouble.code == "websocket_disconnected":  # its hint is to run doctor
                look = "see the checks of the marketplace and its WebSocket above" if plan.has_token else "set a token"
                hint = f"{look}; `watch` reconnects automatically"
            elif timers.own:
                hint = "`systemctl --user restart atom-sync-watch`"
            yield DoctorFinding("watch", "problem", trouble.message, hint)
    for notice in health.notices:
        if notice.code == "websocket_disabled":
            yield DoctorFinding("watch", "warning", notice.message, notice.hint)


def _sync(health: Health) -> DoctorFinding:
    troubles = [trouble for trouble in health.reasons if trouble.code in _SYNC_REASONS]
    if not troubles:
        for notice in health.notices:
            if notice.code in {"items_invalid", "sync_partial"}:
                return DoctorFinding("sync", "warning", notice.message, notice.hint)
        return DoctorFinding("sync", "ok", "the last sync is recent and was successful")
    message = "; ".join(trouble.message for trouble in troubles)
    hints = [trouble.hint for trouble in troubles if trouble.code == "deletions_refused"]
    hint = hints[0] if hints else "fix the problems above, if any; then run `atom-sync sync skills`"
    return DoctorFinding("sync", "problem", message, hint, reason=troubles[0].code)


def _errors(status: Status, now: datetime) -> Iterator[DoctorFinding]:
    recent = [run for run in status.runs if (run.started_at or now) > now - _ERRORS_WITHIN]
    failed = Counter(run.error_type for run in recent if run.error_type not in _NO_ERRORS)
    if failed.total() >= _MANY_ERRORS and failed.total() > _ERROR_SHARE * len(recent):
        kinds = ", ".join(f"{number} {kind}" for kind, number in failed.most_common())
        yield DoctorFinding(
            "errors",
            "warning",
            f"{failed.total()} of the last {len(recent)} runs ended with an error: {kinds}",
            "fix the problems above, if any; `atom-sync runs list` and `atom-sync status --json` show the errors",
        )


def _cache(status: Status) -> DoctorFinding:
    if not status.skills:
        return DoctorFinding(
            "cache",
            "warning",
            "it is empty, though a sync has succeeded",
            "is ATOM_SAAS_API_URL the right marketplace (`atom-sync config show`)? `atom-sync sync skills --force` "
            "reads everything again",
        )
    if status.expired_skills:
        return DoctorFinding(
            "cache",
            "warning",
            f"{status.expired_skills:,} of {status.skills:,} skills have expired",
            "`atom-sync sync skills` confirms those that still exist; `atom-sync cache purge` removes the others",
        )
    return DoctorFinding(
        "cache",
        "ok",
        f"{counted(status.skills, 'skill')} and {counted(status.categories, 'category', 'categories')}, none expired",
    )


def _conflicts(plan: DoctorSettings, status: Status) -> DoctorFinding:
    waiting = sum(status.conflicts_open.values())
    if not waiting:
        return DoctorFinding("conflicts", "ok", "none is open")
    more = ""
    if plan.conflict_strategy == "manual":
        more = "; with ATOM_SAAS_CONFLICT_STRATEGY=manual every new one needs a decision, too"
    return DoctorFinding(
        "conflicts",
        "warning",
        f"{counted(waiting, 'conflict needs', 'conflicts need')} a decision",
        "`atom-sync conflicts show ID` compares the two sides, `atom-sync conflicts resolve ID` asks which to keep; "
        f"`atom-sync conflicts list` shows the ids{more}",
    )
