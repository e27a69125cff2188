"""`db backup`, `db restore` and `db compact`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atom_saas_sync.cli.output import counted, note, print_json, say
from atom_saas_sync.errors import DatabaseError, UsageError

if TYPE_CHECKING:
    from atom_saas_sync.core.local_work import LocalWork
    from atom_saas_sync.usecases.ports import DatabaseCopies

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def backup(
    ctx: typer.Context,
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="The file to write; by default one named by time, in backups/ beside the database or, for a "
            "database on a server, in the state directory.",
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
    from atom_saas_sync.cli.session import SCHEDULER_OFF, STOPPED, daily_run
    from atom_saas_sync.model import TIMER
    from atom_saas_sync.store import engine_at

    if keep is not None and target is not None:
        raise UsageError("--keep and FILE exclude each other: --keep counts the files in backups/")
    settings = runtime.load(ctx.obj)
    if scheduled and not settings.scheduler_enabled:
        _skip("scheduler_off", SCHEDULER_OFF, as_json=as_json)
        return
    engine = engine_at(settings.database)
    with engine.open(migrate=False, read_only=True) as store:
        stopped = scheduled and store.runs().scheduling_stopped()
    if stopped:
        _skip("stopped", STOPPED, as_json=as_json)
        return
    copies, actor = engine.copies(), runtime.current_user()
    with daily_run(settings.database, copies, "backup", timer=TIMER if scheduled else None, by=actor) as counts:
        if counts is None:
            _skip("fresh", "another host has backed the database up: nothing done", as_json=as_json)
            return
        written, removed = _write(copies, target, force=force, keep=keep)
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


def restore(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup of this database.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before local work is lost.")] = False,
    as_json: _Json = False,
) -> None:
    """Replace the database with a backup; the replaced database is kept beside it."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.cli.asking import confirm_loss
    from atom_saas_sync.cli.session import all_runs_locked
    from atom_saas_sync.core.marketplace import marketplace_of
    from atom_saas_sync.store import engine_at

    settings = runtime.load(ctx.obj)
    engine, file = engine_at(settings.database), file.absolute()
    copies = engine.copies()
    former, marketplace, work = copies.read_backup(file)
    if marketplace not in (None, marketplace_of(settings.api_url)):
        raise DatabaseError(
            f"the backup {file} belongs to {marketplace}, but ATOM_SAAS_API_URL is {settings.api_url}",
            hint="nothing was changed; name a backup of this marketplace, or set ATOM_SAAS_API_URL to the other one",
        )
    clock = runtime.RunClock()
    with all_runs_locked(copies, command="db restore", clock=clock):
        lines = _lost(copies.current_work(), work)
        lines += [f"the current rows of another program's table: {name}" for name in copies.tables_of_others()]
        confirm_loss(lines, what=f"what was done since {file.name}", question="Restore it?", yes=yes, as_json=as_json)
        signer, actor = runtime.signer_of(settings), runtime.current_user()
        done = copies.restore(file, signer=signer, actor=actor, now=clock.now())
    if as_json:
        print_json(
            {
                "database": str(engine.location),
                "restored_from": str(file),
                "revision": engine.known_migrations()[-1],
                "former_revision": former,
                "applied": list(done.applied),
                "kept": str(done.kept) if done.kept else None,
                "findings": [
                    {"check": each.check, "message": each.message, "hint": each.hint} for each in done.findings
                ],
            }
        )
        return
    say(f"{engine.location} was restored from {file}" + (f" and upgraded from {former}" if done.applied else ""))
    if done.kept:
        say(f"the database that it replaced is kept in {done.kept}")
    for each in done.findings:
        note(f"{each.message}\n  → {each.hint}")


def compact(ctx: typer.Context, as_json: _Json = False) -> None:
    """Return unused space in the database file to the file system."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.cli.session import all_runs_locked
    from atom_saas_sync.core.health import size
    from atom_saas_sync.store import open_store

    location = runtime.load(ctx.obj).database
    with (
        open_store(location, create=False) as store,
        all_runs_locked(store, command="db compact", clock=runtime.RunClock()),
    ):
        before, after = store.maintenance().compact()
    freed = max(0, before - after)
    if as_json:
        print_json({"database": str(location), "size_before_bytes": before, "size_bytes": after, "freed_bytes": freed})
    else:
        say(f"{location}: {size(after)}; " + (f"{size(freed)} freed" if freed else "nothing to free"))


def copy(
    ctx: typer.Context,
    to: Annotated[str, typer.Option("--to", metavar="URL", help="The database to fill; it has no rows yet.")],
    as_json: _Json = False,
) -> None:
    """Copy everything into an empty database, SQLite or PostgreSQL, in one transaction."""
    from dataclasses import replace

    from atom_saas_sync.cli import runtime
    from atom_saas_sync.cli.session import all_runs_locked
    from atom_saas_sync.errors import Interrupted
    from atom_saas_sync.store import open_store
    from atom_saas_sync.usecases.copy_database import copy_database

    source = runtime.load(ctx.obj).database
    target = runtime.settings_of(replace(ctx.obj, database=to)).database
    if str(target) == str(source):
        raise UsageError(f"{target} is the database itself", hint="name another one")
    clock = runtime.RunClock()
    with (
        clock.caught(),
        open_store(source, create=False) as store,
        all_runs_locked(store, command="db copy", clock=clock),
        open_store(target) as other,
    ):
        try:
            rows = copy_database(store, other, check=clock.check)
        except Interrupted as error:
            error.hint = "nothing was copied; run it again"
            raise
    if as_json:
        print_json({"database": str(source), "copied_to": str(target), "rows": rows, "total": sum(rows.values())})
        return
    say(
        f"{source} was copied to {target}: {counted(rows['skill_cache'], 'skill')}, "
        f"{counted(rows['skill_ratings'], 'rating')}, {counted(rows['conflict_log'], 'conflict')}, "
        f"{sum(rows.values()):,} rows in all"
    )
    note("set ATOM_SAAS_DATABASE_URL to the new address before the next run")


def _lost(now: LocalWork | None, then: LocalWork) -> list[str]:
    from atom_saas_sync.core.local_work import lost_work

    if now is None:
        return ["everything in the database: it is damaged or of another version, so its contents are not known"]
    return lost_work(now, then)


def _write(copies: DatabaseCopies, target: Path | None, *, force: bool, keep: int | None) -> tuple[Path, list[Path]]:
    if target is not None:
        copies.back_up(target, force=force)
        return target.absolute(), []
    return copies.back_up_and_tidy(keep=keep, now=datetime.now(UTC))


def _skip(reason: str, why: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"backup": None, "size_bytes": None, "removed": [], "reason": reason})
    note(why)
