"""The health verdict on a Status, with reasons in words (docs/API_DOCUMENTATION.md)."""

from __future__ import annotations

from datetime import datetime, timedelta

from atom_saas_sync.characters import printable, shell_argument
from atom_saas_sync.core.marketplace import marketplace_of
from atom_saas_sync.model import TRIPPING_REASONS, Health, HealthIssue, PastRun, Status, TrustState, WebSocketState
from atom_saas_sync.times import time_text

LEAST_STALE_MINUTES = 30
"""A sync is stale after this time, or after twice the sync interval if that is longer."""

HEARTBEAT_OLD = timedelta(seconds=120)
"""With an older heartbeat, `watch` counts as disconnected regardless of its stored state."""

_WATCH_EXPECTED = timedelta(days=1)
_SKEW_NOTICED_SECONDS = 60


def stale_after_minutes(sync_interval_minutes: int) -> int:
    """Return the number of minutes without a successful sync after which the sync is stale."""
    return max(LEAST_STALE_MINUTES, 2 * sync_interval_minutes)


def minutes_since(moment: datetime | None, now: datetime) -> int | None:
    """Return the whole minutes that have passed since `moment`; None if there is none, 0 if it is in the future."""
    return None if moment is None else max(0, int((now - moment).total_seconds() // 60))


def watch_is_running(websocket: WebSocketState, now: datetime) -> bool:
    """Tell whether a `watch` process is alive and its heartbeat recent."""
    heartbeat = websocket.heartbeat_at
    return websocket.alive and heartbeat is not None and now - heartbeat <= HEARTBEAT_OLD


def websocket_connected(websocket: WebSocketState, now: datetime) -> bool:
    """Tell whether the WebSocket is connected now; the stored state counts only while its writer is alive."""
    return websocket.connected and watch_is_running(websocket, now)


def watch_is_missed(websocket: WebSocketState, now: datetime) -> bool:
    """Tell whether `watch` should be connected but is not: it ran in the last day, and was not stopped."""
    if websocket_connected(websocket, now) or websocket.stopped_at is not None:
        return False
    seen = websocket.heartbeat_at or websocket.started_at
    return seen is not None and now - seen <= _WATCH_EXPECTED


def check_health(
    status: Status,
    now: datetime,
    *,
    sync_interval_minutes: int,
    enabled: bool = True,
    websocket_enabled: bool = True,
    api_url: str | None = None,
) -> Health:
    """Return the verdict. If `enabled` is false, no requests are sent, so nothing can be stale.

    `api_url` is the configured marketplace.
    """
    if status.revision is None or status.migrations_pending:
        return Health((_database_issue(status),))
    reasons: list[HealthIssue] = []
    if enabled:
        reasons += _sync_issues(status, now, stale_after_minutes(sync_interval_minutes))
        if status.sync.last_successful_sync_at is not None and not status.skills:
            reasons.append(
                HealthIssue(
                    "cache_empty",
                    "no skill is cached, though a sync has succeeded",
                    "`atom-sync config show` shows the marketplace that is set; `atom-sync sync skills --force` reads "
                    "everything again",
                )
            )
        is_wanted = websocket_enabled and (status.websocket.enabled or not watch_is_running(status.websocket, now))
        if is_wanted and watch_is_missed(status.websocket, now):
            reasons.append(_websocket_trouble(status.websocket, now))
    notices = _notices(
        status,
        enabled=enabled,
        switched_off=websocket_enabled and not status.websocket.enabled,
        api_url=api_url if enabled else None,
    )
    return Health(tuple(reasons), tuple(notices))


def _database_issue(status: Status) -> HealthIssue:
    if status.revision is None:
        return HealthIssue(
            "never_synced",
            f"never synced: {status.database_path} does not exist yet or has no tables of atom-sync",
            "`atom-sync sync skills` makes the first sync",
        )
    return HealthIssue(
        "migrations_pending",
        f"the database is at {status.revision}: migrations are pending",
        "`atom-sync db upgrade` applies them",
    )


def _sync_issues(status: Status, now: datetime, limit: int) -> list[HealthIssue]:
    age = minutes_since(status.sync.last_successful_sync_at, now)
    last = status.last_runs.get("skills")
    troubles = []
    if age is None:
        troubles.append(
            HealthIssue("never_synced", "no sync of the skills has ever succeeded", "`atom-sync sync skills` makes one")
        )
    elif age >= limit:
        troubles.append(
            HealthIssue(
                "sync_stale",
                f"the last successful sync was {duration(age * 60)} ago; more than {limit} minutes are stale",
                "`atom-sync doctor` diagnoses the cause; `atom-sync sync skills` tries again",
            )
        )
    if last is not None and "deletions_refused" in last.reasons:
        troubles.append(_refused(last))
        return troubles
    # An interrupted run says nothing about the next one; without a next one, the cache becomes stale.
    if last is not None and last.status == "failed" and last.error_type not in {"interrupted", "deadline"}:
        why = last.error_message or ", ".join(last.reasons) or "no reason was recorded"
        troubles.append(
            HealthIssue("sync_failed", f"the last sync failed: {why}", "`atom-sync doctor` diagnoses the cause")
        )
    return troubles


def _refused(last: PastRun) -> HealthIssue:
    number = f"{last.refused:,}" if last.refused else "N"
    return HealthIssue(
        "deletions_refused",
        "the last sync refused to delete "
        + (f"{last.refused:,} skills" if last.refused else "skills")
        + " that the marketplace no longer lists; nothing was deleted",
        f"`atom-sync sync skills --dry-run` reads the list again; if the deletions are right, `atom-sync sync skills "
        f"--max-delete {number.replace(',', '')}` allows them",
    )


def _incomplete(last: PastRun) -> tuple[str, str, str] | None:
    """Return the notice about an incomplete run: its code, what happened, and what to do."""
    if last.status != "partial" or "deletions_refused" in last.reasons:
        return None
    if "items_invalid" in last.reasons:
        left_out = "1 invalid item" if last.invalid == 1 else f"{last.invalid or 'some'} invalid items"
        return (
            "items_invalid",
            f"the last sync was incomplete: it skipped {left_out} of the marketplace",
            "`atom-sync sync skills` names them; report them to the marketplace",
        )
    return (
        "sync_partial",
        f"the last sync was partial: {', '.join(last.reasons)}",
        "`atom-sync sync skills` retries the rest, and so does the next scheduled run",
    )


def _websocket_trouble(websocket: WebSocketState, now: datetime) -> HealthIssue:
    if not watch_is_running(websocket, now):
        return HealthIssue(
            "watch_gone",
            "`watch` was killed or hangs: its last heartbeat was at "
            f"{time_text(websocket.heartbeat_at or websocket.started_at)}, and it was not stopped",
            "`systemctl [--user] restart atom-sync-watch` or `atom-sync watch`",
        )
    why = f": {websocket.disconnect_reason}" if websocket.disconnect_reason else ""
    mode = "; polling continues" if websocket.fallback_to_polling else ""
    return HealthIssue(
        "websocket_disconnected", f"the WebSocket is not connected{why}{mode}", "`atom-sync doctor` tests it"
    )


def is_of_other_marketplace(status: Status, api_url: str) -> bool:
    """Tell whether the database belongs to a different marketplace."""
    return status.marketplace is not None and status.marketplace != marketplace_of(api_url)


def _notices(status: Status, *, enabled: bool, switched_off: bool, api_url: str | None) -> list[HealthIssue]:
    waiting = sum(status.conflicts_open.values())
    last = status.last_runs.get("skills")
    skew = status.clock_skew_seconds
    partial = None if last is None else _incomplete(last)
    candidates = (
        (
            not enabled,
            "disabled",
            "ATOM_SAAS_ENABLED is false: no requests are sent to the marketplace",
            "set it to true",
        ),
        (
            switched_off,
            "websocket_disabled",
            "an administrator has switched the WebSocket off (websocket_state.websocket_enabled is 0): polling only",
            "`POST /api/admin/sync/websocket/enable` switches it on",
        ),
        (
            status.emergency_stop,
            "stopped",
            "the emergency stop is on: scheduled runs do nothing",
            "`atom-sync jobs start`",
        ),
        (
            api_url is not None and is_of_other_marketplace(status, api_url),
            "wrong_marketplace",
            f"the database belongs to {status.marketplace}, but ATOM_SAAS_API_URL is {api_url}: syncs are refused",
            "set ATOM_SAAS_DATABASE_URL to another database, or `atom-sync db rebind URL`",
        ),
        (partial is not None, *(partial or ("", "", ""))),
        (
            status.tampered > 0,
            "tampered",
            f"{status.tampered:,} {'skill is' if status.tampered == 1 else 'skills are'} not what the marketplace sent",
            "`atom-sync sync skills --force` restores the marketplace's text",
        ),
        (
            waiting > 0,
            "conflicts_open",
            f"{waiting:,} {'conflict needs' if waiting == 1 else 'conflicts need'} a decision",
            "`atom-sync conflicts list`",
        ),
        *_notices_of_updates(status.trust),
        *_notices_of_edits(status),
        (
            status.ratings_failed > 0,
            "ratings_failed",
            f"{status.ratings_failed} {'rating' if status.ratings_failed == 1 else 'ratings'} could not be sent",
            "`atom-sync ratings failed`",
        ),
        (
            skew is not None and abs(skew) > _SKEW_NOTICED_SECONDS,
            "clock_skew",
            f"this clock is {duration(abs(skew or 0))} {'behind' if (skew or 0) > 0 else 'ahead of'} the marketplace's",
            "synchronise the clock (`timedatectl`)",
        ),
    )
    return [HealthIssue(code, message, hint) for applies, code, message, hint in candidates if applies]


def _notices_of_updates(trust: TrustState) -> tuple[tuple[bool, str, str, str], ...]:
    why = ", ".join(
        f"{number:,} {reason}"
        for reason, number in sorted(trust.waiting_by_reason.items())
        if reason in TRIPPING_REASONS
    )
    return (
        (
            trust.tripped > 0,
            "updates_tripped",
            f"{trust.tripped:,} {'update needs' if trust.tripped == 1 else 'updates need'} a decision: {why}",
            "`atom-sync updates list` shows them; served versions stay unchanged meanwhile",
        ),
        (
            trust.revocations_broken,
            "revocations_failed",
            "the revocations file cannot be used: nothing new is admitted, and its last valid list stays in force",
            "`atom-sync policy check` shows what is wrong",
        ),
    )


def _notices_of_edits(status: Status) -> tuple[tuple[bool, str, str, str], ...]:
    return (
        (
            status.edits_replaced > 0,
            "edits_replaced",
            f"{status.edits_replaced:,} local {'edit' if status.edits_replaced == 1 else 'edits'} replaced by a sync",
            "`atom-sync conflicts list --resolved` shows them; `atom-sync conflicts undo ID` puts one back",
        ),
        (
            status.edits_deleted > 0,
            "edits_deleted",
            f"local edits that another program deleted: {status.edits_deleted:,}",
            f"`atom-sync skills log {printable(shell_argument(status.deleted_edit or 'ID'))}` keeps the text",
        ),
    )


def ago(moment: datetime | None, now: datetime) -> str:
    """Return how long ago a time was, in words; `never` if it is None."""
    return "never" if moment is None else f"{duration(max(0.0, (now - moment).total_seconds()))} ago"


def elapsed(seconds: float) -> str:
    """Return a duration in words: `32 ms`, `1.4 s`, `12 min`."""
    if seconds < 0.9995:  # noqa: PLR2004 - rounds to less than a second
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 9.95 else duration(round(seconds))  # noqa: PLR2004 - two digits


def interval(minutes: int) -> str:
    """Return the interval between two runs in words: `40 min`, `1 h`, `1 day`."""
    for size, unit in ((1440, "day"), (60, "h")):
        if minutes % size == 0:
            number = minutes // size
            return f"{number} {unit}{'s' if unit == 'day' and number > 1 else ''}"
    return f"{minutes} min"


def size(number: float) -> str:
    """Return a number of bytes in words: `1 byte`, `512 bytes`, `17.1 MB` (10^6 bytes)."""
    if number < 1000:  # noqa: PLR2004 - the step between units
        return f"{number:.0f} byte{'' if number == 1 else 's'}"
    for unit in ("kB", "MB"):
        number /= 1000
        if number < 999.95:  # noqa: PLR2004 - rounds to less than the next unit
            return f"{number:.1f} {unit}"
    return f"{number / 1000:,.1f} GB"


def duration(seconds: float) -> str:
    """Return a time span in words: `45 s`, `12 min`, `3 h`, `2 days`."""
    for limit, size, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds // 86400:.0f} days"
