"""`atom-sync db`: migrations, checks and backups of the database."""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.asking import confirm_loss
from atom_saas_sync.cli.db_backups import backup, compact, copy, restore
from atom_saas_sync.cli.output import GlobalOptions, counted, print_json, say
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.cli.tables import Column, print_facts, print_table
from atom_saas_sync.errors import AtomSyncError, ConfigError, DatabaseError, UsageError
from atom_saas_sync.model import CatalogueCounts, Outcome, RunReport

if TYPE_CHECKING:
    from atom_saas_sync.cli.runtime import RunClock
    from atom_saas_sync.config import Settings
    from atom_saas_sync.model.upkeep import Change
    from atom_saas_sync.usecases.ports import Store

app = typer.Typer(help="Migrate, check, back up and restore the database.", no_args_is_help=True)

_BASE = "base"  # the state before the first migration
_NAMED = 10  # skills of each kind in the preview of a rebind

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def upgrade(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(metavar="[REVISION]", help="The last migration to apply, or head.")] = "head",
    as_json: AsJson = False,
) -> None:
    """Apply pending migrations; an older database is copied first."""
    with _open(ctx) as store:
        change = store.schema().upgrade(target)
        _report_change(store, "applied", change, as_json=as_json)


# A target such as -1 is not an option.
@app.command(context_settings={"ignore_unknown_options": True})
def downgrade(
    ctx: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="[REVISION]", help="The migration to go back to, base for none, or -N for N steps.")
    ] = "-1",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before data is dropped.")] = False,
    as_json: AsJson = False,
) -> None:
    """Revert migrations, newest first; the database is copied first."""
    from contextlib import ExitStack

    from atom_saas_sync.cli import runtime
    from atom_saas_sync.cli.session import all_runs_locked

    where = int(target) if re.fullmatch(r"-\d+", target) else target
    with _open(ctx, existing=True) as store, ExitStack() as held:
        schema = store.schema()
        if lost := schema.loss(where):  # otherwise there is nothing that a run could use, not even its lock
            held.enter_context(all_runs_locked(store, command="db downgrade", clock=runtime.RunClock()))
        confirm_loss(
            [f"{what} ({counted(number, 'row')})" for what, number in lost.items()],
            what="data in the database",
            question="Drop it? A copy of the database is kept beside it.",
            yes=yes,
            as_json=as_json,
        )
        _report_change(store, "taken_back", schema.downgrade(where), as_json=as_json)


