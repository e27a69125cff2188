"""`sync skills`, `sync categories`, `sync ratings`, `sync all`: one sync each."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atom_saas_sync.cli.metrics import metrics_afterwards
from atom_saas_sync.cli.output import GlobalOptions, print_json
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.cli.run_context import RunContext, RunSkipped, run_context, session_for
from atom_saas_sync.cli.sync_report import (
    all_document,
    finish,
    print_error,
    print_ratings,
    print_report,
    print_worst,
    rating_document,
)
from atom_saas_sync.errors import UsageError
from atom_saas_sync.model import (
    STRATEGIES,
    CatalogueCounts,
    RatingCounts,
    RatingReport,
    RunReport,
)

if TYPE_CHECKING:
    from atom_saas_sync.core.deletions import MaxDelete
    from atom_saas_sync.usecases.ports import Progress

app = typer.Typer(help="Synchronise with the marketplace.", no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and write nothing.")]
_StrategyOption = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        metavar="STRATEGY",
        help="remote_wins, local_wins, merge or manual [env: ATOM_SAAS_CONFLICT_STRATEGY].",
    ),
]
_MaxDeleteOption = Annotated[
    str | None,
    typer.Option(
        "--max-delete", metavar="N|P%", help="Refuse to delete more skills than this. Default: 25%, at least 10."
    ),
]
_Force = Annotated[bool, typer.Option("--force", help="Ignore stored validators and read everything again.")]
_Scheduled = Annotated[
    bool, typer.Option("--scheduled", help="Started by a timer: does nothing unless ENABLE_SCHEDULER is true.")
]
_Wait = Annotated[
    float, typer.Option("--wait", min=0, metavar="SECONDS", help="Wait up to SECONDS for another run to finish.")
]
_Deadline = Annotated[
    float | None, typer.Option("--deadline", min=0, metavar="SECONDS", help="Stop cleanly after SECONDS.")
]
_FailOnConflict = Annotated[bool, typer.Option("--fail-on-conflict", help="Exit with 4 if conflicts are open.")]
_FailOnHeld = Annotated[bool, typer.Option("--fail-on-held", help="Exit with 4 if updates are waiting.")]
_Adopt = Annotated[
    bool, typer.Option("--adopt", help="First sync only: admit everything that the marketplace has, in your name.")
]
_StartedBy = Annotated[
    str | None, typer.Option("--started-by", hidden=True, help="The name to record in the audit trail.")
]
_Textfile = Annotated[
    Path | None, typer.Option("--textfile", metavar="FILE", help="Write the metrics to FILE afterwards.")
]
# After these, a second run would fail the same way.
_ENDS_ALL = {"auth", "interrupted", "deadline", "rate_limited"}
_NoCategories = Annotated[bool, typer.Option("--no-categories", help="Skip the categories.")]


@app.command()
@paged
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
    fail_on_held: _FailOnHeld = False,
    adopt: _Adopt = False,
    no_categories: _NoCategories = False,
    textfile: _Textfile = None,
    started_by: _StartedBy = None,
) -> None:
    """Synchronise categories and skills."""
    with metrics_afterwards(ctx.obj, textfile):
        report = _pull(
            ctx.obj,
            run_context(deadline, scheduled=scheduled, started_by=started_by, wait=wait),
            categories=not no_categories,
            dry_run=dry_run,
            strategy=strategy,
            max_delete=max_delete,
            force=force,
            fail_on_conflict=fail_on_conflict,
            fail_on_held=fail_on_held,
            adopt=adopt,
            show_progress=not as_json,
        )
        finish(report, as_json=as_json)


@app.command()
@paged
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
            run_context(deadline, scheduled=scheduled, started_by=started_by, wait=wait),
            skills=False,
            dry_run=dry_run,
            force=force,
            show_progress=False,
        )
        finish(report, as_json=as_json)


@app.command()
@paged
def ratings(
    ctx: typer.Context,
    as_json: _Json = False,
    dry_run: _DryRun = False,
    everything: Annotated[bool, typer.Option("--all", help="Send every rating again.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also send failed ratings that are not due or need a manual retry.")
    ] = False,
    scheduled: _Scheduled = False,
    wait: _Wait = 0,
    deadline: _Deadline = None,
    textfile: _Textfile = None,
    started_by: _StartedBy = None,
) -> None:
    """Send pending ratings, each exactly once, and fetch newer ones from the marketplace."""
    with metrics_afterwards(ctx.obj, textfile):
        report = _rate(
            ctx.obj,
            run_context(deadline, scheduled=scheduled, started_by=started_by, wait=wait),
            everything=everything,
            retry_failed=retry_failed,
            dry_run=dry_run,
            show_progress=not as_json,
        )
        if as_json:
            print_json(rating_document(report))
        else:
            print_ratings(report)
        print_error(report)
        raise typer.Exit(report.exit_code)


@app.command("all")
@paged
def everything(
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
    fail_on_held: _FailOnHeld = False,
    adopt: _Adopt = False,
    textfile: _Textfile = None,
    started_by: _StartedBy = None,
) -> None:
    """Synchronise skills and categories, then ratings."""
    when = run_context(deadline, scheduled=scheduled, started_by=started_by, wait=wait)
    with metrics_afterwards(ctx.obj, textfile):
        pulled = _pull(
            ctx.obj,
            when,
            dry_run=dry_run,
            strategy=strategy,
            max_delete=max_delete,
            force=force,
            fail_on_conflict=fail_on_conflict,
            fail_on_held=fail_on_held,
            adopt=adopt,
            show_progress=not as_json,
        )
        if pulled.error is not None and pulled.error.type in _ENDS_ALL:
            reasons = (pulled.error.type,)
            rated = RatingReport(
                run_id=None, kind="ratings", status="skipped", exit_code=0, counts=RatingCounts(), reasons=reasons
            )
        else:
            rated = _rate(ctx.obj, when._replace(names_host=False), dry_run=dry_run, show_progress=not as_json)
        if as_json:
            print_json(all_document(pulled, rated))
        else:
            print_report(pulled)
            print_ratings(rated)
        raise typer.Exit(print_worst(pulled, rated))


def _pull(
    options: GlobalOptions,
    context: RunContext,
    *,
    skills: bool = True,
    categories: bool = True,
    dry_run: bool = False,
    strategy: str | None = None,
    max_delete: str | None = None,
    force: bool = False,
    fail_on_conflict: bool = False,
    fail_on_held: bool = False,
    adopt: bool = False,
    show_progress: bool,
) -> RunReport:
    """Make one polling sync."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.cli.session import catalogue_pull
    from atom_saas_sync.usecases.pull_catalogue import PullOptions

    kind = "skills" if skills else "categories"
    chosen, limit = _strategy(strategy), _max_delete(max_delete)
    try:
        with (
            session_for(options, context, kind, lock="skills", dry_run=dry_run) as session,
            _progress_bar("skills", wanted=show_progress and not options.quiet) as progress,
        ):
            asked = PullOptions(
                strategy=chosen or session.settings.conflict_strategy,
                max_delete=limit,
                page_size=session.settings.batch_size,
                skills=skills,
                categories=categories,
                dry_run=dry_run,
                force=force,
                fail_on_conflict=fail_on_conflict,
                fail_on_held=fail_on_held,
                adopting=runtime.current_user() if adopt else None,
                min_free_disk_gb=session.settings.min_free_disk_gb,
            )
            return catalogue_pull(session, asked, context.clock, progress=progress).run(started_by=session.started_by)
    except RunSkipped as end:
        return RunReport(
            run_id=None,
            kind=kind,
            counts=CatalogueCounts(),
            status=end.status,
            exit_code=end.exit_code,
            reasons=(end.reason,),
            error=end.error,
        )


