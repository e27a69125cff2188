"""The screen of one update. Imported late, because it needs rich."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from atom_saas_sync.characters import printable, shell_argument
from atom_saas_sync.cli.output import age, say
from atom_saas_sync.core.canonical import decode_object
from atom_saas_sync.core.gate.digests import digest_text
from atom_saas_sync.core.gate.facts import KINDS, Fact
from atom_saas_sync.core.gate.names import publisher_of
from atom_saas_sync.core.gate.reasons import REASON_TEXTS
from atom_saas_sync.core.gate.types import NEEDS_PERSON, REFUSALS
from atom_saas_sync.times import format_time
from atom_saas_sync.usecases.gate.documents import changes_of

if TYPE_CHECKING:
    from atom_saas_sync.core.comparison import FieldChange
    from atom_saas_sync.core.gate.types import Quarantined
    from atom_saas_sync.usecases.gate.reports import ShownUpdate, Update

_MOST_VALUES = 8
_SOURCES = {"marketplace": "sent by the marketplace", "edited": "edited here", "local": "local only"}
_KIND_NAMES = {
    "hidden": "hidden characters",
    "dynamic": "runs code from data",
    "encoded": "encoded text",
    "command": "commands",
    "host": "hosts and URLs",
    "env": "environment",
    "path": "paths",
    "package": "packages",
}


def print_update(out: Console, shown: ShownUpdate, *, ways: bool) -> None:
    """Print an update: facts, what it can newly do, and the differences; with `ways` also the commands to type."""
    changes = changes_of(shown)
    update = shown.update
    title = Text.assemble(("Update of ", ""), (printable(update.skill_id), "bold"))
    if update.name:
        title.append(f" · {printable(update.name)}")
    out.print(title)
    out.print(_grid(_facts(shown, [change.name for change in changes])))
    _print_capabilities(out, update)
    _print_changes(out, shown, changes)
    if ways:
        target = f"{printable(update.skill_id)}@{update.offered_digest.hex()[:12]}"
        out.print()
        say(f"  atom-sync updates approve {shell_argument(target)}")
        say(f"  atom-sync updates reject {shell_argument(target)}")


def _grid(rows: Iterator[tuple[str, Text]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def _facts(shown: ShownUpdate, changed: list[str]) -> Iterator[tuple[str, Text]]:
    update = shown.update
    served = "new skill" if update.served_digest is None else printable(update.served_version or "no version")
    yield "version", Text(f"{served} → {printable(update.offered_version or 'no version')}")
    yield "publisher", _publisher(shown)
    for number, reason in enumerate(update.reasons):
        style = "bold yellow" if reason in NEEDS_PERSON else ""
        why = (update.note if number == 0 else None) or REASON_TEXTS.get(reason, "")  # type: ignore[call-overload]
        label = "refused" if reason in REFUSALS else "held for"
        yield label, Text.assemble((reason, style), f": {printable(why)}" if why else "")
    names = ", ".join(map(printable, changed))
    if update.served_digest is not None:
        runs = Text("  (code or settings that may be executed)", "bold yellow")
        yield "changes", Text.assemble(names or "nothing that matters", runs if update.exec_changed else "")
    yield "first seen", Text(age(update.first_seen_at))
    if update.due_at is not None:
        yield "due", Text(format_time(update.due_at))
    yield "digest", Text(digest_text(update.offered_digest))


def _publisher(shown: ShownUpdate) -> Text:
    offered = Text(printable(shown.update.publisher or "not given"))
    before = publisher_of(None if shown.served_text is None else decode_object(shown.served_text))
    if shown.served_text is None or before == shown.update.publisher:
        return offered
    return Text.assemble(printable(before or "not given"), " → ", (offered.plain, "bold yellow"))


def _print_capabilities(out: Console, update: Update) -> None:
    capabilities = update.capabilities
    if capabilities is None:
        return
    head = "What it can do" if update.served_digest is None else "What it can newly do"
    out.print()
    out.print(Text.assemble((head, "bold"), (" (found by patterns; an aid, not a proof)", "dim")))
    if not capabilities.added:
        out.print(Text("  nothing found" if update.served_digest is None else "  nothing new found", style="dim"))
    rows = [*_by_kind(capabilities.added, "+", "bold yellow"), *_by_kind(capabilities.removed, "-", "dim")]
    if rows:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for mark, name, values in rows:
            table.add_row(mark, name, values)
        out.print(table)


def _by_kind(facts: tuple[Fact, ...], mark: str, style: str) -> Iterator[tuple[Text, Text, Text]]:
    for kind in KINDS:
        values = [printable(each.value) for each in facts if each.kind == kind]
        shown = values if not sys.stdout.isatty() else values[:_MOST_VALUES]
        if values:
            more = f", … {len(values) - len(shown):,} more" if len(values) > len(shown) else ""
            yield Text(f"  {mark}", style=style), Text(_KIND_NAMES[kind], style=style), Text(", ".join(shown) + more)


def _print_changes(out: Console, shown: ShownUpdate, changes: Sequence[FieldChange]) -> None:
    out.print()
    if not sys.stdout.isatty():
        from atom_saas_sync.cli.skill_versions import print_patch

        print_patch(changes, "served", "offered")
        return
    from atom_saas_sync.cli.comparison import print_comparison, print_version

    if shown.served_text is None:
        print_version(out, changes)
    else:
        print_comparison(out, changes, left="served", right="offered", tell_who=False)


_SERVED_AS: Mapping[str, str] = {
    "marketplace": "sent by the marketplace",
    "edited": "edited here",
    "local": "local only",
}


def print_quarantined(found: Quarantined) -> None:
    """Print a skill in quarantine: why it is there, and what was served."""
    from atom_saas_sync.cli.comparison import print_version
    from atom_saas_sync.cli.output import console
    from atom_saas_sync.cli.skill_versions import print_patch
    from atom_saas_sync.core.comparison import compare

    out = console(whole_lines=True)
    out.print(Text.assemble(("In quarantine: ", ""), (printable(found.skill_id), "bold")))
    rows = [
        ("since", f"{format_time(found.at)} by {printable(found.by)}"),
        ("reason", printable(found.reason)),
        ("note", printable(found.note or "-")),
        ("served as", _SERVED_AS.get(found.served_source, printable(found.served_source))),
        ("digest", digest_text(found.content_digest)),
    ]
    out.print(_grid((name, Text(value)) for name, value in rows))
    out.print()
    fields = decode_object(found.text)
    if fields is None:
        say(found.text)
    elif sys.stdout.isatty():
        print_version(out, compare({}, {}, fields))
    else:
        print_patch(compare({}, {}, fields), "nothing", "served")
