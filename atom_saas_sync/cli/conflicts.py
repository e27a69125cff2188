"""`conflicts`: list, inspect, resolve and undo conflicts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.identify import whole_id
from atom_saas_sync.cli.output import GlobalOptions, age, console, counted, note, print_json, read_text, say
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.cli.tables import Column, print_table
from atom_saas_sync.errors import DatabaseError, NotFound, UsageError
from atom_saas_sync.model import CONFLICT_TYPES, SEVERITIES, STRATEGIES, ConflictFilter, LoggedConflict

if TYPE_CHECKING:
    from atom_saas_sync.core.comparison import FieldChange
    from atom_saas_sync.usecases.ports import ListedConflicts, Store
    from atom_saas_sync.usecases.resolve_conflicts import Decision, Settled

app = typer.Typer(help="List, inspect, resolve and undo conflicts.", no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_Severity = Annotated[str | None, typer.Option("--severity", metavar="SEVERITY", help="CRITICAL, HIGH, MEDIUM or LOW.")]
_Type = Annotated[str | None, typer.Option("--type", metavar="TYPE", help="VERSION_MISMATCH, CONTENT_MISMATCH …")]
_Skill = Annotated[str | None, typer.Option("--skill", metavar="ID", help="Only conflicts of this skill.")]
_Id = Annotated[int, typer.Argument(metavar="ID", max=10**9, help="The conflict's number.")]


@app.command("list")
@paged
def list_conflicts(
    ctx: typer.Context,
    severity: _Severity = None,
    conflict_type: _Type = None,
    skill: _Skill = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Show resolved conflicts instead of open ones.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", min=0, max=10**9, metavar="N", help="Maximum number of rows; 0: no limit.")
    ] = 100,
    as_json: _Json = False,
) -> None:
    """List open conflicts, the most severe and oldest first."""
    from atom_saas_sync.core.comparison import conflict_line

    wanted = _filter(severity, conflict_type, skill, resolved=resolved)
    with _log(ctx.obj) as (store, log):
        wanted = _with_whole_id(store, wanted)
        conflicts = log.list_conflicts(wanted, limit=limit or None)
        total = log.count(wanted)
        names = store.ids().names(each.skill_id for each in conflicts)
        if resolved:
            _note_seen(log, [each.id for each in conflicts])
    if as_json:
        rows = [{**conflict_line(each), "skill_name": names.get(each.skill_id)} for each in conflicts]
        print_json({"conflicts": rows, "total": total})
        return
    _print_lines(conflicts, names, resolved=resolved)
    kind = "resolved" if resolved else "open"
    more = f"; {total - len(conflicts):,} more: see --limit" if total > len(conflicts) else ""
    note(f"{counted(total, f'{kind} conflict')}{more}")


@app.command()
@paged
def show(ctx: typer.Context, conflict_id: _Id, as_json: _Json = False) -> None:
    """Show the differences side by side, field by field."""
    from atom_saas_sync.core.comparison import conflict_document

    with _log(ctx.obj) as (_, log):
        conflict = _find(log, conflict_id)
        _note_seen(log, [conflict_id])
    if as_json:
        print_json({"conflict": conflict_document(conflict)})
    else:
        _print_conflict(conflict)


@app.command()
def resolve(
    ctx: typer.Context,
    conflict_ids: Annotated[
        list[int] | None, typer.Argument(metavar="ID…", max=10**9, help="The conflicts' numbers.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option("--strategy", metavar="STRATEGY", help="remote_wins, local_wins or merge.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All open conflicts that match the filters below.")] = False,
    severity: _Severity = None,
    conflict_type: _Type = None,
    skill: _Skill = None,
    fields: Annotated[
        list[str] | None,
        typer.Option("--field", metavar="NAME=local|remote", help="Take one field from a side; repeat it for more."),
    ] = None,
    edit: Annotated[bool, typer.Option("--edit", help="Edit the merged skill as JSON in $EDITOR.")] = False,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE", help="Read the resolved skill as JSON from FILE; - is standard input."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Resolve conflicts, all in one transaction.

    Without a strategy, on a terminal, it asks field by field, shows the result, and asks before it writes it.
    """
    from atom_saas_sync.cli import conflict_dialog
    from atom_saas_sync.usecases.resolve_conflicts import Decision

    chosen = _strategy(strategy)
    wanted = _filter(severity, conflict_type, skill)
    ids = conflict_ids or []
    _check_words(ids, everything=everything, filtered=wanted != ConflictFilter(), own=edit or data is not None)
    sides = _sides(fields or [])
    if (edit or data is not None) and (chosen or sides or (edit and data is not None)):
        raise UsageError("--edit and --data exclude --strategy and --field")
    with _log(ctx.obj, adopt=True) as (store, log):
        wanted = _with_whole_id(store, wanted)
        may_ask = sys.stdin.isatty() and sys.stderr.isatty() and not as_json
        if edit:
            settled = conflict_dialog.edit(log, ids[0], partial(_settle, log), may_ask=may_ask)
        elif data is not None:
            settled = _settle(log, ids, Decision(text=read_text(data)))
        elif chosen or sides:
            settled = _settle(log, wanted if everything else ids, Decision(strategy=chosen, sides=sides))
        elif may_ask:
            asked = [each.id for each in log.list_conflicts(wanted)] if everything else ids
            settled = conflict_dialog.ask(log, asked, partial(_settle, log), partial(_print_conflict, stderr=True))
        else:
            raise UsageError(
                "not a terminal: cannot prompt",
                hint="pass --strategy remote_wins, local_wins or merge, or --field, --edit or --data",
            )
    _tell(settled, as_json=as_json)


