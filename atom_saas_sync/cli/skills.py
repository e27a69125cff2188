"""`skills`: reading the cache, local edits, and the versions that the marketplace sent."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.identify import open_catalogue, unknown_skill, whole_id
from atom_saas_sync.cli.output import (
    GlobalOptions,
    console,
    counted,
    file_name,
    note,
    print_json,
    read_text,
    say,
)
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.cli.skill_versions import diff, log, sent_skill, version_state
from atom_saas_sync.cli.tables import Column, print_table
from atom_saas_sync.errors import NotFound, UsageError
from atom_saas_sync.model import CachedSkill, Wanted

if TYPE_CHECKING:
    from atom_saas_sync.store.catalogue import Catalogue
    from atom_saas_sync.store.reading import Reading

app = typer.Typer(help="Read, edit and compare the cached skills.", no_args_is_help=True)

_SORTS = ("rating", "name", "updated")

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_Category = Annotated[str | None, typer.Option("--category", metavar="CATEGORY", help="Only this category.")]
_Tag = Annotated[str | None, typer.Option("--tag", metavar="TAG", help="Only with this tag.")]
_Limit = Annotated[
    int, typer.Option("--limit", min=0, max=10**9, metavar="N", help="Maximum number of rows; 0: no limit.")
]
_SortOption = Annotated[str | None, typer.Option("--sort", metavar="ORDER", help="rating, name or updated.")]
_Id = Annotated[str, typer.Argument(metavar="ID", help="The skill's id, or its first 4 or more characters.")]


@app.command("list")
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


@app.command()
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


@app.command()
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
    with open_catalogue(ctx.obj) as (catalogue, reading):
        skill_id = whole_id(catalogue.database, skill_id)
        facts: dict[str, Any] = {}
        if version is not None:
            skill, facts = sent_skill(catalogue, skill_id, version)
        elif (found := reading.skill(skill_id)) is not None:
            skill = found
            reading.count_read([skill])
        else:
            reading.count_read([])
            raise unknown_skill(skill_id)
    from atom_saas_sync.core.canonical import decode_object
    from atom_saas_sync.core.documents import skill_line

    fields = decode_object(skill.text)
    if as_json:
        whole = skill.text if fields is None else fields
        print_json({**skill_line(skill, fields or {}), **facts, "skill": whole})
    elif code:
        _print_code((fields or {}).get("code"), skill_id)
    else:
        _print_skill(skill, fields, state=version_state(facts))
    if skill.stale:
        note(f"stale: the marketplace last confirmed this skill at {skill.confirmed_at}")


@app.command()
def edit(
    ctx: typer.Context,
    skill_id: _Id,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Set a field: text as it is, others as JSON; @FILE reads the value from a file; repeatable.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="Read the whole skill as JSON from FILE; - is standard input."),
    ] = None,
    new_fields: Annotated[
        bool, typer.Option("--new-field", help="Let --set add a field that is not in the contract.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Edit the local version, in $EDITOR unless told how. No sync overwrites it in silence."""
    from atom_saas_sync.core.documents import read_one
    from atom_saas_sync.usecases.edit_skills import set_fields

    if changes and file is not None:
        raise UsageError("--set and --file exclude each other")
    with open_catalogue(ctx.obj) as (catalogue, reading):
        skill_id = whole_id(catalogue.database, skill_id)
        skill = reading.skill(skill_id)
        if skill is None:
            raise unknown_skill(skill_id)
        if file is not None:
            text = read_one(read_text(file), file_name(file))
            changed = _store_edit(catalogue, skill_id, text, seen=None)
        elif changes:
            text = set_fields(skill.text, _values(changes), new_fields=new_fields)
            changed = _store_edit(catalogue, skill_id, text, seen=skill.text)
        else:
            changed = _edit_by_hand(catalogue, skill)
    _tell(skill_id, "edited" if changed else "nothing was changed", changed=changed, as_json=as_json)


