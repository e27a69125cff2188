"""`skills`: reading the cache, local edits, and the versions that the marketplace sent."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atom_saas_sync.cli.output import GlobalOptions, console, print_json, printable
from atom_saas_sync.errors import UsageError
from atom_saas_sync.model import CachedSkill

if TYPE_CHECKING:
    from atom_saas_sync.store.reading import Reading, Wanted

app = typer.Typer(help="The cached skills: read them, edit them, see their versions.", no_args_is_help=True)

_SORTS = ("rating", "name", "updated")

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_Category = Annotated[str | None, typer.Option("--category", metavar="NAME", help="Only this category.")]
_Tag = Annotated[str | None, typer.Option("--tag", metavar="TAG", help="Only with this tag.")]
_Limit = Annotated[int, typer.Option("--limit", min=0, metavar="N", help="Show so many at most; 0 means all.")]
_SortOption = Annotated[str | None, typer.Option("--sort", metavar="S", help="rating, name or updated.")]
_Id = Annotated[str, typer.Argument(metavar="ID", help="The skill's id.")]


@app.command("list")
def list_skills(
    ctx: typer.Context,
    category: _Category = None,
    tag: _Tag = None,
    limit: _Limit = 50,
    sort: _SortOption = None,
    modified: Annotated[bool, typer.Option("--modified", help="Only those edited here, or only here.")] = False,
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
def search(
    ctx: typer.Context,
    text: Annotated[list[str], typer.Argument(metavar="TEXT", help="Words that must all be there.")],
    category: _Category = None,
    tag: _Tag = None,
    limit: _Limit = 20,
    sort: _SortOption = None,
    modified: Annotated[bool, typer.Option("--modified", help="Only those edited here, or only here.")] = False,
    as_json: _Json = False,
) -> None:
    """Search names, descriptions, tags, categories and code; the best come first."""
    with _reading(ctx.obj) as reading:
        wanted = _wanted(category, tag, modified=modified)
        skills, total = reading.search(" ".join(text), wanted, sort=_sort(sort), limit=limit or None)
        reading.count_read(skills)
    _show_skills(skills, total, as_json=as_json)


@app.command()
def show(
    ctx: typer.Context,
    skill_id: _Id,
    code: Annotated[bool, typer.Option("--code", help="Print the code alone.")] = False,
    as_json: _Json = False,
) -> None:
    """Show one skill."""
    with _reading(ctx.obj) as reading:
        skill = reading.skill(skill_id)
        reading.count_read([] if skill is None else [skill])
    if skill is None:
        raise unknown_skill(skill_id)
    from atom_saas_sync.core.canonical import decode_object

    fields = decode_object(skill.text)
    if as_json:
        print_json({**_document(skill, fields or {}), "skill": skill.text if fields is None else fields})
    elif code:
        _print_code((fields or {}).get("code"), skill_id)
    else:
        _print_skill(skill, fields)
    if skill.stale:
        sys.stderr.write(f"stale: the marketplace last confirmed this skill at {skill.confirmed_at}\n")


def unknown_skill(skill_id: str) -> UsageError:
    """Return the error for an id that is not in the cache."""
    return UsageError(
        f"there is no skill {printable(skill_id)!r} in the cache",
        hint="`atom-sync skills search TEXT` finds ids; `atom-sync sync skills` brings the cache up to date",
    )


@contextmanager
def _reading(options: GlobalOptions) -> Iterator[Reading]:
    from datetime import UTC, datetime

    from atom_saas_sync.cli import runtime
    from atom_saas_sync.store.database import Database
    from atom_saas_sync.store.reading import Reading

    with Database.open(runtime.load(options).database_path) as database:
        yield Reading(database, now=datetime.now(UTC))


def _wanted(category: str | None, tag: str | None, *, modified: bool) -> Wanted:
    from atom_saas_sync.store.reading import Wanted

    return Wanted(category=category, tag=tag, modified=modified)


def _sort(text: str | None) -> Any:  # noqa: ANN401 - a Sort, or None
    if text is not None and text not in _SORTS:
        raise UsageError(f"--sort {printable(text)!r} does not exist; it takes {', '.join(_SORTS)}")
    return text


def _document(skill: CachedSkill, fields: dict[str, Any]) -> dict[str, Any]:
    names = ("name", "version", "category", "description", "tags", "average_rating", "rating_count", "updated_at")
    return {
        "skill_id": skill.skill_id,
        **{name: fields.get(name) for name in names},
        "source": skill.source,
        "confirmed_at": skill.confirmed_at,
        "stale": skill.stale,
    }


def _show_skills(skills: list[CachedSkill], total: int, *, as_json: bool) -> None:
    from atom_saas_sync.core.canonical import decode_object

    documents = [_document(skill, decode_object(skill.text) or {}) for skill in skills]
    if as_json:
        print_json({"skills": documents, "total": total})
        return
    from rich.table import Table
    from rich.text import Text

    out = console()
    if documents:
        table = Table(box=None, pad_edge=False)
        # Ids are there to be copied: whole, as long as they are not absurd.
        longest = max(len(line["skill_id"]) for line in documents)
        table.add_column("id", overflow="fold", min_width=min(longest, 40))
        table.add_column("name", no_wrap=True, min_width=12, max_width=40)
        table.add_column("version", no_wrap=True, max_width=16)
        table.add_column("category", no_wrap=True, max_width=20)
        table.add_column("rating", justify="right", no_wrap=True, min_width=6)
        table.add_column("", no_wrap=True)
        for line in documents:
            table.add_row(
                *(Text(_text(line[name])) for name in ("skill_id", "name", "version", "category", "average_rating")),
                Text(", ".join([line["source"]] * (line["source"] != "marketplace") + ["stale"] * line["stale"])),
            )
        out.print(table)
    more = f", {total - len(skills)} more: see --limit" if total > len(skills) else ""
    sys.stderr.write(f"{len(skills)} of {total} skills{more}\n" if more else f"{total} skills\n")


def _print_skill(skill: CachedSkill, fields: dict[str, Any] | None) -> None:
    from rich.syntax import Syntax
    from rich.text import Text

    out = console()
    if fields is None:
        out.print(Text(f"{printable(skill.skill_id)}: another program left something here that is no JSON object:"))
        out.print(Text(printable(skill.text, lines=True)))
        return
    out.print(Text(f"{_text(fields.get('name'))}  {_text(fields.get('version'))}", style="bold"))
    state = f"{skill.source}{', stale' if skill.stale else ''}"
    confirmed = f", confirmed at {skill.confirmed_at}" if skill.confirmed_at else ""
    out.print(Text(f"{printable(skill.skill_id)} ({state}{confirmed})", style="dim"))
    for name, value in fields.items():
        if name in {"skill_id", "name", "version", "code"} or value in (None, "", [], {}):
            continue
        label = Text(f"{printable(name)}: ", style="cyan")
        out.print(label + Text(_text(value, lines=True)), soft_wrap=not isinstance(value, str))
    code = fields.get("code")
    if isinstance(code, str) and code:
        out.print(Text("code:", style="cyan"))
        out.print(Syntax(printable(code, lines=True), guess_lexer(code), word_wrap=True, background_color="default"))


def guess_lexer(code: str) -> str:
    """Return the name of a syntax for colours: most skills are Python, or Markdown with parts in it."""
    start = code.lstrip()[:2000]
    if start.startswith("---\n") or (start.startswith(("# ", "```")) and "\n## " in code):
        return "markdown"
    if start.startswith("#!") and "sh" in start.split("\n", 1)[0]:
        return "bash"
    return "python"


def _print_code(code: object, skill_id: str) -> None:
    if not isinstance(code, str):
        raise UsageError(f"the skill {printable(skill_id)!r} has no code")
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
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{value:g}"
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return printable(", ".join(value))
    from atom_saas_sync.core.canonical import canonical

    return printable(canonical(value).decode())