@app.command()
def undo(ctx: typer.Context, conflict_id: _Id, as_json: _Json = False) -> None:
    """Undo a resolution and reopen the conflict, for manual review whatever the strategy is."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.usecases.resolve_conflicts import undo_resolution

    with _log(ctx.obj, adopt=True) as (_, log):
        undone = undo_resolution(log, conflict_id, actor=runtime.current_user(), now=datetime.now(UTC))
        conflict = _find(log, conflict_id)
    if as_json:
        print_json({"id": undone.id, "skill_id": undone.skill_id, "open": not conflict.resolved})
        return
    waits = "there is nothing left to resolve" if conflict.resolved else f"conflict {undone.id} is open again"
    say(f"{printable(undone.skill_id)}: the local version is back; {waits}")


@contextmanager
def _log(options: GlobalOptions, *, adopt: bool = False) -> Iterator[tuple[Store, ListedConflicts]]:
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.store import open_store

    settings = runtime.load(options)
    with open_store(settings.database, create=False, adopt=adopt) as store:
        signer = runtime.signer_of(settings)
        yield store, store.conflicts(history_versions=settings.history_versions, signer=signer)


def _note_seen(log: ListedConflicts, ids: Sequence[int]) -> None:
    """Clear the notice about replaced edits. If that can't be stored, the command still shows its result."""
    try:
        log.note_seen(ids)
    except DatabaseError as error:
        note(f"warning: `status` will keep reporting the replaced edits: {error.message}")


def _find(log: ListedConflicts, conflict_id: int) -> LoggedConflict:
    conflict = log.conflict(conflict_id)
    if conflict is None:
        raise NotFound(f"there is no conflict {conflict_id}", hint="`atom-sync conflicts list` shows them")
    return conflict


def _filter(severity: str | None, conflict_type: str | None, skill: str | None, *, resolved: bool = False) -> Any:  # noqa: ANN401 - a ConflictFilter
    return ConflictFilter(
        severity=_one_of("--severity", severity, SEVERITIES),
        type=_one_of("--type", conflict_type, CONFLICT_TYPES),
        skill_id=skill,
        resolved=resolved,
    )


def _with_whole_id(store: Store, wanted: ConflictFilter) -> ConflictFilter:
    skill_id = wanted.skill_id and whole_id(store, wanted.skill_id)
    return ConflictFilter(severity=wanted.severity, type=wanted.type, skill_id=skill_id, resolved=wanted.resolved)


def _one_of(option: str, text: str | None, choices: tuple[str, ...]) -> str | None:
    if text is not None and text.upper() not in choices:
        raise UsageError(f"invalid {option} {printable(text)!r}: expected {', '.join(choices)}")
    return None if text is None else text.upper()


def _strategy(text: str | None) -> Any:  # noqa: ANN401 - a Strategy, or None
    if text is not None and text not in STRATEGIES:
        raise UsageError(
            f"invalid --strategy {printable(text)!r}: expected {', '.join(STRATEGIES)}", hint="nothing was done"
        )
    return text


def _check_words(ids: list[int], *, everything: bool, filtered: bool, own: bool) -> None:
    if everything and ids:
        raise UsageError("--all and numbers exclude each other")
    if not everything and not ids:
        raise UsageError("which conflicts?", hint="give their numbers, or --all; `atom-sync conflicts list` shows them")
    if filtered and not everything:
        raise UsageError("--severity, --type and --skill require --all")
    if own and len(ids) != 1:
        raise UsageError("--edit and --data resolve one conflict: give its number")


