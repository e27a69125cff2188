"""`skills list`, `search` and `show`: reading the cache."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atom_saas_sync.characters import printable, shell_argument
from atom_saas_sync.cli.identify import not_served, open_catalogue, whole_id
from atom_saas_sync.cli.output import GlobalOptions, console, counted, note, print_json
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.errors import NotFound, UsageError
from atom_saas_sync.model import CachedSkill, SkillFilter

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import StoredReading

_SORTS = ("rating", "name", "updated")

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_Category = Annotated[str | None, typer.Option("--category", metavar="CATEGORY", help="Only this category.")]
_Tag = Annotated[str | None, typer.Option("--tag", metavar="TAG", help="Only with this tag.")]
_Limit = Annotated[
    int, typer.Option("--limit", min=0, max=10**9, metavar="N", help="Maximum number of rows; 0: no limit.")
]
_SortOption = Annotated[str | None, typer.Option("--sort", metavar="ORDER", help="rating, name or updated.")]
_Id = Annotated[str, typer.Argument(metavar="ID", help="The skill's id, or its first 4 or more characters.")]


@paged
def list_skills(
    ctx: typer.Context,
    category: _Category = None,
    tag: _Tag = None,
    limit: _Limit = 50,
    sort: _SortOption = None,
    modified: Annotated[bool, typer.Option("--modified", help="Only skills that were edited or added here.")] = False,
    as_json: _Json = False,
) -> None:
    """List the cached skills."""
    order: Any = _sort(sort) or "name"
    with _reading(ctx.obj) as reading:
        wanted = _wanted(category, tag, modified=modified)
        skills = reading.list_skills(wanted, sort=order, limit=limit or None)
        total = reading.count(wanted)
    _show_skills(skills, total, as_json=as_json)


@paged
def search(
    ctx: typer.Context,
    text: Annotated[list[str], typer.Argument(metavar="TEXT", help="Words that must all match.")],
    category: _Category = None,
    tag: _Tag = None,
    limit: _Limit = 20,
    sort: _SortOption = None,
    modified: Annotated[bool, typer.Option("--modified", help="Only skills that were edited or added here.")] = False,
    as_json: _Json = False,
) -> None:
    """Search names, descriptions, tags, categories and code; the best come first."""
    with _reading(ctx.obj) as reading:
        wanted = _wanted(category, tag, modified=modified)
        skills, total = reading.search(" ".join(text), wanted, sort=_sort(sort), limit=limit or None)
        reading.count_read(skills)
    _show_skills(skills, total, as_json=as_json)


@paged
def show(
    ctx: typer.Context,
    skill_id: _Id,
    code: Annotated[bool, typer.Option("--code", help="Print the code alone.")] = False,
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="N|DIGEST", help="A former version, as `skills log` lists them."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Show one skill, or a former version of it."""
    from atom_saas_sync.cli.skill_versions import sent_skill, version_state

    with open_catalogue(ctx.obj) as (store, edits, reading):
        skill_id = whole_id(store, skill_id)
        facts: dict[str, Any] = {}
        waits = False
        if version is not None:
            skill, facts = sent_skill(store, edits, skill_id, version)
        elif (found := reading.skill(skill_id)) is not None:
            skill, waits = found, store.ids().standing(skill_id) == "hold"
            reading.count_read([skill])
        else:
            reading.count_read([])
            raise not_served(store, skill_id)
    from atom_saas_sync.core.canonical import decode_object
    from atom_saas_sync.core.documents import skill_line
    from atom_saas_sync.times import time_text

    fields = decode_object(skill.text)
    if as_json:
        whole = skill.text if fields is None else fields
        print_json({**skill_line(skill, fields or {}), **facts, "skill": whole})
    elif code:
        _print_code((fields or {}).get("code"), skill_id)
    else:
        _print_skill(skill, fields, state=version_state(facts))
    if waits:
        note(f"a newer version waits: `atom-sync updates show {printable(shell_argument(skill_id))}` compares the two")
    if skill.stale:
        note(f"stale: the marketplace last confirmed this skill at {time_text(skill.confirmed_at)}")


@contextmanager
def _reading(options: GlobalOptions) -> Iterator[StoredReading]:
    with open_catalogue(options) as (_, _, reading):
        yield reading


def _wanted(category: str | None, tag: str | None, *, modified: bool) -> SkillFilter:
    return SkillFilter(category=category, tag=tag, modified=modified)


