"""The program `atom-sync`: global options, command groups, and the one place where errors become exit codes.

Only the standard library, typer, errors and model are imported at the top of a CLI module; a command imports the
rest in its body, so that `--help` and `status` start fast (tests/test_imports.py pins it).
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Annotated

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

# The same help lines as in the commands (tests/test_imports.py), repeated here so that `--help` imports no command.
PARTS = {
    "sync": Part("atom_saas_sync.cli.sync", "app", "Synchronise with the marketplace."),
    "status": Part("atom_saas_sync.cli.status", "status", "Show activity and problems."),
    "watch": Part("atom_saas_sync.cli.watch", "watch", "Follow the marketplace in real time until stopped."),
    "runs": Part("atom_saas_sync.cli.runs", "app", "List and show past and current runs."),
    "jobs": Part("atom_saas_sync.cli.jobs", "app", "Show, stop and start the scheduled jobs."),
    "schedule": Part("atom_saas_sync.cli.schedule", "app", "Print, install or remove systemd units or a crontab."),
    "doctor": Part("atom_saas_sync.cli.doctor", "doctor", "Diagnose problems and suggest fixes."),
    "metrics": Part("atom_saas_sync.cli.metrics", "metrics", "Print the metrics in Prometheus' text format."),
    "serve-health": Part(
        "atom_saas_sync.cli.serve_health", "serve_health", "Serve health, metrics and the admin API over HTTP."
    ),
    "completion": Part(
        "atom_saas_sync.cli.completion", "completion", "Print the script for tab completion in a shell."
    ),
    "config": Part("atom_saas_sync.cli.config", "app", "Create, show and check the configuration."),
    "db": Part("atom_saas_sync.cli.db", "app", "Migrate, check, back up and restore the database."),
    "files": Part("atom_saas_sync.cli.files", "app", "List and write the units, alerts, manual pages and other files."),
    "lock": Part("atom_saas_sync.cli.lock", "app", "Write lock files and compare them with what is served."),
    "policy": Part("atom_saas_sync.cli.policy", "app", "Check the admission policy, and explain its verdicts."),
    "skills": Part("atom_saas_sync.cli.skills", "app", "Read, edit and compare the cached skills."),
    "demo": Part("atom_saas_sync.cli.demo", "demo", "Take a guided tour against a sandbox."),
    "ratings": Part("atom_saas_sync.cli.ratings", "app", "Rate skills; list and retry ratings."),
    "conflicts": Part("atom_saas_sync.cli.conflicts", "app", "List, inspect, resolve and undo conflicts."),
    "updates": Part("atom_saas_sync.cli.updates", "app", "List, inspect, approve and reject waiting updates."),
    "pins": Part("atom_saas_sync.cli.pins", "app", "Keep skills at one version."),
    "revocations": Part("atom_saas_sync.cli.revocations", "app", "Take skills, versions or publishers out of service."),
    "quarantine": Part("atom_saas_sync.cli.quarantine", "app", "Take skills out of service, and put them back."),
    "cache": Part("atom_saas_sync.cli.cache", "app", "Show the age of the cache; remove expired entries."),
    "budget": Part("atom_saas_sync.cli.budget", "app", "Show and reset the request budget."),
    "sandbox": Part("atom_saas_sync.cli.sandbox", "app", "Run a mock marketplace for experiments, tests and demos."),
}

# What a command imports, and a page of skills, are tens of thousands of objects, but no cyclic garbage.
_OBJECTS_BEFORE_COLLECTION = 50_000

app = typer.Typer(
    cls=lazy_group(PARTS, take_option),
    name="atom-sync",
    help="Two-way sync between the Atom skills marketplace and a local database: SQLite or PostgreSQL.",
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
    env_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read settings from FILE instead of ./.env.")
    ] = None,
    no_env_file: Annotated[bool, typer.Option("--no-env-file", help="Read no .env.")] = False,
    system: Annotated[
        bool,
        typer.Option("--system", help="Use the settings, token and database of the service [env: ATOM_SYNC_SYSTEM]."),
    ] = False,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="sqlite:///FILE, a plain path or postgresql:// [env: ATOM_SAAS_DATABASE_URL]."
        ),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error; overrides -v and -q.")
    ] = None,
    log_format: Annotated[str, typer.Option(metavar="FORMAT", help="auto, text, json or journal.")] = "auto",
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            show_default=False,
            help="Log what is done; -vv also each request and page.",
        ),
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors on standard error.")] = False,
    no_pager: Annotated[bool, typer.Option("--no-pager", help="Do not show long output in $PAGER.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Set the global options, which are also allowed after the command."""
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
            no_pager=no_pager,
        ),
    )