def _sides(texts: list[str]) -> dict[str, Any]:
    sides = {}
    for text in texts:
        name, _, side = text.rpartition("=")
        if not name or side not in {"local", "remote"}:
            raise UsageError(f"invalid --field {printable(text)!r}: expected NAME=local or NAME=remote")
        sides[name] = side
    return sides


def _settle(log: ListedConflicts, wanted: list[int] | ConflictFilter, decision: Decision) -> list[Settled]:
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.usecases.resolve_conflicts import resolve_conflicts

    return resolve_conflicts(log, wanted, decision, actor=runtime.current_user(), now=datetime.now(UTC))


def _tell(settled: list[Settled], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {"id": each.id, "skill_id": each.skill_id, "strategy": each.strategy, "removed": each.removed}
            for each in settled
        ]
        print_json({"resolved": rows, "total": len(rows)})
        return
    for each in settled[:20]:
        result = "removed" if each.removed else f"resolved {_how(each.strategy)}"
        say(f"conflict {each.id}, {printable(each.skill_id)}: {result}")
    if len(settled) != 1:
        say(f"{counted(len(settled), 'conflict')} resolved")


def _how(strategy: str) -> str:
    return "manually" if strategy == "manual" else f"by {strategy}"


def _print_lines(conflicts: list[LoggedConflict], names: Mapping[str, str], *, resolved: bool) -> None:
    columns = [
        Column("id", right=True),
        Column("severity", drop=2),
        Column("type", drop=3),
        Column("skill"),
        Column("name", drop=1, cut=True),
        Column("since", drop=6),
        *([Column("strategy", drop=4), Column("by", drop=5, cut=True)] if resolved else []),
    ]
    lines = []
    for each in conflicts:
        name = names.get(each.skill_id, "")
        line = [str(each.id), each.severity, each.type, each.skill_id, name, age(each.created_at)]
        lines.append([*line, each.strategy or "", each.resolved_by or ""] if resolved else line)
    print_table(columns, lines)


def _print_conflict(conflict: LoggedConflict, *, stderr: bool = False) -> None:
    from rich.text import Text

    from atom_saas_sync.cli.comparison import print_comparison
    from atom_saas_sync.core.comparison import contested, differences

    out = console(stderr=stderr)
    colour = {"CRITICAL": "bold red", "HIGH": "red", "MEDIUM": "yellow"}.get(conflict.severity, "")
    out.print(
        Text.assemble(
            (f"Conflict {conflict.id}", "bold"),
            f" · {printable(conflict.skill_id)} · {conflict.type} · ",
            (conflict.severity, colour),
        )
    )
    out.print(Text(_state(conflict), style="dim"))
    changes: tuple[FieldChange, ...] = tuple(differences(conflict))
    if conflict.remote_text is None:
        out.print(Text("Deleted in the marketplace; local changes since its last version there:"))
        print_comparison(out, changes, right="last version there")
    else:
        if conflict.base_text is None:
            out.print(Text("There is no common version: the skill existed only locally at first."))
        print_comparison(out, changes)
    if not conflict.resolved and not stderr:
        _print_ways(conflict, [change.name for change in contested(changes)])


def _print_ways(conflict: LoggedConflict, names: Sequence[str]) -> None:
    """Print the commands that resolve a conflict; the contested fields can be chosen one by one."""
    from shlex import quote

    ways = ["--strategy remote_wins|local_wins|merge"]
    if conflict.remote_text is not None:
        ways += [f"--field {quote(printable(names[0])) if names else 'NAME'}=local|remote", "--edit"]
    say("Resolve it (without an option, it asks):")
    for way in ways:
        say(f"  atom-sync conflicts resolve {conflict.id} {way}")


def _state(conflict: LoggedConflict) -> str:
    from atom_saas_sync.times import time_text

    if conflict.resolved:
        undo = f"; `atom-sync conflicts undo {conflict.id}` restores what was replaced"
        by = printable(conflict.resolved_by or "")
        return f"resolved at {time_text(conflict.resolved_at)} by {by}: {conflict.strategy}" + (
            "" if conflict.strategy == "converged" else undo
        )
    undone = f"; a resolution was undone by {printable(conflict.undone_by or '')}" if conflict.undone_at else ""
    return f"open since {time_text(conflict.created_at)}{undone}"
