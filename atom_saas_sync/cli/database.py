"""`atom-sync db`: migrations, checks and backups of the database."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atom_saas_sync.cli.output import console, print_json
from atom_saas_sync.errors import DatabaseError, UsageError

if TYPE_CHECKING:
    from atom_saas_sync.store.database import Database
    from atom_saas_sync.store.migrations import Change

app = typer.Typer(help="Migrations, checks and backups of the database.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def upgrade(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(help="The last migration to apply, or head.")] = "head",
    as_json: AsJson = False,
) -> None:
    """Apply pending migrations; an older database is copied beside itself first."""
    from atom_saas_sync.store import migrations

    with _open(ctx) as database:
        change = migrations.upgrade(database, target)
        database.use_write_ahead_log()
        _report_change(database, "applied", change, as_json=as_json)


# A target such as -1 is no option.
@app.command(context_settings={"ignore_unknown_options": True})
def downgrade(
    ctx: typer.Context,
    target: Annotated[
        str, typer.Argument(help="The migration to go back to, base for none, or -N for N steps.")
    ] = "-1",
    yes: Annotated[bool, typer.Option("--yes", help="Also if tables that hold rows are dropped.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take migrations back, newest first; the database is copied beside itself first."""
    from atom_saas_sync.store import migrations

    where = int(target) if re.fullmatch(r"-\d+", target) else target
    with _open(ctx, existing=True) as database:
        lost = migrations.loss(database, where)
        if lost and not yes:
            rows = ", ".join(f"{table} ({count} row{'s' if count > 1 else ''})" for table, count in lost.items())
            raise UsageError(
                f"this would drop tables that hold data: {rows}",
                hint="say --yes to do it; a copy of the database is kept beside it",
            )
        _report_change(database, "taken_back", migrations.downgrade(database, where), as_json=as_json)


@app.command()
def current(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show the latest migration that the database has."""
    from atom_saas_sync.store import migrations

    with _open(ctx, read_only=True) as database:
        revision = migrations.current(database)
        pending = migrations.pending(database)
    if as_json:
        print_json({"success": True, "current": revision, "head": not pending, "pending": pending})
    else:
        typer.echo(f"{revision or 'base'}{'' if pending else ' (head)'}")


@app.command()
def history(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List all migrations, and when each was applied."""
    from atom_saas_sync.store import migrations

    with _open(ctx, read_only=True) as database:
        entries = migrations.history(database)
    if as_json:
        rows = [{"name": name, "applied_at": applied_at} for name, applied_at in entries]
        print_json({"success": True, "migrations": rows, "total": len(rows)})
        return
    from rich.table import Table

    table = Table("Migration", "Applied at (UTC)")
    for name, applied_at in entries:
        table.add_row(name, applied_at or "pending")
    console(whole_lines=True).print(table)


@app.command()
def check(
    ctx: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", help="Do not compare indexes with their tables.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Build the full-text index again first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check integrity, schema, references, search index and file modes; exit code 74 if anything is wrong."""
    from atom_saas_sync.store import maintenance

    with _open(ctx, existing=True, read_only=not repair) as database:
        if repair:
            maintenance.repair(database)
        findings = maintenance.check(database, quick=quick)
    if as_json:
        rows = [{"check": each.check, "message": each.message, "hint": each.hint} for each in findings]
        print_json({"success": not findings, "database": str(database.path), "findings": rows, "total": len(rows)})
    elif findings:
        from rich.table import Table

        table = Table("Check", "Finding", "What to do")
        for each in findings:
            table.add_row(each.check, each.message, each.hint)
        console(whole_lines=True).print(table)
    else:
        typer.echo(f"{database.path}: no findings")
    if findings:
        raise typer.Exit(DatabaseError.exit_code)


@app.command()
def backup(
    ctx: typer.Context,
    target: Annotated[Path, typer.Argument(metavar="PATH", help="The file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a consistent, verified copy of the database, while others use it."""
    from atom_saas_sync.store.backup import backup as write_backup

    with _open(ctx, read_only=True) as database:
        write_backup(database.path, target, force=force)
    size = target.stat().st_size
    if as_json:
        print_json({"success": True, "backup": str(target.absolute()), "size_bytes": size})
    else:
        typer.echo(f"{target.absolute()}: {size} bytes")


def _open(ctx: typer.Context, *, existing: bool = False, read_only: bool = False) -> Database:
    """Open the configured database as it is, whatever its version; a missing one is an error if it is to exist."""
    from atom_saas_sync.cli.runtime import load
    from atom_saas_sync.store.database import Database

    path = load(ctx.obj).database_path
    if existing and not read_only:
        Database.open(path, migrate=False, read_only=True).close()
    return Database.open(path, migrate=False, read_only=read_only)


def _report_change(database: Database, verb: str, change: Change, *, as_json: bool) -> None:
    from atom_saas_sync.store import migrations

    revision = migrations.current(database)
    if as_json:
        backup = str(change.backup) if change.backup else None
        print_json({"success": True, verb: list(change.migrations), "current": revision, "backup": backup})
        return
    for name in change.migrations:
        typer.echo(f"{verb.replace('_', ' ')}: {name}")
    if change.backup:
        typer.echo(f"the state before is kept in {change.backup}")
    typer.echo(f"{database.path} is at {revision or migrations.BASE}{'' if change.migrations else ': nothing to do'}")
