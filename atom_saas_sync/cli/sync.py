"""`sync skills`, `sync categories`: one polling sync each."""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atom_saas_sync.cli.metrics import metrics_afterwards
from atom_saas_sync.cli.output import GlobalOptions, console, print_json
from atom_saas_sync.errors import AtomSyncError, Locked, UsageError
from atom_saas_sync.model import STRATEGIES, CatalogueCounts, ErrorInfo, RunReport

if TYPE_CHECKING:
    from atom_saas_sync.config import Settings
    from atom_saas_sync.usecases.pull_catalogue import MaxDelete, PullOptions

app = typer.Typer(help="Synchronise with the marketplace.", no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and write nothing.")]
_StrategyOption = Annotated[
    str | None, typer.Option("--strategy", metavar="S", help="remote_wins, local_wins, merge or manual.")
]
_MaxDeleteOption = Annotated[
    str | None,
    typer.Option("--max-delete", metavar="N|P%", help="Refuse more deletions than that. Default: 25%, at least 10."),
]
_Force = Annotated[bool, typer.Option("--force", help="Ignore stored validators and read everything again.")]
_Scheduled = Annotated[
    bool, typer.Option("--scheduled", help="Started by a timer: does nothing unless ENABLE_SCHEDULER is true.")
]
_Wait = Annotated[float, typer.Option("--wait", min=0, metavar="SECONDS", help="Wait so long for another run to end.")]
_Deadline = Annotated[
    float | None, typer.Option("--deadline", min=0, metavar="SECONDS", help="End cleanly after that time.")
]
_FailOnConflict = Annotated[bool, typer.Option("--fail-on-conflict", help="Exit with 4 if conflicts are open.")]
_StartedBy = Annotated[
    str | None, typer.Option("--started-by", hidden=True, help="Who is to stand in the audit trail.")
]
_Textfile = Annotated[
    Path | None, typer.Option("--textfile", metavar="PATH", help="Write the metrics to this file afterwards.")
]
_NoCategories = Annotated[bool, typer.Option("--no-categories", help="Leave the categories out.")]


@app.command()
def skills(
    ctx: typer.Context,
    as_json: _Json = False,
    dry_run: _DryRun = False,
    strategy: _StrategyOption = None,
    max_delete: _MaxDeleteOption = None,
    force: _Force = False,
    scheduled: _Scheduled = False,
    wait: _Wait = 0,
    deadline: _Deadline = None,
    fail_on_conflict: _FailOnConflict = False,
    no_categories: _NoCategories = False,
    textfile: _Textfile = None,
    started_by: _StartedBy = None,
) -> None:
    """Synchronise categories and skills."""
    with metrics_afterwards(ctx.obj, textfile):
        report = _pull(
            ctx.obj,
            scheduled=scheduled,
            started_by=started_by,
            wait=wait,
            deadline=deadline,
            categories=not no_categories,
            dry_run=dry_run,
            strategy=strategy,
            max_delete=max_delete,
            force=force,
            fail_on_conflict=fail_on_conflict,
            show_progress=not as_json,
        )
    _finish(report, as_json=as_json)


@app.command()
def categories(
    ctx: typer.Context,
    as_json: _Json = False,
    dry_run: _DryRun = False,
    force: _Force = False,
    scheduled: _Scheduled = False,
    wait: _Wait = 0,
    deadline: _Deadline = None,
    textfile: _Textfile = None,
    started_by: _StartedBy = None,
) -> None:
    """Synchronise the categories alone."""
    with metrics_afterwards(ctx.obj, textfile):
        report = _pull(
            ctx.obj,
            scheduled=scheduled,
            started_by=started_by,
            wait=wait,
            deadline=deadline,
            skills=False,
            dry_run=dry_run,
            force=force,
            show_progress=False,
        )
    _finish(report, as_json=as_json)


def _pull(
    options: GlobalOptions,
    *,
    scheduled: bool,
    started_by: str | None,
    wait: float,
    deadline: float | None,
    strategy: str | None = None,
    max_delete: str | None = None,
    show_progress: bool,
    **flags: Any,  # noqa: ANN401 - the fields of PullOptions
) -> RunReport:
    """Compose the edges, take the lock, run."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.config import require_token
    from atom_saas_sync.usecases.pull_catalogue import PullOptions

    settings = runtime.load(options)
    pull_options = PullOptions(
        strategy=_strategy(strategy) or settings.conflict_strategy,
        max_delete=_max_delete(max_delete),
        page_size=settings.batch_size,
        **flags,
    )
    kind = "skills" if pull_options.skills else "categories"
    if not settings.enabled:
        return _skipped(kind, "disabled", "ATOM_SAAS_ENABLED is false: local only, nothing to do")
    require_token(settings)
    if scheduled and not settings.scheduler_enabled:
        return _skipped(kind, "scheduler_off", "started by a timer, but ENABLE_SCHEDULER is not true: nothing done")
    return _run(
        settings,
        pull_options,
        kind,
        scheduled=scheduled,
        started_by=started_by,
        wait=wait,
        deadline=deadline,
        bar=show_progress,
    )


def _run(
    settings: Settings,
    pull_options: PullOptions,
    kind: str,
    *,
    scheduled: bool,
    started_by: str | None,
    wait: float,
    deadline: float | None,
    bar: bool,
) -> RunReport:
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.logs import set_run_id
    from atom_saas_sync.store.catalogue import Catalogue
    from atom_saas_sync.store.database import Database
    from atom_saas_sync.store.lock import run_lock
    from atom_saas_sync.store.requests import RequestBudget
    from atom_saas_sync.store.runs import Runs
    from atom_saas_sync.times import format_time
    from atom_saas_sync.usecases.pull_catalogue import CataloguePull

    clock = runtime.StopSignals(deadline)
    with ExitStack() as stack:
        database = stack.enter_context(Database.open(settings.database_path))
        runs = Runs(database)
        if scheduled and runs.scheduling_stopped():
            return _skipped(kind, "stopped", "the emergency stop is on (`atom-sync jobs start` ends it): nothing done")
        stack.enter_context(clock.caught())
        try:
            stack.enter_context(
                run_lock(
                    settings.database_path,
                    "skills",
                    wait_seconds=wait,
                    command=f"sync {kind}",
                    now=lambda: format_time(clock.now()),
                    sleep=clock.sleep,
                )
            )
        except Locked as error:
            runs.count_locked_out(kind)
            return _locked_out(kind, error)
        budget = RequestBudget(
            settings.database_path,
            per_minute=settings.rate_limit_per_minute,
            per_hour=settings.rate_limit_per_hour,
        )
        stack.callback(budget.close)
        client = stack.enter_context(runtime.marketplace_client(settings, budget, clock))
        progress = stack.enter_context(_progress_bar()) if bar and sys.stderr.isatty() else None
        pull = CataloguePull(
            marketplace=client,
            catalogue=Catalogue(database, history_versions=settings.history_versions),
            runs=runs,
            clock=clock,
            options=pull_options,
            check=clock.check,
            progress=progress,
            on_start=set_run_id,
        )
        return pull.run(started_by=started_by or ("timer" if scheduled else runtime.person()))


def _strategy(text: str | None) -> Any:  # noqa: ANN401 - a Strategy, or None
    if text is not None and text not in STRATEGIES:
        raise UsageError(f"--strategy {text!r} does not exist; it takes {', '.join(STRATEGIES)}")
    return text


def _max_delete(text: str | None) -> MaxDelete:
    from atom_saas_sync.usecases.pull_catalogue import MaxDelete

    if text is None:
        return MaxDelete()
    if re.fullmatch(r"\d{1,9}", text):
        return MaxDelete(number=int(text))
    if re.fullmatch(r"\d{1,3}(\.\d+)?%", text) and float(text[:-1]) <= 100:  # noqa: PLR2004 - per cent
        return MaxDelete(share=float(text[:-1]) / 100)
    raise UsageError(f"--max-delete {text!r} will not do; it takes a number (20) or a share (5%)")


def _skipped(kind: str, reason: str, why: str) -> RunReport:
    sys.stderr.write(f"{why}\n")
    return RunReport(run_id=None, kind=kind, status="skipped", exit_code=0, counts=CatalogueCounts(), reasons=(reason,))


def _locked_out(kind: str, error: AtomSyncError) -> RunReport:
    return RunReport(
        run_id=None,
        kind=kind,
        status="locked",
        exit_code=error.exit_code,
        counts=CatalogueCounts(),
        reasons=("locked",),
        error=ErrorInfo(error.kind, error.message, error.hint),
    )


def _finish(report: RunReport, *, as_json: bool) -> None:
    if as_json:
        print_json(report_document(report))
    else:
        _print_report(report)
    if report.error is not None:
        sys.stderr.write(f"atom-sync: {report.error.message}\n")
        if report.error.hint:
            sys.stderr.write(f"  → {report.error.hint}\n")
    raise typer.Exit(report.exit_code)


def report_document(report: RunReport) -> dict[str, Any]:
    """Return the JSON of `sync skills` (cli.md); every run has the full set of keys."""
    counts = report.counts
    return {
        "success": report.status in {"success", "skipped"} and report.exit_code == 0,
        "run_id": report.run_id,
        "status": report.status,
        "dry_run": report.dry_run,
        "skills_synced": counts.skills_synced,
        "categories_synced": counts.categories_synced,
        "changed": bool(counts.added or counts.updated or counts.deleted or counts.categories_changed),
        "complete": report.complete,
        "added": counts.added,
        "updated": counts.updated,
        "unchanged": counts.unchanged,
        "deleted": counts.deleted,
        "invalid": counts.invalid,
        "conflicts": {
            "detected": counts.conflicts_detected,
            "resolved": counts.conflicts_resolved,
            "manual": counts.conflicts_manual,
        },
        "requests": counts.requests,
        "not_modified": counts.not_modified,
        "bytes_received": counts.bytes_received,
        "duration_seconds": round(report.duration_seconds, 3),
        "reasons": list(report.reasons),
        "error": _error(report.error),
        **({"plan": [_planned(action) for action in report.plan]} if report.dry_run else {}),
    }


def _error(error: ErrorInfo | None) -> dict[str, Any] | None:
    return None if error is None else {"type": error.type, "message": error.message, "hint": error.hint}


def _planned(action: Any) -> dict[str, Any]:  # noqa: ANN401 - an Action; its module is not worth importing for that
    entry = action.conflict
    return {
        "skill_id": action.skill_id,
        "outcome": action.outcome.value,
        "cache": action.cache.value,
        "conflict": None
        if entry is None
        else {
            "type": entry.conflict.type,
            "severity": entry.conflict.severity,
            "resolution": entry.resolution.strategy if entry.resolution else None,
        },
    }


def _print_report(report: RunReport) -> None:
    if report.status in {"skipped", "locked"}:
        return
    counts = report.counts
    out = console()
    if report.dry_run:
        for action in report.plan:
            line = _planned(action)
            conflict = line["conflict"]
            note = f"  ({conflict['type']}, {conflict['severity']})" if conflict else ""
            out.print(f"would be {line['outcome']}: {_plain(action.skill_id)}{note}", markup=False)
    verb = "Dry run" if report.dry_run else "Sync completed" if report.status == "success" else f"Sync {report.status}"
    out.print(
        f"{verb}: {counts.skills_synced} skills, {counts.categories_synced} categories "
        f"in {report.duration_seconds:.1f} s",
        markup=False,
    )
    out.print(
        f"  {counts.added} added, {counts.updated} updated, {counts.unchanged} unchanged, {counts.deleted} deleted"
        + (f", {counts.invalid} invalid" if counts.invalid else ""),
        markup=False,
    )
    if counts.conflicts_detected or counts.conflicts_manual:
        out.print(
            f"  conflicts: {counts.conflicts_detected} detected, {counts.conflicts_resolved} resolved, "
            f"{counts.conflicts_manual} waiting",
            markup=False,
        )
    out.print(
        f"  {counts.requests} requests, {counts.not_modified} not modified, {_size(counts.bytes_received)} received",
        markup=False,
    )
    if report.reasons:
        out.print(f"  because: {', '.join(report.reasons)}", markup=False)


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else "�" for character in text)


def _size(number: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:  # noqa: PLR2004 - the step between units
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def _progress_bar() -> Any:  # noqa: ANN401 - a context manager around a Progress
    from atom_saas_sync.cli.progress import progress_bar

    return progress_bar()
