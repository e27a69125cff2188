"""Shared by the gate's commands: options, the deciding user, and printing results."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.output import counted, note, print_json, say

if TYPE_CHECKING:
    from atom_saas_sync.usecases.gate.reports import Decided, Refused

NEEDS_PERSON = 4
"""The exit code of a command that refused something."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Note = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="The reason, for the record.")]
SkillIds = Annotated[list[str], typer.Argument(metavar="ID…", help="Full skill ids.")]

_SHOWN = 20
_REFUSALS = {
    "changed": "a different version is waiting now: inspect it first",
    "not_waiting": "nothing waits for a decision",
    "quarantined": "it is in quarantine: release it first",
    "not_served": "there is no such skill in the cache",
    "not_quarantined": "it is not in quarantine",
}


def actor() -> str:
    """Return the name of the deciding user."""
    from atom_saas_sync.cli.runtime import current_user

    return current_user()


def now() -> datetime:
    """Return the time of the decision."""
    return datetime.now(UTC)


def tell_decided(decided: Decided, verb: str, *, as_json: bool) -> None:
    """Print the result of a decision; exit with 4 if it was refused for any skill."""
    from atom_saas_sync.core.gate.digests import digest_text
    from atom_saas_sync.usecases.gate.documents import decided_document

    if as_json:
        print_json(decided_document(decided, verb))
    else:
        for each in decided.done[:_SHOWN]:
            say(f"{verb}: {printable(each.skill_id)} ({digest_text(each.digest)[:19]})")
        if len(decided.done) != 1:
            say(f"{counted(len(decided.done), 'update')} {verb}")
    end_refused(decided.refused)


def end_refused(refused: Sequence[Refused]) -> None:
    """Print the refusals to standard error and exit with 4; do nothing if there are none."""
    if refused:
        tell_refused(refused)
        raise typer.Exit(NEEDS_PERSON)


def tell_refused(refused: Sequence[Refused]) -> None:
    """Print to standard error what was refused, and why."""
    from atom_saas_sync.core.gate.reasons import REASON_TEXTS

    words = {str(reason): text for reason, text in REASON_TEXTS.items()} | _REFUSALS
    for each in refused[:_SHOWN]:
        note(f"refused: {printable(each.skill_id)}: {each.reason} ({words.get(each.reason, each.reason)})")
    if len(refused) > _SHOWN:
        note(f"… and {len(refused) - _SHOWN:,} more (--json)")
