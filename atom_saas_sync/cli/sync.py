"""`sync skills`, `sync categories`, `sync ratings`, `sync all`: one sync each."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atom_saas_sync.cli.metrics import metrics_afterwards
from atom_saas_sync.cli.output import GlobalOptions, complain, counted, note, print_json, print_some, say
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.errors import AtomSyncError, Locked, UsageError
from atom_saas_sync.model import (
    STRATEGIES,
    Action,
    CatalogueCounts,
    ErrorInfo,
    Outcome,
    RatingCounts,
    RatingReport,
    RunReport,
    RunStatus,
)

if TYPE_CHECKING:
    from datetime import datetime

    from atom_saas_sync.cli.runtime import StopSignals
    from atom_saas_sync.cli.session import Session
    from atom_saas_sync.config import Settings
    from atom_saas_sync.store.runs import Runs
    from atom_saas_sync.usecases.ports import Progress
    from atom_saas_sync.usecases.pull_catalogue import MaxDelete

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
_StartedBy = Annotated[
    str | None, typer.Option("--started-by", hidden=True, help="Who is to stand in the audit trail.")
]
_Textfile = Annotated[
    Path | None, typer.Option("--textfile", metavar="FILE", help="Write the metrics to FILE afterwards.")
]
# After these a second run would meet the same end.
# Exit codes, the worst first.
_WORST = (130, 143, 77, 78, 74, 69, 65, 75, 4, 1, 0)
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
    no_categories: _NoCategories = False,
    textfile: _Textfile = None,
    started_by: _StartedBy = None,
) -> None:
    """Synchronise categories and skills."""
    with metrics_afterwards(ctx.obj, textfile):
        report = _pull(
            ctx.obj,
            _when(deadline, scheduled=scheduled, started_by=started_by, wait=wait),
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
            _when(deadline, scheduled=scheduled, started_by=started_by, wait=wait),
            skills=False,
            dry_run=dry_run,
            force=force,
            show_progress=False,
        )
        _finish(report, as_json=as_json)


@app.command()
@paged
def ratings(
    ctx: typer.Context,
    as_json: _Json = False,
    dry_run: _DryRun = False,
    everything: Annotated[bool, typer.Option("--all", help="Send every rating again.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also failed ratings that are not due yet or need a manual retry.")
    ] = False,
    scheduled: _Scheduled = False,
    wait: _Wait = 0,
    deadline: _Deadline = None,
    textfile: _Textfile = None,
    started_by: _StartedBy = None,
) -> None:
    """Send the ratings that are pending, each exactly once, and take newer ones from the marketplace."""
    with metrics_afterwards(ctx.obj, textfile):
        report = _rate(
            ctx.obj,
            _when(deadline, scheduled=scheduled, started_by=started_by, wait=wait),
            everything=everything,
            retry_failed=retry_failed,
            dry_run=dry_run,
            show_progress=not as_json,
        )
        if as_json:
            print_json(rating_document(report))
        else:
            _print_ratings(report)
        _print_error(report)
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
    textfile: _Textfile = None,
    started_by: _StartedBy = None,
) -> None:
    """Synchronise skills and categories, then ratings."""
    when = _when(deadline, scheduled=scheduled, started_by=started_by, wait=wait)
    with metrics_afterwards(ctx.obj, textfile):
        pulled = _pull(
            ctx.obj,
            when,
            dry_run=dry_run,
            strategy=strategy,
            max_delete=max_delete,
            force=force,
            fail_on_conflict=fail_on_conflict,
            show_progress=not as_json,
        )
        if pulled.error is not None and pulled.error.type in _ENDS_ALL:
            reasons = (pulled.error.type,)
            rated = RatingReport(run_id=None, status="skipped", exit_code=0, counts=RatingCounts(), reasons=reasons)
        else:
            rated = _rate(ctx.obj, replace(when, names_host=False), dry_run=dry_run, show_progress=not as_json)
        if as_json:
            print_json(_all_document(pulled, rated))
        else:
            _print_report(pulled)
            _print_ratings(rated)
        raise typer.Exit(_print_worst(pulled, rated))


def _pull(
    options: GlobalOptions,
    when: _When,
    *,
    skills: bool = True,
    strategy: str | None = None,
    max_delete: str | None = None,
    show_progress: bool,
    **flags: Any,  # noqa: ANN401 - the other fields of PullOptions
) -> RunReport:
    """Make one polling sync."""
    from atom_saas_sync.cli.runtime import signer_of
    from atom_saas_sync.logs import set_run_id
    from atom_saas_sync.store.catalogue import Catalogue
    from atom_saas_sync.usecases.pull_catalogue import CataloguePull, PullOptions

    kind = "skills" if skills else "categories"
    chosen, limit = _strategy(strategy), _max_delete(max_delete)
    clock = when.clock
    try:
        with (
            _session(options, when, kind, lock="skills", dry_run=flags.get("dry_run", False)) as session,
            _progress_bar("skills", wanted=show_progress and not options.quiet) as progress,
        ):
            settings = session.settings
            pull = CataloguePull(
                marketplace=session.client,
                catalogue=Catalogue(
                    session.database, history_versions=settings.history_versions, signer=signer_of(settings)
                ),
                runs=session.runs,
                clock=clock,
                options=PullOptions(
                    strategy=chosen or settings.conflict_strategy,
                    max_delete=limit,
                    page_size=settings.batch_size,
                    skills=skills,
                    **flags,
                ),
                check=clock.check,
                progress=progress,
                on_start=set_run_id,
            )
            return pull.run(started_by=session.started_by)
    except _NotNow as end:
        return RunReport(run_id=None, kind=kind, counts=CatalogueCounts(), **end.fields())


def _rate(
    options: GlobalOptions,
    when: _When,
    *,
    show_progress: bool,
    **flags: Any,  # noqa: ANN401 - the fields of RatingOptions
) -> RatingReport:
    """Synchronise the ratings once."""
    from atom_saas_sync.config import require_token
    from atom_saas_sync.core.outgoing import user_hasher
    from atom_saas_sync.logs import set_run_id
    from atom_saas_sync.store.ratings import Ratings
    from atom_saas_sync.usecases.sync_ratings import RatingOptions, RatingSync

    clock = when.clock
    try:
        with (
            _session(options, when, "ratings", lock="ratings", dry_run=flags.get("dry_run", False)) as session,
            _progress_bar("ratings", wanted=show_progress and not options.quiet) as progress,
        ):
            hashed = session.settings.hash_user_ids
            sync = RatingSync(
                marketplace=session.client,
                ratings=Ratings(session.database),
                runs=session.runs,
                budget=session.budget,
                clock=clock,
                options=RatingOptions(**flags),
                check=clock.check,
                sent_user=user_hasher(require_token(session.settings).reveal()) if hashed else str,
                progress=progress,
                on_start=set_run_id,
            )
            return sync.run(started_by=session.started_by)
    except _NotNow as end:
        return RatingReport(run_id=None, counts=RatingCounts(), **end.fields())


@dataclass(frozen=True, slots=True)
class _When:
    """Who starts a run, how long it waits for the lock, and the clock with the signals and the deadline that end it."""

    scheduled: bool
    started_by: str | None
    wait: float
    clock: StopSignals
    names_host: bool = True


def _when(deadline: float | None, *, scheduled: bool, started_by: str | None, wait: float) -> _When:
    from atom_saas_sync.cli import runtime

    return _When(scheduled, started_by, wait, runtime.StopSignals(deadline))


class _NotNow(Exception):
    """There will be no run: why, in a stable word, and the error if it is one."""

    def __init__(self, status: RunStatus, reason: str, error: AtomSyncError | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.error = error

    def fields(self) -> dict[str, Any]:
        """Return what every report says of it."""
        error = self.error
        return {
            "status": self.status,
            "exit_code": error.exit_code if error else 0,
            "reasons": (self.reason,),
            "error": ErrorInfo(error.kind, error.message, error.hint) if error else None,
        }


@contextmanager
def _session(options: GlobalOptions, when: _When, kind: str, *, lock: str, dry_run: bool) -> Iterator[Session]:
    """Compose the edges and take the lock. Raises _NotNow if there is to be no run."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.cli.session import AUTO_SYNC_OFF, SCHEDULER_OFF, STOPPED, open_session
    from atom_saas_sync.config import require_token
    from atom_saas_sync.store.database import Database
    from atom_saas_sync.store.runs import TIMER, Runs

    # Nobody reads what a timer prints; cron would send it as mail, each time.
    settings = runtime.load(options, names_host=when.names_host and not when.scheduled and not when.started_by)
    if not settings.enabled:
        raise _skip("disabled", "ATOM_SAAS_ENABLED is false: local only, nothing to do")
    require_token(settings)
    if when.scheduled and not settings.scheduler_enabled:
        raise _skip("scheduler_off", SCHEDULER_OFF)
    with ExitStack() as stack:
        if dry_run:
            settings = replace(settings, database_path=stack.enter_context(_for_a_dry_run(settings.database_path)))
        database = stack.enter_context(Database.open(settings.database_path))
        runs = Runs(database)
        if when.scheduled and runs.scheduling_stopped():
            raise _skip("stopped", STOPPED)
        if when.scheduled and runs.auto_sync_is_off():
            raise _skip("scheduler_off", AUTO_SYNC_OFF)
        if when.scheduled and not _is_due(runs, settings, kind, when.clock.now()):
            raise _NotNow("skipped", "not_due")
        stack.enter_context(when.clock.caught())
        try:
            session = stack.enter_context(
                open_session(
                    settings,
                    database,
                    kind,
                    lock=lock,
                    clock=when.clock,
                    wait=when.wait,
                    command=f"sync {kind}",
                    started_by=when.started_by or (TIMER if when.scheduled else runtime.person()),
                )
            )
        except Locked as error:
            raise _NotNow("locked", "locked", error) from error
        yield session


