"""The program `atom-sync`: global options, command groups, and the one place where errors become exit codes.

Only the standard library, typer, errors and model are imported at the top of a CLI module; a command imports the
rest in its body, so that `--help` and `status` start fast (tests/test_imports.py pins it).
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from atom_saas_sync import __version__
from atom_saas_sync.cli.lazy import Part, lazy_group
from atom_saas_sync.cli.output import GlobalOptions, report_failure
from atom_saas_sync.errors import AtomSyncError

# The line of help is that of the command itself (tests/test_imports.py): here, so that `--help` imports none of them.
PARTS = {
    "sync": Part("atom_saas_sync.cli.sync", "app", "Synchronise with the marketplace."),
    "status": Part("atom_saas_sync.cli.status", "status", "Show what is going on, and what is wrong."),
    "config": Part("atom_saas_sync.cli.configuration", "app", "The effective configuration, and whether it is right."),
    "db": Part("atom_saas_sync.cli.database", "app", "Migrations, checks and backups of the database."),
    "skills": Part("atom_saas_sync.cli.skills", "app", "The cached skills: read them, edit them, see their versions."),
    "demo": Part("atom_saas_sync.cli.demo", "demo", "Try everything out against a sandbox."),
    "conflicts": Part("atom_saas_sync.cli.conflicts", "app", "Conflicts: see them, settle them, take that back."),
    "cache": Part("atom_saas_sync.cli.cache", "app", "The cache: how old it is, and removing what expired."),
    "sandbox": Part(
        "atom_saas_sync.cli.sandbox", "app", "A local marketplace for trying out, tests and demos; not the real one."
    ),
}

app = typer.Typer(
    cls=lazy_group(PARTS),
    name="atom-sync",
    help="Keeps a local, trustworthy copy of the Atom marketplace's skills, in both directions.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"atom-sync {__version__}")
        raise typer.Exit


@app.callback()
def main(
    ctx: typer.Context,
    env_file: Annotated[Path | None, typer.Option(help="Read settings from this file in place of ./.env.")] = None,
    database_url: Annotated[
        str | None, typer.Option("--database", help="Database, as sqlite:///PATH or a plain path.")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    log_format: Annotated[str, typer.Option(help="auto, text, json or journal.")] = "auto",
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Set the options that every command shares."""
    gc.freeze()
    gc.enable()  # off since __main__
    ctx.obj = GlobalOptions(env_file=env_file, database=database_url, log_level=log_level, log_format=log_format)


def run() -> None:
    """Run the command line; every AtomSyncError becomes one clear line and its exit code."""
    try:
        app()
    except AtomSyncError as error:
        report_failure(error, as_json="--json" in sys.argv)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        # The reader (head, less) has gone: not our failure. Python would complain again at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
