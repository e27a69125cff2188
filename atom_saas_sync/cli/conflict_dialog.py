"""Resolve conflicts interactively: the choices, a preview of the result, and a confirmation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.asking import choose
from atom_saas_sync.cli.output import console
from atom_saas_sync.errors import UsageError
from atom_saas_sync.model import LoggedConflict

if TYPE_CHECKING:
    from atom_saas_sync.core.comparison import FieldChange
    from atom_saas_sync.usecases.ports import ListedConflicts
    from atom_saas_sync.usecases.resolve_conflicts import Decision, Settled

Settle = Callable[[list[int], "Decision"], "list[Settled]"]


def edit(log: ListedConflicts, conflict_id: int, settle: Settle, *, may_ask: bool) -> list[Settled]:
    """Let the user edit the merged skill (again after a mistake), and resolve the conflict with the result."""
    from atom_saas_sync.cli.editor import EditedFile, edited, keeping, pretty
    from atom_saas_sync.usecases.resolve_conflicts import Decision, open_conflict, own_skill, proposal

    conflict = open_conflict(log, conflict_id)
    file = EditedFile(pretty(proposal(conflict, datetime.now(UTC)) or "{}"), name=f"conflict-{conflict_id}.json")

    def check(text: str) -> str:
        own_skill(text, conflict.skill_id)
        return text

    with keeping(file):
        text = edited(file, check, may_ask=may_ask)
        if text is None and not may_ask:
            raise UsageError("nothing was changed in the editor", hint="pass --strategy merge to take the merged skill")
        if text is None and not typer.confirm("Nothing was changed. Take the merged skill as it is?", err=True):
            raise UsageError("nothing was done")
        text = text if text is not None else file.before
        return settle([conflict_id], Decision(text=text, seen=(conflict.cached_text, conflict.remote_text)))


def ask(
    log: ListedConflicts, ids: Sequence[int], settle: Settle, show: Callable[[LoggedConflict], None]
) -> list[Settled]:
    """Ask about each conflict, and for confirmation before writing; each is resolved immediately."""
    from atom_saas_sync.usecases.resolve_conflicts import open_conflict

    settled: list[Settled] = []
    for conflict_id in ids:
        conflict = open_conflict(log, conflict_id)
        show(conflict)
        decision = _decision(conflict)
        if decision is not None:
            settled += settle([conflict_id], decision)
    return settled


def _decision(conflict: LoggedConflict) -> Decision | None:
    from atom_saas_sync.core.comparison import contested, differences
    from atom_saas_sync.usecases.resolve_conflicts import Decision

    seen = (conflict.cached_text, conflict.remote_text)
    if conflict.remote_text is None:
        answer = choose("Deleted in the marketplace. [k]eep it here, [r]emove it, [s]kip?", ("keep", "remove", "skip"))
        if answer == "skip":
            return None
        return Decision(strategy="local_wins" if answer == "keep" else "remote_wins", seen=seen)
    changes = tuple(differences(conflict))
    fields = contested(changes)
    if not fields:
        _show_result(conflict, Decision(strategy="merge"))
        strategy = _ask_whole(changes)
        return None if strategy is None else Decision(strategy=strategy, seen=seen)
    sides = _ask_fields(fields)
    if sides is None:
        return None
    decision = Decision(strategy="merge", sides=sides, seen=seen)
    _show_result(conflict, decision)
    return decision if typer.confirm("Write this result?", default=True, err=True) else None


def _show_result(conflict: LoggedConflict, decision: Decision) -> None:
    """Show what a decision would change in the cache."""
    from rich.text import Text

    from atom_saas_sync.cli.comparison import print_comparison
    from atom_saas_sync.core.canonical import decode_object
    from atom_saas_sync.core.comparison import compare
    from atom_saas_sync.usecases.resolve_conflicts import outcome

    result = outcome(conflict, decision, datetime.now(UTC))
    local = (None if conflict.cached_text is None else decode_object(conflict.cached_text)) or {}
    out = console(stderr=True)
    changes = compare(local, local, {} if result is None else result.fields)
    if changes:
        out.print(Text("The result, compared with the local version:", style="bold"))
        print_comparison(out, changes, left="here now", right="result", tell_who=False)
    else:
        out.print(Text("The result equals the local version.", style="bold"))


def _ask_whole(changes: Sequence[FieldChange]) -> Any:  # noqa: ANN401 - a Strategy, or None to skip
    """Ask about a conflict in which each field was changed on one side only."""
    for side, place in (("local", "here"), ("remote", "the marketplace")):
        names = [printable(change.name) for change in changes if change.changed_by == side]
        if names:
            typer.echo(f"merged, from {place}: {', '.join(names)}", err=True)
    question = "Nothing overlaps. Merge [y/n]? Or take all of [l]ocal or of [r]emote, or [s]kip?"
    answer = choose(question, ("yes", "merge", "local", "remote", "no", "skip"))
    return {"yes": "merge", "merge": "merge", "local": "local_wins", "remote": "remote_wins"}.get(answer)


def _ask_fields(changes: Sequence[FieldChange]) -> dict[str, Any] | None:
    sides: dict[str, Any] = {}
    for change in changes:
        question = f"{printable(change.name)}: [l]ocal, [r]emote, [m]erge, or [s]kip this conflict?"
        answer = choose(question, ("local", "remote", "merge", "skip"))
        if answer == "skip":
            return None
        if answer != "merge":
            sides[change.name] = answer
    return sides
