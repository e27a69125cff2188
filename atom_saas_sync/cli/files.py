"""`files`: list and write the files shipped with the program."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.output import console, print_json, say
from atom_saas_sync.errors import DatabaseError, NotFound, UsageError

if TYPE_CHECKING:
    from typer._click import Command

    from atom_saas_sync.shipped import ShippedFile

app = typer.Typer(
    help="List and write the units, alerts, manual pages and other files.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command("list")
def list_files(ctx: typer.Context, as_json: _Json = False) -> None:
    """List the files that are shipped with the program."""
    files = all_files(ctx.find_root().command)
    if as_json:
        shown = [{"name": file.name, "meaning": file.meaning, "size_bytes": len(file.text.encode())} for file in files]
        print_json({"files": shown, "total": len(shown)})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("file", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for file in files:
        table.add_row(file.name, file.meaning)
    console(whole_lines=True).print(table)


@app.command()
def write(
    ctx: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to write to; it is created if needed.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Files or directories of `files list`; default: all.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files whose content differs.")] = False,
    as_json: _Json = False,
) -> None:
    """Write files to a directory. Files that exist with other content are refused."""
    from atom_saas_sync.textfile import refuse_irregular, write_textfile

    chosen = {directory / file.name: file.text for file in _chosen(all_files(ctx.find_root().command), names or [])}
    changed = {}
    for path, text in chosen.items():
        refuse_irregular(path)
        if _text_of(path) != text:
            changed[path] = text
    if (differ := [path for path in changed if os.path.lexists(path)]) and not force:
        raise UsageError(
            f"{differ[0]} exists and differs from what would be written"
            + (f" (and {len(differ) - 1} more)" if len(differ) > 1 else ""),
            hint="nothing was written; choose another directory, or replace with --force",
        )
    for path, text in changed.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseError(f"cannot create {path.parent}: {error.strerror}", hint="choose another DIR") from error
        write_textfile(path, text)
    if as_json:
        print_json(
            {
                "directory": str(directory),
                "files": [str(path.relative_to(directory)) for path in chosen],
                "written": [str(path.relative_to(directory)) for path in changed],
                "total": len(chosen),
            }
        )
        return
    for path in changed:
        say(f"wrote {path}")
    if not changed:
        say(f"all files in {directory} are up to date")
    if (manual := directory / "man" / "man1" / "atom-sync.1") in chosen:
        say(f"  → read the manual: `man -M {directory / 'man'} {manual.stem}`")


def all_files(root: Command) -> list[ShippedFile]:
    """Return the shipped files and the program's manual pages, by name."""
    from atom_saas_sync.cli.manual import manual_pages
    from atom_saas_sync.shipped import shipped_files

    return sorted([*shipped_files(), *manual_pages(root)], key=lambda file: file.name)


def _chosen(files: list[ShippedFile], names: list[str]) -> list[ShippedFile]:
    """Return the files with these names, or below directories with these names. Raises NotFound."""
    if not names:
        return files
    chosen: dict[str, ShippedFile] = {}
    for name in names:
        wanted = name.rstrip("/")
        found = [file for file in files if file.name == wanted or file.name.startswith(f"{wanted}/")]
        if not found:
            raise NotFound(f"no file is called {printable(name)!r}", hint="`atom-sync files list` shows the names")
        chosen.update({file.name: file for file in found})
    return list(chosen.values())


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        return None  # the write reports the error
