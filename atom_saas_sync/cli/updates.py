"""`updates`: versions from the marketplace that wait to be admitted (docs/TRUST.md)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.deciding import (
    NEEDS_PERSON,
    Json,
    Note,
    actor,
    end_refused,
    now,
    tell_decided,
    tell_refused,
)
from atom_saas_sync.cli.gate_session import open_desk
from atom_saas_sync.cli.output import age, console, counted, file_name, note, print_json, read_text, say
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.cli.tables import Column, print_table
from atom_saas_sync.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from atom_saas_sync.usecases.gate.desk import GateDesk
    from atom_saas_sync.usecases.gate.reports import Decided, Target, Update

app = typer.Typer(help="List, inspect, approve and reject waiting updates.", no_args_is_help=True)

_LISTED = 100

_Reason = Annotated[
    str | None, typer.Option("--reason", metavar="REASON", help="Only updates held for REASON, such as review.")
]
_Pattern = Annotated[
    str | None, typer.Option("--skill", metavar="PATTERN", help="Only skills whose id matches a shell pattern.")
]
_Targets = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID[@DIGEST]…", help="Full ids; with a digest, exactly that version."),
]
_All = Annotated[bool, typer.Option("--all", help="All waiting updates.")]
_ReasonHeld = Annotated[
    str | None, typer.Option("--reason-held", metavar="REASON", help="Only updates held for REASON.")
]
_From = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="FILE", help="Exactly the versions in this output of `updates list --json`; - reads stdin."
    ),
]


@app.command("list")
@paged
def list_waiting(
    ctx: typer.Context,
    reason: _Reason = None,
    skill: _Pattern = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=0, max=10**9, metavar="N", help="Maximum number of rows; 0: no limit. A terminal shows 100."
        ),
    ] = None,
    capabilities: Annotated[
        bool, typer.Option("--capabilities", help="Also list what each update can newly do; slow the first time.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List waiting updates: first those that always need a decision, then the oldest."""
    from atom_saas_sync.usecases.gate.documents import update_document
    from atom_saas_sync.usecases.gate.updates import list_updates

    if limit is None and not as_json and sys.stdout.isatty():
        limit = _LISTED
    with open_desk(ctx.obj) as desk:
        found = list_updates(desk, reason=reason, pattern=skill, limit=limit or None, capabilities=capabilities)
    if as_json:
        print_json({"updates": [update_document(each) for each in found.updates], "total": found.total})
        return
    _print_updates(found.updates, capabilities=capabilities)
    more = f"; {found.total - len(found.updates):,} more: see --limit" if found.total > len(found.updates) else ""
    note(f"{counted(found.total, 'waiting update')}{more}")


@app.command()
@paged
def show(
    ctx: typer.Context,
    skill_id: Annotated[str, typer.Argument(metavar="ID", help="The skill's id, or its first 4 or more characters.")],
    as_json: Json = False,
) -> None:
    """Show an update: what differs from the served version, and what it can newly do."""
    from atom_saas_sync.cli.gate_session import open_desk_and_resolve
    from atom_saas_sync.cli.identify import whole_offered_id
    from atom_saas_sync.usecases.gate.updates import show_update

    with open_desk_and_resolve(ctx.obj, skill_id, whole_offered_id) as (desk, whole):
        shown = show_update(desk, whole)
    if as_json:
        from atom_saas_sync.usecases.gate.documents import shown_document

        print_json({"update": shown_document(shown)})
        return
    from atom_saas_sync.cli.update_views import print_update

    print_update(console(whole_lines=True), shown, ways=True)


@app.command()
def approve(
    ctx: typer.Context,
    targets: _Targets = None,
    everything: _All = False,
    reason_held: _ReasonHeld = None,
    from_file: _From = None,
    note: Note = None,
    as_json: Json = False,
) -> None:
    """Admit exactly these versions and serve them at once.

    A version that has been replaced meanwhile is not approved: exit code 4.
    """
    from atom_saas_sync.usecases.gate.approvals import approve as approve_updates

    chosen = _Chosen(targets or [], everything=everything, reason=reason_held, file=from_file)
    with open_desk(ctx.obj) as desk:
        decided = _decided(desk, approve_updates, chosen.targets(desk), note)
    tell_decided(decided, "approved", as_json=as_json)


@app.command()
def reject(
    ctx: typer.Context,
    targets: _Targets = None,
    everything: _All = False,
    reason_held: _ReasonHeld = None,
    from_file: _From = None,
    note: Note = None,
    as_json: Json = False,
) -> None:
    """Keep exactly these versions out until they are approved."""
    from atom_saas_sync.usecases.gate.approvals import reject as reject_updates

    chosen = _Chosen(targets or [], everything=everything, reason=reason_held, file=from_file)
    with open_desk(ctx.obj) as desk:
        decided = _decided(desk, reject_updates, chosen.targets(desk), note)
    tell_decided(decided, "rejected", as_json=as_json)


