"""Reports of syncs: JSON documents, screens, and the error line."""

from __future__ import annotations

from typing import Any, NoReturn

import typer

from atom_saas_sync.cli.output import complain, counted, note, print_json, print_some, say
from atom_saas_sync.model import Action, ErrorInfo, Outcome, RatingReport, RunReport

# Exit codes, the worst first.
_WORST = (130, 143, 77, 78, 74, 69, 65, 75, 4, 1, 0)


def finish(report: RunReport, *, as_json: bool) -> NoReturn:
    """Print a report, and exit with its code."""
    if as_json:
        print_json(report_document(report))
    else:
        print_report(report)
    print_error(report)
    raise typer.Exit(report.exit_code)


def print_error(report: RunReport | RatingReport) -> None:
    """Print the one error line of a run, if it has one."""
    error = report.error
    if error is not None:
        complain(error.message, error.hint)
    elif report.exit_code and isinstance(report, RunReport):
        _complain_of_reasons(report)
    if isinstance(report, RunReport) and "updates_tripped" in report.reasons:
        note("an update needs a decision: `atom-sync updates list` shows why")


def print_worst(pulled: RunReport, rated: RatingReport) -> int:
    """Print the error line of the worse report, and return its exit code."""
    reports: list[RunReport | RatingReport] = [pulled, rated]
    worst, other = sorted(reports, key=lambda report: _WORST.index(report.exit_code))
    if other.error is not None:
        note(f"{'ratings' if other is rated else 'skills'}: {other.error.message}")
    print_error(worst)
    return worst.exit_code


def _complain_of_reasons(report: RunReport) -> None:
    """Print the error line of a run that was not a success but has no error, unless that was logged."""
    counts, reasons = report.counts, report.reasons
    if "deletions_refused" in reasons:
        return  # logged, with the ids and the command to confirm
    if "items_invalid" in reasons:
        complain(f"{counted(counts.invalid, 'item')} of the marketplace could not be used", "the log above names them")
    elif "incomplete" in reasons:
        complain("the list changed twice while it was read; nothing was deleted", "the next run reads it again")
    elif "updates_waiting" in reasons:
        waits = "1 update is" if counts.updates_waiting == 1 else f"{counts.updates_waiting:,} updates are"
        complain(f"{waits} waiting", "`atom-sync updates list` shows them")
    elif "conflicts_open" in reasons:
        needs = "a conflict needs" if counts.conflicts_manual == 1 else f"{counts.conflicts_manual} conflicts need"
        complain(f"{needs} a decision", "`atom-sync conflicts list` shows them")
    else:
        complain(f"the sync ended with the status {report.status}: {', '.join(reasons)}")


def report_document(report: RunReport) -> dict[str, Any]:
    """Return the JSON of `sync skills` (docs/API_DOCUMENTATION.md); every run has the full set of keys."""
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
        "updates": {
            "admitted": counts.updates_admitted,
            "held": counts.updates_held,
            "refused": counts.updates_refused,
            "waiting": counts.updates_waiting,
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
    """Return the JSON of `sync ratings` (docs/API_DOCUMENTATION.md); every run has the full set of keys."""
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


def all_document(pulled: RunReport, rated: RatingReport) -> dict[str, Any]:
    """Return the JSON of `sync all`."""
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


def print_ratings(report: RatingReport) -> None:
    """Print the result of a sync of ratings."""
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
        "cache": action.cache,
        "reason": action.not_admitted_because,
        "conflict": None
        if entry is None
        else {
            "type": entry.conflict.type,
            "severity": entry.conflict.severity,
            "resolution": entry.resolution.strategy if entry.resolution else None,
        },
    }


def print_report(report: RunReport) -> None:
    """Print what a sync of skills or categories did, or would do."""
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
            f"{counts.conflicts_manual} left open"
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
    """Return why the run is not a success (besides its error), and what needs a decision."""
    lines = []
    if report.counts.tampered:
        tampered = counted(report.counts.tampered, "skill was", "skills were")
        lines.append(f"note: {tampered} found tampered with (`atom-sync sync skills --force` repairs such skills)")
    if number := report.counts.edits_replaced:
        would = " would be" if report.dry_run else ""
        ids = report.replaced_edits
        way = f"undo {ids[0]}" if number == len(ids) == 1 else "list --resolved"
        lines.append(f"{counted(number, 'local edit')}{would} replaced" + f" (`atom-sync conflicts {way}`)" * bool(ids))
    if report.counts.updates_waiting:
        number, new = report.counts.updates_waiting, 0 if report.dry_run else report.counts.updates_held
        newly = f", {new:,} of them new" if 0 < new < number else ""
        what = counted(number, "new update" if new == number else "update")
        lines.append(f"note: {what} waiting{newly} (`atom-sync updates list`)")
    told = {"conflicts_open", "updates_tripped", "updates_waiting", report.error.type if report.error else ""}
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
    why += f"  ({planned['reason']})" if planned["reason"] else ""
    name = f"  {planned['name']}" if planned["name"] else ""
    return f"would be {planned['outcome']}: {planned['skill_id']}{why}{name}"