@app.command("import")
def import_skills(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="JSON or JSON lines; - is standard input.")],
    as_json: _Json = False,
) -> None:
    """Add skills, or edit those that are there: all of them, or none if one is not a skill."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.core.documents import read_skills
    from atom_saas_sync.usecases.edit_skills import Candidate
    from atom_saas_sync.usecases.edit_skills import import_skills as do_import

    candidates = [
        Candidate(place, raw) for path in files for place, raw in read_skills(read_text(path), file_name(path))
    ]
    with open_catalogue(ctx.obj, create=True) as (catalogue, _):
        done = do_import(catalogue, candidates, actor=runtime.person(), now=datetime.now(UTC))
    if as_json:
        print_json({"added": done.added, "updated": done.updated, "unchanged": done.unchanged})
    else:
        say(f"{done.added} added, {done.updated} edited, {done.unchanged} as they were")


@app.command()
def revert(ctx: typer.Context, skill_id: _Id, as_json: _Json = False) -> None:
    """Put the local version back to what the marketplace sent last."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.usecases.edit_skills import revert_skill

    with open_catalogue(ctx.obj) as (catalogue, _):
        skill_id = whole_id(catalogue.database, skill_id)
        changed = revert_skill(catalogue, skill_id, actor=runtime.person(), now=datetime.now(UTC))
    _tell(skill_id, "reverted" if changed else "it was not edited", changed=changed, as_json=as_json)


app.command()(diff)
app.command()(log)


def _store_edit(catalogue: Catalogue, skill_id: str, text: str, *, seen: str | None) -> bool:
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.usecases.edit_skills import edit_skill

    return edit_skill(catalogue, skill_id, text, seen=seen, actor=runtime.person(), now=datetime.now(UTC))


def _edit_by_hand(catalogue: Catalogue, skill: CachedSkill) -> bool:
    from atom_saas_sync.cli.editor import EditedFile, keeping, pretty
    from atom_saas_sync.core.documents import read_one

    file = EditedFile(pretty(skill.text), name="skill.json")
    with keeping(file):
        text = file.edit()
        if text is None:
            return False
        return _store_edit(catalogue, skill.skill_id, read_one(text, "the edited text"), seen=skill.text)


def _values(texts: list[str]) -> dict[str, Any]:
    """Read FIELD=VALUE: a text field takes the value as it is, any other JSON if it is some."""
    from atom_saas_sync.core.documents import Problem, check_text, read_value
    from atom_saas_sync.core.incoming.fields import TEXT_FIELDS, TIME_FIELDS

    values: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not name or not separator:
            raise UsageError(f"invalid --set {printable(text)!r}: expected FIELD=VALUE")
        if value.startswith("@"):
            value = read_text(Path(value[1:]))
        try:
            values[name] = check_text(value) if name in (*TEXT_FIELDS, *TIME_FIELDS) else read_value(value)
        except Problem as problem:
            raise UsageError(f"invalid --set {printable(name)}: {problem}", hint="nothing was changed") from problem
    return values


def _tell(skill_id: str, what: str, *, changed: bool, as_json: bool) -> None:
    if as_json:
        print_json({"skill_id": skill_id, "changed": changed})
    else:
        say(f"{printable(skill_id)}: {what}")


@contextmanager
def _reading(options: GlobalOptions) -> Iterator[Reading]:
    with open_catalogue(options) as (_, reading):
        yield reading


def _wanted(category: str | None, tag: str | None, *, modified: bool) -> Wanted:
    return Wanted(category=category, tag=tag, modified=modified)


def _sort(text: str | None) -> Any:  # noqa: ANN401 - a Sort, or None
    if text is not None and text not in _SORTS:
        raise UsageError(f"invalid --sort {printable(text)!r}: expected {', '.join(_SORTS)}")
    return text


def _show_skills(skills: list[CachedSkill], total: int, *, as_json: bool) -> None:
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

    out = console(whole_lines=True)
    if fields is None:
        out.print(Text(f"{printable(skill.skill_id)}: another program left something here that is no JSON object:"))
        out.print(Text(printable(skill.text, lines=True)))
        return
    out.print(Text(f"{_text(fields.get('name'))}  {_text(fields.get('version'))}", style="bold"))
    confirmed = f", confirmed at {skill.confirmed_at}" if skill.confirmed_at else ""
    state = state or f"{skill.source}{', stale' if skill.stale else ''}{confirmed}"
    out.print(Text(f"{printable(skill.skill_id)} ({state})", style="dim"))
    for name, stored in fields.items():
        value = figure(stored, FIGURES[name]) if name in FIGURES else stored
        if name in {"skill_id", "name", "version", "code"} or value in (None, "", [], {}):
            continue
        label = Text(f"{printable(name)}: ", style="cyan")
        out.print(label + Text(_text(value, lines=True)), soft_wrap=not isinstance(value, str))
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