@app.command()
def review(
    ctx: typer.Context,
    reason: _Reason = None,
    skill: _Pattern = None,
    note: Note = None,
) -> None:
    """Go through the waiting updates one by one on a terminal: approve, reject or skip."""
    from atom_saas_sync.cli.review import review_updates
    from atom_saas_sync.usecases.gate.updates import list_updates

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "not a terminal: cannot prompt",
            hint="`atom-sync updates list --json`, then `updates approve --from FILE` or `updates approve ID@DIGEST`",
        )
    with open_desk(ctx.obj) as desk:
        found = list_updates(desk, reason=reason, pattern=skill)
        refused = review_updates(desk, [each.skill_id for each in found.updates], note=note)
    end_refused(refused)


@app.command()
def rescan(
    ctx: typer.Context,
    skill_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID…", help="Full ids. Default: all updates that did not pass the scan."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the scan command again on waiting updates; those that pass and may be served are admitted.

    Exits with 4 if one does not pass.
    """
    from atom_saas_sync.usecases.gate.scanning import rescan as rescan_updates

    with open_desk(ctx.obj) as desk:
        done = rescan_updates(desk, skill_ids or None, actor=actor(), now=now())
    if as_json:
        print_json(
            {
                "success": not done.failed and not done.not_scanned,
                "passed": list(done.passed),
                "failed": [{"skill_id": each.skill_id, "note": each.reason} for each in done.failed],
                "not_scanned": [{"skill_id": each.skill_id, "reason": each.reason} for each in done.not_scanned],
            }
        )
    else:
        for each in done.failed:
            say(f"did not pass: {printable(each.skill_id)}: {printable(each.reason)}")
        say(f"{len(done.passed):,} passed, {len(done.failed):,} did not pass")
    tell_refused(done.not_scanned)
    if done.failed or done.not_scanned:
        raise typer.Exit(NEEDS_PERSON)


class _Decide(Protocol):
    def __call__(
        self, desk: GateDesk, targets: Sequence[Target], *, note: str | None, actor: str, now: datetime
    ) -> Decided: ...


def _decided(desk: GateDesk, decide: _Decide, targets: Sequence[Target], text: str | None) -> Decided:
    return decide(desk, targets, note=text, actor=actor(), now=now())


class _Chosen:
    """The versions selected by the options. Raises UsageError for contradictory options."""

    def __init__(self, texts: Sequence[str], *, everything: bool, reason: str | None, file: Path | None) -> None:
        if sum((bool(texts), everything, file is not None)) > 1 or (texts and reason is not None):
            raise UsageError("ids, --all and --from exclude each other; --reason-held requires --all or --from")
        if not (texts or everything or file or reason):
            raise UsageError(
                "which updates?", hint="give ids, --all or --from FILE; `atom-sync updates list` shows them"
            )
        self._texts = texts
        self._reason = reason
        self._listed = None if file is None else read_text(file).encode()
        self._name = "" if file is None else file_name(file)

    def targets(self, desk: GateDesk) -> Sequence[Target]:
        """Return them."""
        from atom_saas_sync.usecases.gate.reports import Target
        from atom_saas_sync.usecases.gate.updates import list_updates, targets_in, targets_of

        if self._texts:
            return targets_of(desk, self._texts)
        listed = None if self._listed is None else targets_in(self._listed, name=self._name)
        if listed is not None and self._reason is None:
            return listed
        waiting = list_updates(desk, reason=self._reason).updates
        if listed is None:
            return [Target(each.skill_id, each.offered_digest.hex()) for each in waiting]
        held = {each.skill_id for each in waiting}
        return [each for each in listed if each.skill_id in held]


def _print_updates(updates: Sequence[Update], *, capabilities: bool) -> None:
    columns = [
        Column("id"),
        Column("name", drop=9 if capabilities else 4, cut=True),
        Column("served", drop=3, cut=True, least=6),
        Column("offered", drop=2, cut=True, least=7),
        Column("held for", drop=1),
        *([Column("newly", drop=5, cut=True, least=40)] if capabilities else []),
        Column("first seen", drop=6),
        Column("due", drop=7),
        Column("publisher", drop=8, cut=True),
    ]
    print_table(columns, [_line(each, capabilities=capabilities) for each in updates])


def _line(update: Update, *, capabilities: bool) -> list[str]:
    return [
        update.skill_id,
        update.name or "",
        "new" if update.served_digest is None else update.served_version or "-",
        update.offered_version or "-",
        ", ".join(update.reasons),
        *([_newly(update)] if capabilities else []),
        age(update.first_seen_at),
        "" if update.due_at is None else _due(update.due_at),
        update.publisher or "",
    ]


def _newly(update: Update) -> str:
    from atom_saas_sync.core.gate.facts import KINDS

    added = () if update.capabilities is None else update.capabilities.added
    return ", ".join(f"{kind} {each.value}" for kind in KINDS for each in added if each.kind == kind)


def _due(moment: datetime) -> str:
    """Return when an update is due; relative to now on a terminal."""
    from atom_saas_sync.core.health import duration
    from atom_saas_sync.times import format_time

    if not sys.stdout.isatty():
        return format_time(moment)
    seconds = (moment - now()).total_seconds()
    return f"in {duration(seconds)}" if seconds > 0 else "now"
