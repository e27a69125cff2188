"""`runs`: the audit trail of runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.output import GlobalOptions, age, counted, note, print_json
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.cli.tables import Column, print_facts, print_table
from atom_saas_sync.errors import NotFound, UsageError

if TYPE_CHECKING:
    from atom_saas_sync.core.run_log import LoggedRun
    from atom_saas_sync.usecases.ports import StoredRunHistory

app = typer.Typer(help="List and show past and current runs.", no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command("list")
@paged
def list_runs(
    ctx: typer.Context,
    kind: Annotated[
        str | None,
        typer.Option("--kind", metavar="KIND", help="skills, categories, ratings, all, watch, purge or backup."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=0, max=10**9, metavar="N", help="Maximum number of rows; 0: no limit.")
    ] = 30,
    as_json: _Json = False,
) -> None:
    """List runs, the newest first."""
    from atom_saas_sync.core.health import elapsed
    from atom_saas_sync.core.run_log import RUN_KINDS, run_document

    if kind is not None and kind not in RUN_KINDS:
        raise UsageError(f"invalid --kind {printable(kind)!r}: expected {', '.join(RUN_KINDS)}")
    wanted = None if kind == "all" else kind
    with _history(ctx.obj) as history:
        runs, total = history.list_runs(wanted, limit=limit or None), history.count(wanted)
    if as_json:
        print_json({"runs": [run_document(run) for run in runs], "total": total})
        return
    print_table(
        [
            Column("id", right=True),
            Column("kind"),
            Column("started"),
            Column("took", drop=3, right=True),
            Column("result"),
            Column("by", drop=4, cut=True),
            Column("what", drop=2, cut=True),
        ],
        [
            [
                str(run.id),
                run.kind,
                age(run.started_at),
                "" if run.duration_seconds is None else elapsed(run.duration_seconds),
                run.status,
                run.started_by,
                _outcome(run),
            ]
            for run in runs
        ],
    )
    more = f"; {total - len(runs):,} more: see --limit" if total > len(runs) else ""
    note(f"{counted(total, 'run')}{more}")


@app.command()
@paged
def show(
    ctx: typer.Context,
    run_id: Annotated[int, typer.Argument(metavar="ID", max=2**63 - 1, help="The run's number.")],
    as_json: _Json = False,
) -> None:
    """Show one run: when, who, how long, the result, its counts and its proof of completeness."""
    from atom_saas_sync.core.run_log import run_document

    with _history(ctx.obj) as history:
        run = history.run(run_id)
    if run is None:
        raise NotFound(f"there is no run {run_id}", hint="`atom-sync runs list` shows the numbers")
    if as_json:
        print_json({"run": run_document(run)})
    else:
        print_facts(_facts(run))


def _facts(run: LoggedRun) -> Iterator[tuple[str, str]]:
    from atom_saas_sync.core.health import elapsed
    from atom_saas_sync.times import time_text

    yield "run", f"{run.id} ({run.kind})"
    yield "result", run.status
    yield "started", f"{time_text(run.started_at) or '?'} by {run.started_by}"
    if run.ended_at is not None:
        took = "" if run.duration_seconds is None else f", after {elapsed(run.duration_seconds)}"
        yield "ended", f"{time_text(run.ended_at)}{took}"
    if run.reasons:
        yield "reasons", ", ".join(run.reasons)
    if run.error is not None:
        yield "error", f"{run.error.message} ({run.error.type})"
    yield "counts", _figures(run.counts) or "-"
    if proof := _figures(run.proof or {}):
        yield "proof", proof


def _figures(values: Mapping[str, object]) -> str:
    """Return all non-zero figures, one per line."""
    from atom_saas_sync.core.health import size

    lines = []
    for name, value in values.items():
        if not isinstance(value, int | float) or not value:
            continue
        words = " ".join(word for word in name.split("_") if word != "bytes")
        lines.append(f"{words}: {size(value) if 'bytes' in name else f'{value:,}'}")
    return "\n".join(lines)


def _outcome(run: LoggedRun) -> str:
    """Return what a run did, and why it ended early."""
    from atom_saas_sync.core.run_log import summary

    if run.error is not None:
        return run.error.message
    return "; ".join(filter(None, (summary(run.kind, run.counts), ", ".join(run.reasons))))


@contextmanager
def _history(options: GlobalOptions) -> Iterator[StoredRunHistory]:
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.store import open_store

    with open_store(runtime.load(options).database, create=False) as store:
        yield store.run_history()
