"""`lock`: write a lock file of what is served, and compare the two."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atom_saas_sync.characters import shell_argument
from atom_saas_sync.cli.output import GlobalOptions, counted, file_name, note, print_json, read_text, say
from atom_saas_sync.errors import ConfigError, NotFound, UsageError

if TYPE_CHECKING:
    from atom_saas_sync.config import Settings
    from atom_saas_sync.core.gate.lock_file import Difference
    from atom_saas_sync.core.gate.types import Locked, LockFile
    from atom_saas_sync.usecases.ports import Store

app = typer.Typer(help="Write lock files and compare them with what is served.", no_args_is_help=True)

_STREAM = "-"
_DIFFERENT = 4
_DIGITS = 12

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_File = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="The lock file; - is standard input [env: ATOM_SYNC_LOCK_FILE]."),
]


@app.command()
def write(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="The file to write; - is standard output, the default if none is set [env: ATOM_SYNC_LOCK_FILE].",
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Write which version of each skill is served. A file that exists must be a lock file."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.core.gate.lock_file import lock_text
    from atom_saas_sync.textfile import refuse_foreign, write_textfile

    settings = runtime.load(ctx.obj)
    served = _served(settings)
    target = file or settings.lock_file
    if target is None or str(target) == _STREAM:
        sys.stdout.write(lock_text(served))
        sys.stdout.flush()
        return
    # Also one that version control has left with marks of a conflict.
    refuse_foreign(target, lambda start: b'"lock_version"' in start, "lock file")
    write_textfile(target, lock_text(served))
    if as_json:
        print_json({"lock_file": str(target.absolute()), "skills": len(served.skills)})
    else:
        say(f"{target}: {counted(len(served.skills), 'skill')}")


@app.command()
def check(ctx: typer.Context, file: _File = None, as_json: _Json = False) -> None:
    """Check that what is served is what the lock file lists."""
    if _compare(ctx.obj, file, as_json=as_json, fails=True):
        raise typer.Exit(_DIFFERENT)


@app.command()
def diff(ctx: typer.Context, file: _File = None, as_json: _Json = False) -> None:
    """Show the differences between what is served and the lock file."""
    _compare(ctx.obj, file, as_json=as_json, fails=False)


def _compare(options: GlobalOptions, file: Path | None, *, as_json: bool, fails: bool) -> bool:
    """Print the differences, and tell whether there are any; with `fails`, they make `success` false in JSON."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.core.gate.lock_file import compare

    settings = runtime.load(options)
    lock, name = read_lock(settings, file)
    served = _served(settings)
    if lock.marketplace != served.marketplace:
        note(f"{name} is of {lock.marketplace}, and the database of {served.marketplace}")
    differences = compare(lock, served.skills)
    if as_json:
        print_json(
            {
                "success": not (fails and differences),
                "lock_file": name,
                "differences": [_document(each) for each in differences],
                "total": len(differences),
            }
        )
        return bool(differences)
    for each in differences:
        say(f"{each.kind:9}  {each.skill_id}  {_described(each)}")
    if differences:
        say(f"{counted(len(differences), 'difference')} from {name}")
    else:
        say(f"no difference from {name}: {counted(len(served.skills), 'skill')}")
    return bool(differences)


def read_lock(settings: Settings, file: Path | None) -> tuple[LockFile, str]:
    """Read the lock file, and return it with its name. Raises NotFound, UsageError and ConfigError."""
    from atom_saas_sync.config.gate import SettingsFiles
    from atom_saas_sync.core.gate.lock_file import parse_lock

    path = file or settings.lock_file
    if path is None:
        raise UsageError("no lock file: name one, or set ATOM_SYNC_LOCK_FILE")
    name = file_name(path)
    if str(path) != _STREAM and _is_missing(path):
        missing = f"the lock file {name} does not exist"
        hint = f"`atom-sync lock write {shell_argument(name)}` writes one of what is served"
        is_configured = settings.lock_file is not None and path.absolute() == settings.lock_file.absolute()
        required = is_configured and settings.admission == "lock"
        raise ConfigError(missing, hint=hint) if required else NotFound(missing, hint=hint)
    if file is None and (configured := SettingsFiles(settings).lock()) is not None:  # does not wait for a pipe's writer
        return parse_lock(configured[1], name), name
    try:
        text = read_text(path)
    except UsageError as error:  # the same exit code as for text that is not a lock file
        raise ConfigError(error.message, hint=error.hint) from error
    return parse_lock(text.encode(), name), name


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # reading it says why it cannot be read
    return False


def _served(settings: Settings) -> LockFile:
    from atom_saas_sync.store import open_store

    with open_store(settings.database, migrate=False, read_only=True) as store:
        return served_lock(settings, store)


def served_lock(settings: Settings, store: Store) -> LockFile:
    """Return the lock file of what is served."""
    from atom_saas_sync.core.gate.lock_file import lock_of
    from atom_saas_sync.core.marketplace import marketplace_of

    marketplace = store.runs().marketplace() or marketplace_of(settings.api_url)
    return lock_of(store.serving().texts(), marketplace)


def _document(difference: Difference) -> dict[str, str | None]:
    from atom_saas_sync.core.gate.digests import digest_text

    locked, served = difference.locked, difference.served
    return {
        "skill_id": difference.skill_id,
        "kind": difference.kind,
        "locked_version": None if locked is None else locked.version,
        "served_version": None if served is None else served.version,
        "locked_digest": None if locked is None else digest_text(locked.content),
        "served_digest": None if served is None else digest_text(served.content),
    }


def _described(difference: Difference) -> str:
    locked, served = difference.locked, difference.served
    if locked is None or served is None:
        return _one(locked or served)
    return f"locked {_one(locked)}, served {_one(served)}"


def _one(of: Locked | None) -> str:
    assert of is not None
    return f"{of.version or '-'} (sha256:{of.content.hex()[:_DIGITS]}{', ' + of.source if of.source else ''})"