@app.command()
@paged
def current(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show the latest migration that the database has."""
    with _open(ctx, read_only=True) as store:
        schema = store.schema()
        revision, pending, origin = schema.current(), schema.pending(), schema.origin()
    if as_json:
        print_json({"current": revision, "head": not pending, "pending": pending, "origin": origin})
    else:
        made = ", made by the Atom backend" if origin == "backend" else ""
        say(f"{revision or 'base'}{'' if pending else ' (head)'}{made}")


@app.command()
@paged
def history(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List all migrations, and when each was applied."""
    with _open(ctx, read_only=True) as store:
        entries = store.schema().history()
    if as_json:
        rows = [{"name": name, "applied_at": applied_at} for name, applied_at in entries]
        print_json({"migrations": rows, "total": len(rows)})
        return
    columns = [Column("migration"), Column("applied at (UTC)")]
    print_table(columns, [(name, applied_at or "pending") for name, applied_at in entries])


@app.command()
@paged
def check(
    ctx: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", help="Do not compare indexes with their tables.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Rebuild the full-text index first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check integrity, schema, references, search index and file modes; exit code 74 if anything is wrong."""
    from atom_saas_sync.cli.runtime import load, signer_of
    from atom_saas_sync.store import open_store

    settings = load(ctx.obj)
    with open_store(settings.database, migrate=False, read_only=not repair, create=False) as store:
        maintenance = store.maintenance()
        if repair:
            maintenance.repair()
        findings = maintenance.check(quick=quick, signer=signer_of(settings))
        origin = store.schema().origin()
    wrong = any(each.wrong for each in findings)
    if as_json:
        rows = [{"check": each.check, "message": each.message, "hint": each.hint} for each in findings]
        document = {"success": not wrong, "database": str(store.location), "origin": origin}
        print_json({**document, "findings": rows, "total": len(rows)})
    elif findings:
        print_facts((each.check, each.message + (f"\n→ {each.hint}" if each.hint else "")) for each in findings)
    else:
        say(f"{store.location}: no findings")
    if wrong:
        raise typer.Exit(DatabaseError.exit_code)


app.command()(backup)
app.command()(restore)
app.command()(copy)
app.command()(compact)


@app.command()
def rebind(
    ctx: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="The base URL of its API, as ATOM_SAAS_API_URL takes it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tie the database to another marketplace: show what its next sync would add and delete, then ask."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.core.marketplace import marketplace_of
    from atom_saas_sync.store import open_store

    settings = _settings_for(ctx.obj, url)
    wanted = marketplace_of(settings.api_url)
    clock = runtime.RunClock()
    with ExitStack() as stack:
        _open(ctx, existing=True, read_only=True).close()
        store = stack.enter_context(open_store(settings.database))
        former = store.runs().marketplace()
        if former == wanted:
            _report_rebind(None, former=former, wanted=wanted, as_json=as_json)
            return
        preview = _preview_rebind(settings, store, clock, stack)
        if not as_json:
            _print_rebind(preview, strategy=settings.conflict_strategy, former=former, wanted=wanted)
        if not yes:
            if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
                raise UsageError("nothing was changed: this needs a confirmation", hint="pass --yes to rebind")
            typer.confirm("Rebind the database?", abort=True)
        deletions = preview.counts.deleted
        store.rebind(wanted, deletions=deletions, actor=runtime.current_user(), now=clock.now())
    _report_rebind(preview, former=former, wanted=wanted, as_json=as_json)


def _settings_for(options: GlobalOptions, url: str) -> Settings:
    """Return the settings with another marketplace. Raises UsageError for a URL that cannot be one."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.config import load_settings, require_token

    settings = runtime.load(options)
    if not settings.enabled:
        raise ConfigError("ATOM_SAAS_ENABLED is false: the marketplace cannot be queried", hint="set it to true")
    require_token(settings)
    sources = runtime.sources(options)
    sources["environ"] = {**sources["environ"], "ATOM_SAAS_API_URL": url}
    try:
        return load_settings(**sources)
    except ConfigError as error:
        raise UsageError(
            error.message.replace("ATOM_SAAS_API_URL", "URL").replace(" (from environment)", "")
        ) from error


def _preview_rebind(settings: Settings, store: Store, clock: RunClock, stack: ExitStack) -> RunReport:
    """Return what the next sync would do; other runs are locked out until the stack is closed.

    Raises the error that prevented reading the whole list, without which the deletions are unknown.
    """
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.cli.session import all_runs_locked, budget_of
    from atom_saas_sync.usecases.pull_catalogue import CataloguePull, PullOptions

    stack.enter_context(all_runs_locked(store, command="db rebind", clock=clock))
    budget = stack.enter_context(budget_of(settings))
    pull = CataloguePull(
        marketplace=stack.enter_context(runtime.marketplace_client(settings, budget, clock)),
        catalogue=store.catalogue(history_versions=settings.history_versions),
        runs=store.runs(),
        clock=clock,
        options=PullOptions(
            strategy=settings.conflict_strategy,
            page_size=settings.batch_size,
            categories=False,
            dry_run=True,
            force=True,
            confirm_deletions=False,
        ),
        check=clock.check,
        connections=settings.connections,
    )
    with clock.caught():
        report = pull.run(started_by=runtime.current_user())
    if report.complete:
        return report
    told = report.error
    failure = AtomSyncError(
        "nothing was changed: the list of skills could not be read completely" + (f": {told.message}" if told else ""),
        hint=told.hint if told else "try again later",
    )
    failure.exit_code = report.exit_code
    failure.kind = told.type if told else failure.kind
    raise failure


def _print_rebind(preview: RunReport, *, strategy: str, former: str | None, wanted: str) -> None:
    counts = preview.counts
    say(f"The database belongs to {former or 'no marketplace yet'}.")
    say(
        f"The next sync from {wanted} would add {counted(counts.added, 'skill')}, update {counts.updated:,} and delete "
        f"{counts.deleted:,}, with {counted(counts.conflicts_detected, 'conflict')}:"
    )
    for outcome in (Outcome.DELETED, Outcome.ADDED):
        named = [printable(action.skill_id) for action in preview.plan if action.outcome is outcome]
        for name in named[:_NAMED]:
            say(f"  {outcome.value}: {name}")
        if len(named) > _NAMED:
            say(f"  {outcome.value}: … and {len(named) - _NAMED:,} more")
    say(
        f"Local edits and open conflicts are treated as in every sync ({strategy}). Ratings stay; those that were sent "
        "before are sent again only by `atom-sync sync ratings --all`."
    )


def _report_rebind(preview: RunReport | None, *, former: str | None, wanted: str, as_json: bool) -> None:
    counts = CatalogueCounts() if preview is None else preview.counts
    if as_json:
        print_json(
            {
                "changed": preview is not None,
                "marketplace": wanted,
                "former": former,
                "would_add": counts.added,
                "would_update": counts.updated,
                "would_delete": counts.deleted,
                "would_conflict": counts.conflicts_detected,
            }
        )
    elif preview is None:
        say(f"the database belongs to {wanted} already: nothing to do")
    else:
        say(f"the database belongs to {wanted} now; `atom-sync sync skills` reads its skills")


def _open(ctx: typer.Context, *, existing: bool = False, read_only: bool = False) -> Store:
    """Open the configured database without migrating it; a missing one is an error if it must exist."""
    from atom_saas_sync.cli.runtime import load
    from atom_saas_sync.store import open_store

    return open_store(load(ctx.obj).database, migrate=False, read_only=read_only, create=not existing)


def _report_change(store: Store, verb: str, change: Change, *, as_json: bool) -> None:
    revision = store.schema().current()
    if as_json:
        backup = str(change.backup) if change.backup else None
        adopted = {"adopted": list(change.adopted)} if change.adopted else {}
        print_json({verb: list(change.migrations), "current": revision, "backup": backup, **adopted})
        return
    for name in change.migrations:
        say(f"{'reverted' if verb == 'taken_back' else verb}: {name}")
    if change.adopted and verb == "taken_back":
        say(f"given back to the Atom backend: {', '.join(change.adopted)}")
    if change.backup:
        say(f"the previous state is kept in {change.backup}")
    say(f"{store.location} is at {revision or _BASE}{'' if change.migrations else ': nothing to do'}")