def _sort(text: str | None) -> Any:  # noqa: ANN401 - a Sort, or None
    if text is not None and text not in _SORTS:
        raise UsageError(f"invalid --sort {printable(text)!r}: expected {', '.join(_SORTS)}")
    return text


def _show_skills(skills: list[CachedSkill], total: int, *, as_json: bool) -> None:
    from atom_saas_sync.cli.tables import Column, print_table
    from atom_saas_sync.core.canonical import decode_object
    from atom_saas_sync.core.documents import skill_line

    documents = [skill_line(skill, decode_object(skill.text) or {}) for skill in skills]
    if as_json:
        print_json({"skills": documents, "total": total})
        return
    columns = [
        Column("id"),
        Column("name", drop=1, cut=True),
        Column("version", drop=3, cut=True),
        Column("category", drop=5, cut=True),
        Column("rating", drop=4, right=True),
        Column("", drop=2),
    ]
    shown = ("skill_id", "name", "version", "category", "average_rating")
    print_table(
        columns,
        [
            [
                *(_text(line[name]) for name in shown),
                ", ".join([line["source"]] * (line["source"] != "marketplace") + ["stale"] * line["stale"]),
            ]
            for line in documents
        ],
    )
    more = f", {total - len(skills):,} more: see --limit" if total > len(skills) else ""
    note(f"{len(skills)} of {counted(total, 'skill')}{more}" if more else counted(total, "skill"))


def _print_skill(skill: CachedSkill, fields: dict[str, Any] | None, *, state: str | None = None) -> None:
    from rich.syntax import Syntax
    from rich.text import Text

    from atom_saas_sync.cli.comparison import CODE_COLOURS, LONGEST_HIGHLIGHTED, guess_syntax
    from atom_saas_sync.core.documents import FIGURES, figure
    from atom_saas_sync.times import time_text

    out = console(whole_lines=True)
    if fields is None:
        out.print(Text(f"{printable(skill.skill_id)}: another program stored a text that is not a JSON object:"))
        out.print(Text(printable(skill.text, lines=True)))
        return
    out.print(Text(f"{_text(fields.get('name'))}  {_text(fields.get('version'))}", style="bold"))
    confirmed = f", confirmed at {time_text(skill.confirmed_at)}" if skill.confirmed_at else ""
    state = state or f"{skill.source}{', stale' if skill.stale else ''}{confirmed}"
    out.print(Text(f"{printable(skill.skill_id)} ({state})", style="dim"))
    for name, stored in fields.items():
        value = figure(stored, FIGURES[name]) if name in FIGURES else stored
        if name in {"skill_id", "name", "version", "code"} or value in (None, "", [], {}):
            continue
        label = (f"{printable(name)}: ", "cyan")
        nested = sys.stdout.isatty() and isinstance(value, dict)
        text = json.dumps(value, ensure_ascii=False, indent=2) if nested else _text(value, lines=True)
        out.print(Text.assemble(label, printable(text, lines=True)), soft_wrap=not isinstance(value, str))
    code = fields.get("code")
    if isinstance(code, str) and code:
        out.print(Text("code:", style="cyan"))
        text = printable(code, lines=True).rstrip("\n")
        coloured = out.color_system is not None and len(code) <= LONGEST_HIGHLIGHTED
        syntax = guess_syntax("code", code) if coloured else None
        shown = Text(text) if syntax is None else Syntax("", syntax, theme=CODE_COLOURS).highlight(text)
        # Not wrapped: a terminal does that on its own, and what is copied from it stays whole.
        out.print(shown, soft_wrap=True)


def _print_code(code: object, skill_id: str) -> None:
    if not isinstance(code, str):
        raise NotFound(f"the skill {printable(skill_id)!r} has no code")
    if sys.stdout.isatty():
        sys.stdout.write(printable(code, lines=True).rstrip("\n") + "\n")
    else:
        # To a file or a program, every byte as it is.
        sys.stdout.flush()
        sys.stdout.buffer.write(code.encode(errors="surrogatepass"))
        sys.stdout.buffer.flush()


def _text(value: object, *, lines: bool = False) -> str:
    """Return any JSON value as a terminal may show it."""
    if value is None:
        return ""
    if isinstance(value, str):
        return printable(value, lines=lines)
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return printable(", ".join(value))
    from atom_saas_sync.core.canonical import canonical

    return printable(canonical(value).decode())
