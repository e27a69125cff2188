"""`jobs`: the scheduled jobs with their next runs, and the emergency stop."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.output import console, note, print_json, say
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.errors import AtomSyncError

if TYPE_CHECKING:
    from atom_saas_sync.config import Settings
    from atom_saas_sync.model import ScheduledJob

app = typer.Typer(help="Show, stop and start the scheduled jobs.", rich_markup_mode=None)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.callback(invoke_without_command=True)
@paged
def show(ctx: typer.Context, as_json: _Json = False) -> None:
    """Show the scheduled jobs with their next run: systemd's timers, else those of `watch --jobs`."""
    if ctx.invoked_subcommand is not None:
        return
    from atom_saas_sync.cli.runtime import settings_of
    from atom_saas_sync.store import engine_at

    settings = settings_of(ctx.obj)
    status = engine_at(settings.database).status(
        datetime.now(UTC),
        per_minute=settings.rate_limit_per_minute,
        per_hour=settings.rate_limit_per_hour,
        admission=settings.admission,
        admission_scope=settings.admission_scope,
    )
    jobs, source = [_document(job, "systemd") for job in _timers()], "systemd"
    if not jobs and status.websocket.alive:
        jobs, source = [_document(job, "interval") for job in status.jobs], "watch"
    if as_json:
        print_json(
            {
                "jobs": jobs,
                "total": len(jobs),
                "source": source if jobs else None,
                "stopped": status.emergency_stop,
            }
        )
        return
    if status.emergency_stop:
        say("The emergency stop is on: scheduled runs do nothing until `atom-sync jobs start`.")
    elif status.auto_sync_off:
        say("The Atom backend has switched scheduled syncs off (sync_state.auto_sync_enabled): they do nothing.")
    if not jobs:
        _tell_of_none()
        return
    _print_table(jobs)


@app.command()
def stop(ctx: typer.Context, as_json: _Json = False) -> None:
    """Stop everything that is scheduled, until `jobs start`: an emergency stop."""
    _switch(ctx, as_json=as_json, on=True)


@app.command()
def start(ctx: typer.Context, as_json: _Json = False) -> None:
    """End the emergency stop."""
    _switch(ctx, as_json=as_json, on=False)


def _switch(ctx: typer.Context, *, as_json: bool, on: bool) -> None:
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.store import open_store

    settings: Settings = runtime.load(ctx.obj)
    now = datetime.now(UTC)
    # An emergency stop also applies to the first sync.
    with open_store(settings.database, create=on) as store:
        runs = store.runs()
        changed = runs.scheduling_stopped() is not on
        if changed and on:
            runs.stop_scheduling(actor=runtime.current_user(), now=now)
        elif changed:
            runs.resume_scheduling(actor=runtime.current_user(), now=now)
    if as_json:
        print_json({"stopped": on, "changed": changed})
    elif on:
        say(
            "The emergency stop is on"
            + ("" if changed else " already")
            + ": scheduled runs do nothing. `atom-sync jobs start` ends it."
        )
    else:
        say("Scheduled runs do their work again." if changed else "The emergency stop was not on.")
    if not on and not settings.scheduler_enabled:
        note("ENABLE_SCHEDULER is not true: scheduled runs still do nothing")


def _timers() -> list[ScheduledJob]:
    from atom_saas_sync.systemd import timers

    try:
        return timers()
    except AtomSyncError as error:
        note(f"could not query systemd's timers: {printable(error.message)}")
        return []


def _tell_of_none() -> None:
    from pathlib import Path

    from atom_saas_sync.core.schedule_files import CRONTAB

    if Path(CRONTAB).exists():
        say(f"Jobs are started by {CRONTAB}; see that file for the times.")
    else:
        say("No scheduled jobs: no timer of atom-sync is active, and no `watch --jobs` is running.")


def _document(job: ScheduledJob, trigger: str) -> dict[str, Any]:
    from atom_saas_sync.times import time_text

    return {
        "id": job.id,
        "name": job.name,
        "next_run_time": time_text(job.next_run_time),
        "trigger": trigger,
        "minutes": job.minutes,
    }


def _print_table(jobs: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from atom_saas_sync.core.health import interval

    told = any(job["minutes"] is not None for job in jobs)  # systemd does not report the interval
    table = Table("job", "next run", *["every"] * told, box=None, pad_edge=False)
    for job in jobs:
        cells = [printable(job["name"]), job["next_run_time"] or "not planned"]
        if job["minutes"] is not None:
            cells.append(interval(job["minutes"]))
        table.add_row(*cells)
    console(whole_lines=True).print(table)
