"""`db backup`, and what else keeps the database file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from atom_saas_sync.cli.output import counted, note, print_json, say
from atom_saas_sync.errors import UsageError

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def backup(
    ctx: typer.Context,
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="The file to write; by default one named by time, in backups/ beside the database."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    keep: Annotated[
        int | None,
        typer.Option("--keep", min=1, max=10**6, metavar="N", help="Keep the N newest in backups/, remove the others."),
    ] = None,
    scheduled: Annotated[
        bool, typer.Option("--scheduled", help="Started by a timer: does nothing unless ENABLE_SCHEDULER is true.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Write a consistent, verified copy of the database, while others use it."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.cli.session import SCHEDULER_OFF, STOPPED, noted_run
    from atom_saas_sync.store.database import Database
    from atom_saas_sync.store.runs import TIMER, Runs

    if keep is not None and target is not None:
        raise UsageError("--keep counts the files in backups/: it excludes a FILE")
    settings = runtime.load(ctx.obj)
    if scheduled and not settings.scheduler_enabled:
        _skip("scheduler_off", SCHEDULER_OFF, as_json=as_json)
        return
    with Database.open(settings.database_path, migrate=False, read_only=True) as database:
        stopped = scheduled and Runs(database).scheduling_stopped()
    if stopped:
        _skip("stopped", STOPPED, as_json=as_json)
        return
    with noted_run(settings.database_path, "backup", started_by=TIMER if scheduled else runtime.person()) as counts:
        written, removed = _write(settings.database_path, target, force=force, keep=keep)
        counts.update(size_bytes=written.stat().st_size, removed=len(removed))
    if as_json:
        print_json(
            {
                "backup": str(written),
                "size_bytes": counts["size_bytes"],
                "removed": [str(path) for path in removed],
                "reason": None,
            }
        )
        return
    from atom_saas_sync.core.health import size

    say(f"{written}: {size(counts['size_bytes'])}")
    if removed:
        say(f"removed {counted(len(removed), 'older backup')}; {keep} kept")


def _write(database: Path, target: Path | None, *, force: bool, keep: int | None) -> tuple[Path, list[Path]]:
    from atom_saas_sync.store import kept_copies
    from atom_saas_sync.store.backup import backup as write_backup

    if target is not None:
        write_backup(database, target, force=force)
        return target.absolute(), []
    now = datetime.now(UTC)
    written = kept_copies.back_up(database, now=now)
    removed = [] if keep is None else kept_copies.keep_newest(database, keep, newest=written)
    kept_copies.remove_old_migration_copies(database, now)
    return written, removed


def _skip(reason: str, why: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"backup": None, "size_bytes": None, "removed": [], "reason": reason})
    note(why)