def run() -> None:
    """Run the command line; every error becomes one clear line and its exit code."""
    if os.getpid() == 1:
        # In a container, the kernel drops signals that process 1 does not handle.
        signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    # A core dump would contain the token.
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
        done = _complete() if sys.argv[1:2] == ["__complete"] else app(prog_name="atom-sync", standalone_mode=False)
    except AtomSyncError as error:
        _name_service_user(error)
        report_failure(error, as_json=as_json)
        return error.exit_code
    except typer.Abort:
        sys.stderr.write("Aborted!\n")
        return 1
    except typer.TyperException as error:
        return _report_usage(error, as_json=as_json)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # Typer exits this way after a broken pipe
            return report_bug(end.__context__, as_json=as_json)
        done = end.code
    except (ReaderGone, OutputFailed):
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence
        return _report_unforeseen(error, as_json=as_json)
    return done if isinstance(done, int) else 0  # the code of typer.Exit; commands return nothing


def _report_usage(error: typer.TyperException, *, as_json: bool) -> int:
    """Report wrong usage in our own words, or show the help of a group that was called without arguments."""
    from typer._click import exceptions as typed

    message, context = error.format_message(), getattr(error, "ctx", None)
    if isinstance(error, typed.NoArgsIsHelpError):
        if as_json:
            print_json({"success": False, "error": error_document(UsageError("a command is missing"))})
        sys.stderr.write(f"{message}\n")
        return error.exit_code
    if isinstance(error, typed.NoSuchOption):
        hidden = {name for each in context.command.params if each.hidden for name in each.opts} if context else set()
        near = sorted({*(error.possibilities or ())} - hidden)
        message = f"no such option {error.option_name}" + (f"; did you mean {' or '.join(near)}?" if near else "")
    elif isinstance(error, typed.MissingParameter) and error.param is not None:
        message = f"missing {error.param.param_type_name} {error.param.get_error_hint().strip(chr(39))}"
    message = message.replace(". Did you mean", "; did you mean")
    hint = f"`{context.command_path} --help` shows the usage" if context else "`atom-sync --help` shows the usage"
    report_failure(UsageError(f"{message[:1].lower()}{message[1:]}".removesuffix("."), hint=hint), as_json=as_json)
    return error.exit_code


def _name_service_user(error: AtomSyncError) -> None:
    """If this user may not read the service's files, make the command to run the hint."""
    if not isinstance(error, ConfigError | DatabaseError):
        return
    if not isinstance(error.__cause__, PermissionError) and not error.is_denied:
        return
    from atom_saas_sync.cli.runtime import is_system
    from atom_saas_sync.places import SERVICE_USER

    if is_system(given_options.get()):
        command = [each for each in sys.argv[1:] if each != "--system"]
        import shlex

        error.hint = f"run: {shlex.join(['sudo', '-u', SERVICE_USER, 'atom-sync', '--system', *command])}"


def _report_unforeseen(error: Exception, *, as_json: bool) -> int:
    if not (isinstance(error, OSError | RuntimeError) and "--install-completion" in sys.argv):  # which is Typer's own
        explained = _explained(error)
        if explained is None:
            return report_bug(error, as_json=as_json)
        report_failure(explained, as_json=as_json)
        return explained.exit_code
    failure = DatabaseError(
        f"cannot install completion: {error}", hint="`atom-sync completion SHELL` prints the script"
    )
    report_failure(failure, as_json=as_json)
    return failure.exit_code


def _explained(error: Exception) -> DatabaseError | None:
    """Return the cause of an unforeseen error if that is in the database, and log the error at level debug."""
    import logging

    from atom_saas_sync.cli.runtime import settings_of
    from atom_saas_sync.store import engine_at
    from atom_saas_sync.usecases.foreign_values import explained

    try:
        found = explained(engine_at(settings_of(given_options.get()).database))
    except Exception:  # noqa: BLE001 - it is the error of the command that is to be reported
        return None
    if found is not None:
        logging.getLogger(__name__).debug("values of another program ended the command", exc_info=error)
    return found


def _complete() -> int:
    """Print completions for a shell."""
    from atom_saas_sync.cli.completing import complete

    return complete(typer.main.get_command(app), sys.argv[2:])


def _require_decoded(arguments: list[str]) -> None:
    """Refuse arguments that are not text: they could be neither stored, sent nor printed. Raises UsageError."""
    for argument in arguments:
        if any("\udc80" <= character <= "\udcff" for character in argument):
            shown = argument.encode(errors="surrogateescape").decode(errors="backslashreplace")
            raise UsageError(
                f"the argument '{shown}' is not valid {sys.getfilesystemencoding().upper()}",
                hint="check the encoding of your terminal or script; rename files whose names are in another one",
            )