@contextmanager
def _for_a_dry_run(path: Path) -> Iterator[Path]:
    """Return the database of a dry run, which creates and upgrades none: a throw-away one where that is needed."""
    from atom_saas_sync.cli.runtime import temporary_directory
    from atom_saas_sync.store import migrations
    from atom_saas_sync.store.backup import copy
    from atom_saas_sync.store.database import Database, exists

    there = exists(path)
    if there:
        with Database.open(path, migrate=False, read_only=True) as database:
            migrations.refuse_newer(database)
            is_current = not migrations.pending(database)
        if is_current:
            yield path
            return
    with temporary_directory() as directory:
        if there:
            copy(path, directory / path.name)
        yield directory / path.name


def _is_due(runs: Runs, settings: Settings, kind: str, now: datetime) -> bool:
    import logging
    from datetime import timedelta

    from atom_saas_sync.times import format_time
    from atom_saas_sync.usecases.schedule import scheduled_run_is_due

    minutes = settings.rating_sync_interval_minutes if kind == "ratings" else settings.sync_interval_minutes
    last = runs.last_scheduled_success(kind)
    due = scheduled_run_is_due(last, timedelta(minutes=minutes), now)
    if not due and last is not None:
        # Not a note: cron would mail it each time.
        logging.getLogger(__name__).info(
            "not due: the last scheduled %s sync began at %s, and one is due every %d minutes",
            kind,
            format_time(last),
            minutes,
        )
    return due


