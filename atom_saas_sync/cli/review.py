"""Review waiting updates on a terminal, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.asking import choose
from atom_saas_sync.cli.deciding import actor, now, tell_refused
from atom_saas_sync.cli.output import console, counted, say
from atom_saas_sync.cli.pager import pager
from atom_saas_sync.errors import NotFound

if TYPE_CHECKING:
    from atom_saas_sync.usecases.gate.desk import GateDesk
    from atom_saas_sync.usecases.gate.reports import Refused


def review_updates(desk: GateDesk, skill_ids: Sequence[str], *, note: str | None) -> list[Refused]:
    """Show each update and ask; decisions apply immediately, to exactly the version shown.

    Return what was refused.
    """
    from atom_saas_sync.cli.update_views import print_update
    from atom_saas_sync.usecases.gate.approvals import approve, reject
    from atom_saas_sync.usecases.gate.reports import Target
    from atom_saas_sync.usecases.gate.updates import show_update

    counts = {"approved": 0, "rejected": 0, "skipped": 0}
    refused: list[Refused] = []
    for number, skill_id in enumerate(skill_ids, start=1):
        try:
            shown = show_update(desk, skill_id)
        except NotFound:
            say(f"{printable(skill_id)}: no longer waiting")
            continue
        with pager():
            out = console()
            out.print()
            out.rule(f"{number} of {len(skill_ids)}", style="dim", align="left")
            print_update(out, shown, ways=False)
            out.print()
        answer = choose("[a]pprove [r]eject [s]kip [q]uit", ("approve", "reject", "skip", "quit"))
        if answer == "quit":
            break
        if answer == "skip":
            counts["skipped"] += 1
            continue
        verb, decide = ("approved", approve) if answer == "approve" else ("rejected", reject)
        target = Target(skill_id, shown.update.offered_digest.hex())
        decided = decide(desk, [target], note=note, actor=actor(), now=now())
        tell_refused(decided.refused)
        refused += decided.refused
        counts[verb] += len(decided.done)
        if decided.done:
            say(f"{verb}: {printable(skill_id)}")
    left = len(skill_ids) - sum(counts.values()) - len(refused)
    done = ", ".join(f"{count:,} {verb}" for verb, count in counts.items())
    say(f"{done}; {counted(left, 'update')} not looked at" if skill_ids else "nothing waits")
    return refused