def _rate(
    options: GlobalOptions,
    context: RunContext,
    *,
    dry_run: bool = False,
    everything: bool = False,
    retry_failed: bool = False,
    show_progress: bool,
) -> RatingReport:
    """Synchronise the ratings once."""
    from atom_saas_sync.cli.session import rating_sync
    from atom_saas_sync.usecases.sync_ratings import RatingOptions

    try:
        with (
            session_for(options, context, "ratings", lock="ratings", dry_run=dry_run) as session,
            _progress_bar("ratings", wanted=show_progress and not options.quiet) as progress,
        ):
            asked = RatingOptions(dry_run=dry_run, everything=everything, retry_failed=retry_failed)
            return rating_sync(session, asked, context.clock, progress=progress).run(started_by=session.started_by)
    except RunSkipped as end:
        return RatingReport(
            run_id=None,
            kind="ratings",
            counts=RatingCounts(),
            status=end.status,
            exit_code=end.exit_code,
            reasons=(end.reason,),
            error=end.error,
        )


def _strategy(text: str | None) -> Any:  # noqa: ANN401 - a Strategy, or None
    if text is not None and text not in STRATEGIES:
        raise UsageError(f"invalid --strategy {text!r}: expected {', '.join(STRATEGIES)}")
    return text


def _max_delete(text: str | None) -> MaxDelete:
    from atom_saas_sync.core.deletions import MaxDelete

    if text is None:
        return MaxDelete()
    if re.fullmatch(r"\d{1,9}", text):
        return MaxDelete(number=int(text))
    if re.fullmatch(r"\d{1,3}(\.\d+)?%", text) and float(text[:-1]) <= 100:  # noqa: PLR2004 - per cent
        return MaxDelete(share=float(text[:-1]) / 100)
    raise UsageError(f"invalid --max-delete {text!r}: expected a number (20) or a share (5%)")


@contextmanager
def _progress_bar(what: str, *, wanted: bool) -> Iterator[Progress | None]:
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    from atom_saas_sync.cli.progress import progress_bar

    with progress_bar(what) as progress:
        yield progress