def _skip(reason: str, why: str) -> _NotNow:
    note(why)
    return _NotNow("skipped", reason)


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


def _finish(report: RunReport, *, as_json: bool) -> None:
    if as_json:
        print_json(report_document(report))
    else:
        _print_report(report)
    _print_error(report)
    raise typer.Exit(report.exit_code)


def _print_error(report: RunReport | RatingReport) -> None:
    error = report.error
    if error is not None:
        complain(error.message, error.hint)
    elif report.exit_code and isinstance(report, RunReport):
        _complain_of_reasons(report)


def _print_worst(pulled: RunReport, rated: RatingReport) -> int:
    """Print the one error line, which is that of the worse of both, and return its exit code."""
    reports: list[RunReport | RatingReport] = [pulled, rated]
    worst, other = sorted(reports, key=lambda report: _WORST.index(report.exit_code))
    if other.error is not None:
        note(f"{'ratings' if other is rated else 'skills'}: {other.error.message}")
    _print_error(worst)
    return worst.exit_code


def _complain_of_reasons(report: RunReport) -> None:
    """Print the one error line of a run that ended without an error of its own, unless it was logged as such."""
    counts, reasons = report.counts, report.reasons
    if "deletions_refused" in reasons:
        return  # logged, with the ids and the command that confirms
    if "items_invalid" in reasons:
        complain(f"{counted(counts.invalid, 'item')} of the marketplace could not be used", "the log above names them")
    elif "incomplete" in reasons:
        complain("the list changed while it was read, twice; nothing was deleted", "the next run reads it again")
    elif "conflicts_open" in reasons:
        needs = "a conflict needs" if counts.conflicts_manual == 1 else f"{counts.conflicts_manual} conflicts need"
        complain(f"{needs} a decision", "`atom-sync conflicts list` shows them")
    else:
        complain(f"the sync ended as {report.status}: {', '.join(reasons)}")


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
        "tampered": counts.tampered,
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
        "replaced_edits": list(report.replaced_edits),
        "error": _error(report.error),
        **({"plan": [_planned(action) for action in report.plan]} if report.dry_run else {}),
    }


