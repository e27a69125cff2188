"""`status`: health, current activity and problems, on one screen or as JSON."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.output import complain, console, counted, print_json
from atom_saas_sync.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import RenderableType

    from atom_saas_sync.config import Settings
    from atom_saas_sync.model import Health, PastRun, Status, TrustState

UNHEALTHY = 3
"""The exit code of `status --check`."""

_BARS = "▁▂▃▄▅▆▇█"
_RESULTS = {
    "success": ("●", "green"),
    "partial": ("◐", "yellow"),
    "failed": ("✕", "red"),
    "running": ("…", "cyan"),
}
_RUNS_ON_SCREEN = 32


def status(
    ctx: typer.Context,
    seconds: Annotated[float, typer.Argument(min=0.2, metavar="[SECONDS]", help="Interval for --watch.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    check: Annotated[bool, typer.Option("--check", help="If unhealthy, print the reasons and exit with 3.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every SECONDS until Ctrl-C.")] = False,
) -> None:
    """Show activity and problems."""
    from atom_saas_sync.cli.runtime import settings_of

    settings = settings_of(ctx.obj)
    if watch:
        if as_json or check:
            raise UsageError("--watch is a live screen; it excludes --json and --check")
        _watch(settings, seconds)
        return
    state, health, now = _look(settings)
    if as_json:
        from atom_saas_sync.core.reports import status_document

        print_json(status_document(state, health, now))
    else:
        from atom_saas_sync.cli.pager import pager

        with pager():
            console(whole_lines=True).print(_screen(state, health, now))
    if check and not health.healthy:
        if as_json:
            for trouble in health.reasons:
                complain(trouble.message)
        raise typer.Exit(UNHEALTHY)


def _look(settings: Settings) -> tuple[Status, Health, datetime]:
    from datetime import UTC, datetime

    from atom_saas_sync.core.health import check_health
    from atom_saas_sync.store import engine_at

    now = datetime.now(UTC)
    state = engine_at(settings.database).status(
        now,
        per_minute=settings.rate_limit_per_minute,
        per_hour=settings.rate_limit_per_hour,
        admission=settings.admission,
        admission_scope=settings.admission_scope,
    )
    health = check_health(
        state,
        now,
        sync_interval_minutes=settings.sync_interval_minutes,
        enabled=settings.enabled,
        websocket_enabled=settings.ws_enabled,
        api_url=settings.api_url,
    )
    return state, health, now


def _watch(settings: Settings, seconds: float) -> None:
    from rich.live import Live

    from atom_saas_sync.cli.runtime import RunClock
    from atom_saas_sync.errors import Interrupted

    # KeyboardInterrupt would be lost if it came within a destructor, and SIGTERM would not restore the terminal.
    out, clock = console(), RunClock()
    with clock.caught(), suppress(Interrupted):
        if not sys.stdout.isatty():  # a log or a pipe: one screen after the other
            while True:
                out.print(_screen(*_look(settings)))
                out.file.flush()
                clock.sleep(seconds)
        with Live(_screen(*_look(settings)), console=out, screen=True, auto_refresh=False) as live:
            while True:
                clock.sleep(seconds)
                live.update(_screen(*_look(settings)), refresh=True)


def _screen(state: Status, health: Health, now: datetime) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    headline = Text("healthy", "bold green") if health.healthy else Text("unhealthy", "bold red")
    headline = Text.assemble("atom-sync is ", headline, (f"   {now:%Y-%m-%d %H:%M:%S} UTC", "dim"))
    parts: list[RenderableType] = [headline]
    for troubles, mark, style in ((health.reasons, "✕", "red"), (health.notices, "!", "yellow")):
        if troubles:
            table = Table.grid(padding=(0, 1))
            for trouble in troubles:
                table.add_row(Text(mark, style), Text(printable(trouble.message)))
                table.add_row("", Text(f"→ {trouble.hint}", "dim"))
            parts.append(table)
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column(overflow="fold")
    for name, text in _lines(state, now):
        lines.add_row(name, text)
    parts += [Text(), lines]
    return Group(*parts)


def _lines(state: Status, now: datetime) -> list[tuple[str, RenderableType]]:
    from rich.text import Text

    from atom_saas_sync.core.health import ago, size

    place = f"{state.database_path}  {size(state.database_bytes)}, at {state.revision or 'no revision'}"
    if state.revision is not None and state.migrations_pending:
        return [("Everything", Text("unknown until `atom-sync db upgrade`")), ("Database", Text(place))]
    severities = ", ".join(f"{number} {severity}" for severity, number in sorted(state.conflicts_open.items()))
    lines: list[tuple[str, RenderableType]] = [
        ("Sync", Text(_sync_line(state, now))),
        *((f"  {kind}", _runs_line(runs, now)) for kind, runs in _runs_by_kind(state)),
        ("WebSocket", Text(_websocket_line(state, now))),
        (
            "Cache",
            Text(
                f"{counted(state.skills, 'skill')}, {counted(state.categories, 'category', 'categories')}"
                + (f"; {state.modified_skills:,} edited here" if state.modified_skills else "")
                + (f"; {state.expired_skills:,} expired" if state.expired_skills else "")
                + (
                    f"; {counted(state.republished, 'skill')} republished with different code"
                    if state.republished
                    else ""
                )
                + (f"; {state.tampered:,} tampered" if state.tampered else "")
                + (f"; the oldest page was read {ago(state.oldest_page_at, now)}" if state.oldest_page_at else "")
            ),
        ),
        (
            "Ratings",
            Text(f"{state.ratings_pending:,} pending, {state.ratings_synced:,} sent, {state.ratings_failed:,} failed"),
        ),
        (
            "Conflicts",
            Text(
                f"{sum(state.conflicts_open.values()):,} open{f' ({severities})' if severities else ''}, "
                f"{state.conflicts_resolved:,} resolved"
            ),
        ),
        ("Updates", Text(_updates_line(state.trust, now))),
        ("Schedule", Text(_schedule_line(state))),
        ("Marketplace", Text(state.marketplace or "none yet: the next sync ties the database to one")),
        ("Database", Text(place)),
    ]
    return lines


def _sync_line(state: Status, now: datetime) -> str:
    from atom_saas_sync.core.health import ago

    sync = state.sync
    if sync.last_sync_at is None:
        return "never synced"
    parts = [
        f"{'running now' if 'skills' in state.running else sync.status}",
        f"last success {ago(sync.last_successful_sync_at, now)}",
    ]
    if sync.last_sync_at != sync.last_successful_sync_at:
        parts.append(f"last run {ago(sync.last_sync_at, now)}")
    failed = f", {sync.failed_syncs:,} failed" if sync.failed_syncs else ""
    runs = f"{counted(sync.total_syncs, 'run')}: {sync.successful_syncs:,} succeeded{failed}"
    return f"{'; '.join(parts)}\n{runs}"  # would not fit into 80 columns on one line


def _websocket_line(state: Status, now: datetime) -> str:
    from atom_saas_sync.core.health import ago, watch_is_running, websocket_connected
    from atom_saas_sync.times import time_text

    websocket = state.websocket
    if websocket.started_at is None:
        return "`watch` has never run here: polling only"
    if websocket_connected(websocket, now):
        since = time_text(websocket.last_connected_at)
        return f"connected since {since}; last message {ago(websocket.last_message_at, now)}"
    if websocket.stopped_at is not None:
        return f"`watch` was stopped {ago(websocket.stopped_at, now)}"
    if not watch_is_running(websocket, now):
        return f"`watch` is not running; last heartbeat {ago(websocket.heartbeat_at, now)}"
    if not websocket.enabled:
        return "switched off by an administrator: polling only"
    mode = "fallen back to polling" if websocket.fallback_to_polling else "reconnecting"
    why = f" ({printable(websocket.disconnect_reason)})" if websocket.disconnect_reason else ""
    following = f"; next try {time_text(websocket.next_attempt_at)}" if websocket.next_attempt_at else ""
    return f"not connected, {mode}{why}; {counted(websocket.reconnect_attempts, 'attempt')}{following}"


def _updates_line(trust: TrustState, now: datetime) -> str:
    from atom_saas_sync.core.health import ago

    scope = ", executable fields only" if trust.scope == "executable" else ""
    parts = [f"policy {trust.policy}{scope}", f"{trust.waiting:,} waiting"]
    if trust.waiting:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in sorted(trust.waiting_by_reason.items()))
        parts[1] += f" ({reasons}), the oldest first seen {ago(trust.oldest_waiting_at, now)}"
    for number, what in ((trust.quarantined, "in quarantine"), (trust.pinned, "pinned")):
        parts += [f"{number:,} {what}"] if number else []
    parts += [counted(trust.revocations, "revocation")] if trust.revocations else []
    return "; ".join(parts)


def _schedule_line(state: Status) -> str:
    from atom_saas_sync.times import time_text

    if state.emergency_stop:
        return "stopped (`atom-sync jobs start` resumes it)"
    if state.auto_sync_off:
        return "switched off by the Atom backend (sync_state.auto_sync_enabled)"
    if not state.jobs:
        return "no `watch --jobs`; `atom-sync jobs` shows systemd's timers"
    return ", ".join(f"{job.name}: {time_text(job.next_run_time) or 'not planned'}" for job in state.jobs)


def _runs_by_kind(state: Status) -> list[tuple[str, list[PastRun]]]:
    kinds = {kind: [run for run in state.runs if run.kind == kind] for kind in ("skills", "categories", "ratings")}
    return [(kind, runs[:_RUNS_ON_SCREEN][::-1]) for kind, runs in kinds.items() if runs]


def _runs_line(runs: list[PastRun], now: datetime) -> RenderableType:
    """Return the last runs, oldest first: durations as bars on one scale, with their results below, also in words."""
    from rich.text import Text

    from atom_saas_sync.core.health import ago, elapsed

    durations = [run.duration_seconds or 0.0 for run in runs]
    longest = max(durations)
    bars, results = Text(), Text()
    for run, seconds in zip(runs, durations, strict=True):
        mark, style = _RESULTS.get(run.status, ("?", ""))
        bars.append(_BARS[round(seconds / (longest or 1.0) * (len(_BARS) - 1))], style)
        results.append(mark, style)
    last = runs[-1]
    took = "" if last.duration_seconds is None else f" in {elapsed(last.duration_seconds)}"
    why = f" ({printable(', '.join(last.reasons))})" if last.reasons else ""
    bars.append(f"  up to {elapsed(longest)}")
    results.append(f"  {last.status}{took}{why} {ago(last.started_at, now)}")
    return Text("\n").join([bars, results])
