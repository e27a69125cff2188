"""The program `atom-sync`: global options, command groups, and the one place where errors become exit codes.

Only the standard library, typer, errors and model are imported at the top of a CLI module; a command imports the
rest in its body, so that `--help` and `status` start fast (tests/test_imports.py pins it).
"""

from __future__ import annotations

import gc
import os
import resource
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from atom_saas_sync import __version__
from atom_saas_sync.cli.lazy import HELP_OPTIONS, Part, lazy_group
from atom_saas_sync.cli.output import (
    GlobalOptions,
    OutputFailed,
    ReaderGone,
    drop_output,
    error_document,
    given_options,
    print_json,
    report_bug,
    report_failure,
    set_up_streams,
    take_option,
    take_options,
)
from atom_saas_sync.errors import AtomSyncError, ConfigError, DatabaseError, UsageError

# The line of help is that of the command itself (tests/test_imports.py): here, so that `--help` imports none of them.
PARTS = {
    "sync": Part("atom_saas_sync.cli.sync", "app", "Synchronise with the marketplace."),
    "status": Part("atom_saas_sync.cli.status", "status", "Show what is going on, and what is wrong."),
    "watch": Part("atom_saas_sync.cli.watch", "watch", "Follow the marketplace in real time, until told to stop."),
    "runs": Part("atom_saas_sync.cli.runs", "app", "Past and current runs: what each did, and why it failed."),
    "jobs": Part("atom_saas_sync.cli.jobs", "app", "The scheduled jobs: when they run next, and stopping them all."),
    "schedule": Part(
        "atom_saas_sync.cli.schedule", "app", "What starts the jobs: systemd units or a crontab, shown or installed."
    ),
    "doctor": Part("atom_saas_sync.cli.doctor", "doctor", "Look for what is wrong, and say the cure."),
    "metrics": Part("atom_saas_sync.cli.metrics", "metrics", "Print the metrics as Prometheus reads them."),
    "serve-health": Part(
        "atom_saas_sync.cli.serve_health", "serve_health", "Serve health, metrics and the admin API over HTTP."
    ),
    "config": Part("atom_saas_sync.cli.configuration", "app", "The effective configuration, and whether it is right."),
    "db": Part("atom_saas_sync.cli.database", "app", "Migrations, checks and backups of the database."),
    "skills": Part("atom_saas_sync.cli.skills", "app", "The cached skills: read them, edit them, see their versions."),
    "demo": Part("atom_saas_sync.cli.demo", "demo", "Try everything out against a sandbox."),
    "ratings": Part("atom_saas_sync.cli.ratings", "app", "Ratings: give them, see them, send failed ones again."),
    "conflicts": Part("atom_saas_sync.cli.conflicts", "app", "Conflicts: see them, settle them, take that back."),
    "cache": Part("atom_saas_sync.cli.cache", "app", "The cache: how old it is, and removing what expired."),
    "budget": Part("atom_saas_sync.cli.budget", "app", "The request budget: what is left, and who limits it."),
    "sandbox": Part(
        "atom_saas_sync.cli.sandbox", "app", "A local marketplace for trying out, tests and demos; not the real one."
    ),
}

# A page of skills makes thousands of objects, and no garbage in circles.
_OBJECTS_BEFORE_COLLECTION = 10_000

app = typer.Typer(
    cls=lazy_group(PARTS, take_option),
    name="atom-sync",
    help="Keeps a local, trustworthy copy of the Atom marketplace's skills, in both directions.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": HELP_OPTIONS},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"atom-sync {__version__}")
        raise typer.Exit