def rating_document(report: RatingReport) -> dict[str, Any]:
    """Return the JSON of `sync ratings` (cli.md); every run has the full set of keys."""
    counts = report.counts
    return {
        "success": report.status in {"success", "skipped"} and report.exit_code == 0,
        "run_id": report.run_id,
        "status": report.status,
        "uploaded": counts.uploaded,
        "updated_local": counts.updated_local,
        "failed": counts.failed,
        "skipped": counts.skipped,
        "pending": counts.pending,
        "duration_seconds": round(report.duration_seconds, 3),
        "error": _error(report.error),
        **(
            {
                "dry_run": True,
                "plan": [{"id": each.id, "skill_id": each.skill_id, "rating": each.stars} for each in report.plan],
            }
            if report.dry_run
            else {}
        ),
    }


def _all_document(pulled: RunReport, rated: RatingReport) -> dict[str, Any]:
    parts = report_document(pulled), rating_document(rated)
    statuses = {part["status"] for part in parts}
    if len(statuses) == 1:
        (status,) = statuses
    elif statuses == {"success", "skipped"}:
        status = "success"
    else:
        status = "partial" if statuses & {"success", "partial"} else "failed"
    skills_part, ratings_part = parts
    success = all(part["success"] for part in parts)
    return {"success": success, "status": status, "skills": skills_part, "ratings": ratings_part}


def _print_ratings(report: RatingReport) -> None:
    from atom_saas_sync.core.health import elapsed

    if report.status in {"skipped", "locked"}:
        return
    counts = report.counts
    if report.dry_run:
        say(f"Dry run: {counted(len(report.plan), 'rating')}")
        print_some([f"would be sent: {each.skill_id}, {each.stars} of 5" for each in report.plan])
        return
    verb = "Ratings synchronised" if report.status == "success" else f"Ratings {report.status}"
    taken = f", {counts.updated_local} replaced by newer ones from there" if counts.updated_local else ""
    kept = f", {counts.skipped} kept locally" if counts.skipped else ""
    failed = f", {counts.failed} failed (`atom-sync ratings failed`)" if counts.failed else ""
    waiting = f", {counts.pending} pending" if counts.pending else ""
    say(f"{verb}: {counts.uploaded} sent{taken}{kept}{failed}{waiting} in {elapsed(report.duration_seconds)}")


