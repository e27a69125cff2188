"""`jobs`: the scheduled jobs with their next run, and the emergency stop of all of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atom_saas_sync.cli.output import console, print_json, printable

if TYPE_CHECKING:
    from atom_saas_sync.config import Settings

app = typer.Typer(help="The scheduled jobs: when they run next, and stopping them all.", rich_markup_mode=None)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_TIMERS = "atom-sync*.timer"
_SYSTEMCTL_SECONDS = 5.0


@app.callback(invoke_without_command=True)
def show(ctx: typer.Context, as_json: _Json = False) -> None:
    """Show the scheduled jobs with their next run: systemd's timers, else those of `watch --jobs`."""
    if ctx.invoked_subcommand is not None:
        return
    from atom_saas_sync.cli.runtime import settings_of
    from atom_saas_sync.store.status import read_status

    settings = settings_of(ctx.obj)
    status = read_status(
        settings.database_path,
        now=datetime.now(UTC),
        per_minute=settings.rate_limit_per_minute,
        per_hour=settings.rate_limit_per_hour,
    )
    jobs = _timers()
    source = "systemd" if jobs else "watch" if status.websocket.alive and status.jobs else None
    if not jobs and source == "watch":
        jobs = [
            {
                "id": job.id,
                "name": job.name,
                "next_run_time": job.next_run_time,
                "trigger": "interval",
                "minutes": job.minutes,
            }
            for job in status.jobs
        ]
    if as_json:
        print_json(
            {"success": True, "jobs": jobs, "total": len(jobs), "source": source, "stopped": status.emergency_stop}
        )
        return
    if status.emergency_stop:
        typer.echo("The emergency stop is on: scheduled runs do nothing until `atom-sync jobs start`.")
    if not jobs:
        typer.echo("No scheduled jobs: no atom-sync timer is active in systemd, and no `watch --jobs` is running.")
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
    from atom_saas_sync.store.database import Database
    from atom_saas_sync.store.runs import Runs

    settings: Settings = runtime.load(ctx.obj)
    now = datetime.now(UTC)
    with Database.open(settings.database_path) as database:
        runs = Runs(database)
        changed = runs.scheduling_stopped() is not on
        if changed and on:
            runs.stop_scheduling(actor=runtime.person(), now=now)
        elif changed:
            runs.resume_scheduling(actor=runtime.person(), now=now)
    if as_json:
        print_json({"success": True, "stopped": on, "changed": changed})
    elif on:
        typer.echo(
            "The emergency stop is on"
            + ("" if changed else " already")
            + ": scheduled runs do nothing. `atom-sync jobs start` ends it."
        )
    else:
        typer.echo("Scheduled runs do their work again." if changed else "The emergency stop was not on.")
    if not on and not settings.scheduler_enabled:
        sys.stderr.write("ENABLE_SCHEDULER is not true: scheduled runs do nothing all the same\n")


def _timers() -> list[dict[str, Any]]:
    """Return our timers as systemd has them; none where there is no systemd."""
    if not Path("/run/systemd/system").is_dir() or (systemctl := shutil.which("systemctl")) is None:
        return []
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            [systemctl, "list-timers", "--all", "--output=json", _TIMERS],
            capture_output=True,
            text=True,
            timeout=_SYSTEMCTL_SECONDS,
            check=False,
        )
        timers = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        timers = None
    if not isinstance(timers, list):
        sys.stderr.write("systemd is here, but `systemctl list-timers` told nothing of its timers\n")
        return []
    return [
        {
            "id": timer["unit"],
            "name": timer.get("activates") or timer["unit"],
            "next_run_time": _moment(timer.get("next")),
            "trigger": "systemd",
            "minutes": None,
        }
        for timer in timers
        if isinstance(timer, dict) and isinstance(timer.get("unit"), str)
    ]


def _moment(microseconds: object) -> str | None:
    """Return the time that systemd means; it has 0 or nothing for a timer that is not planned."""
    from atom_saas_sync.times import format_time

    if not isinstance(microseconds, int) or isinstance(microseconds, bool) or microseconds <= 0:
        return None
    return format_time(datetime.fromtimestamp(microseconds / 1_000_000, UTC))


def _print_table(jobs: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("job", "next run", "every", box=None, pad_edge=False)
    for job in jobs:
        every = "" if job["minutes"] is None else f"{job['minutes']} min"
        table.add_row(printable(job["name"]), job["next_run_time"] or "not planned", every)
    console().print(table)