@app.callback()
def main(
    ctx: typer.Context,
    env_file: Annotated[Path | None, typer.Option(help="Read settings from this file in place of ./.env.")] = None,
    no_env_file: Annotated[bool, typer.Option("--no-env-file", help="Read no .env.")] = False,
    system: Annotated[
        bool,
        typer.Option("--system", help="Use the settings, token and database of the service [env: ATOM_SYNC_SYSTEM]."),
    ] = False,
    database: Annotated[str | None, typer.Option(help="Database, as sqlite:///PATH or a plain path.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error; overrides -v and -q.")] = None,
    log_format: Annotated[str, typer.Option(help="auto, text, json or journal.")] = "auto",
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Log what is done; -vv also each request and page.")
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors on standard error.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Set the options that every command shares; they may also stand after it."""
    gc.freeze()
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
    gc.enable()  # off since __main__
    take_options(
        ctx,
        GlobalOptions(
            env_file=env_file,
            no_env_file=no_env_file,
            system=system,
            database=database,
            log_level=log_level,
            log_format=log_format,
            verbose=verbose,
            quiet=quiet,
        ),
    )


def run() -> None:
    """Run the command line; every error becomes one clear line and its exit code."""
    if os.getpid() == 1:
        # The kernel drops signals that the first process of a container does not handle.
        signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    # A core would hold the token.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    set_up_streams()
    try:
        exit_code = _run(as_json="--json" in sys.argv)
        sys.stdout.flush()
    except ReaderGone:
        drop_output()
        exit_code = 0
    except OutputFailed as error:
        drop_output()
        sys.stderr.write(f"atom-sync: can't write: {error}\n")
        exit_code = DatabaseError.exit_code
    raise SystemExit(exit_code)


def _run(*, as_json: bool) -> int:
    try:
        _require_decoded(sys.argv[1:])
        done = app(prog_name="atom-sync", standalone_mode=False)
    except AtomSyncError as error:
        _name_service_user(error)
        report_failure(error, as_json=as_json)
        return error.exit_code
    except typer.Abort:
        sys.stderr.write("Aborted!\n")
        return 1
    except typer.TyperException as error:  # wrong usage, in Typer's words
        if as_json:
            print_json({"success": False, "error": error_document(UsageError(error.format_message()))})
        cast("typer.BadParameter", error).show()  # each of them can, though the public base does not say so
        return error.exit_code
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # Typer ends so where a pipe or socket of ours broke
            return report_bug(end.__context__, as_json=as_json)
        done = end.code
    except (ReaderGone, OutputFailed):
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence
        return _report_unforeseen(error, as_json=as_json)
    return done if isinstance(done, int) else 0  # the code of typer.Exit; commands return nothing


def _name_service_user(error: AtomSyncError) -> None:
    """Let the hint be the line to type, where this user may not read what belongs to the service."""
    if error.__cause__ is None or not isinstance(error, ConfigError | DatabaseError):
        return
    from atom_saas_sync.cli.runtime import is_system
    from atom_saas_sync.places import SERVICE_USER
    from atom_saas_sync.store.failures import is_denied

    if is_denied(error.__cause__) and is_system(given_options.get()):
        command = [each for each in sys.argv[1:] if each != "--system"]
        error.hint = f"run: {shlex.join(['sudo', '-u', SERVICE_USER, 'atom-sync', '--system', *command])}"


def _report_unforeseen(error: Exception, *, as_json: bool) -> int:
    if not (isinstance(error, OSError | RuntimeError) and "--install-completion" in sys.argv):  # which is Typer's own
        return report_bug(error, as_json=as_json)
    failure = DatabaseError(f"cannot install completion: {error}", hint="`--show-completion` prints the script")
    report_failure(failure, as_json=as_json)
    return failure.exit_code


def _require_decoded(arguments: list[str]) -> None:
    """Refuse arguments that are not text: they could be neither stored, sent nor printed. Raises UsageError."""
    for argument in arguments:
        if any("\udc80" <= character <= "\udcff" for character in argument):
            shown = argument.encode(errors="surrogateescape").decode(errors="backslashreplace")
            raise UsageError(
                f"the argument '{shown}' is not valid {sys.getfilesystemencoding().upper()}",
                hint="check the encoding of your terminal or script; rename files whose names are in another one",
            )