def _error(error: ErrorInfo | None) -> dict[str, Any] | None:
    return None if error is None else {"type": error.type, "message": error.message, "hint": error.hint}


def _planned(action: Action) -> dict[str, Any]:
    entry = action.conflict
    return {
        "skill_id": action.skill_id,
        "name": None if action.remote is None else action.remote.fields.get("name"),
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
    from atom_saas_sync.core.health import elapsed, size

    if report.status in {"skipped", "locked"}:
        return
    counts = report.counts
    verb = "Dry run" if report.dry_run else "Sync completed" if report.status == "success" else f"Sync {report.status}"
    say(
        f"{verb}: {counted(counts.skills_synced, 'skill')}, "
        f"{counted(counts.categories_synced, 'category', 'categories')} in {elapsed(report.duration_seconds)}"
    )
    say(
        f"  {counts.added:,} added, {counts.updated:,} updated, {counts.unchanged:,} unchanged, "
        f"{counts.deleted:,} deleted" + (f", {counts.invalid:,} invalid" if counts.invalid else "")
    )
    if counts.conflicts_detected or counts.conflicts_manual:
        say(
            f"  conflicts: {counts.conflicts_detected} detected, {counts.conflicts_resolved} resolved, "
            f"{counts.conflicts_manual} waiting"
        )
    say(
        f"  {counted(counts.requests, 'request')}, {counts.not_modified:,} not modified, "
        f"{size(counts.bytes_received)} received"
    )
    for remark in _remarks(report):
        say(f"  {remark}")
    if report.dry_run:
        print_some([_plan_line(_planned(each)) for each in report.plan if _is_worth_a_line(each)])


def _remarks(report: RunReport) -> list[str]:
    """Return why the run is not a success, besides its error, and what waits for a person."""
    lines = []
    if report.counts.tampered:
        tampered = counted(report.counts.tampered, "skill was", "skills were")
        lines.append(f"note: {tampered} found tampered with (`atom-sync sync skills --force` repairs such skills)")
    if number := report.counts.edits_replaced:
        would = " would be" if report.dry_run else ""
        ids = report.replaced_edits
        way = f"undo {ids[0]}" if number == len(ids) == 1 else "list --resolved"
        lines.append(f"{counted(number, 'local edit')}{would} replaced" + f" (`atom-sync conflicts {way}`)" * bool(ids))
    told = {"conflicts_open", report.error.type if report.error else ""}
    if why := [reason for reason in report.reasons if reason not in told]:
        lines.append(f"because: {', '.join(why)}")
    if "conflicts_open" in report.reasons:
        number = report.counts.conflicts_manual
        lines.append(
            f"note: {counted(number, 'conflict needs', 'conflicts need')} a decision (`atom-sync conflicts list`)"
        )
    return lines


def _is_worth_a_line(action: Action) -> bool:
    return action.conflict is not None or action.outcome is not Outcome.UNCHANGED


def _plan_line(planned: dict[str, Any]) -> str:
    conflict = planned["conflict"]
    why = f"  ({conflict['type']}, {conflict['severity']})" if conflict else ""
    name = f"{planned['name']} " if planned["name"] else ""
    return f"would be {planned['outcome']}: {name}[{planned['skill_id']}]{why}"


@contextmanager
def _progress_bar(what: str, *, wanted: bool) -> Iterator[Progress | None]:
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    from atom_saas_sync.cli.progress import progress_bar

    with progress_bar(what) as progress:
        yield progress
