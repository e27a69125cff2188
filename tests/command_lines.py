"""Every command of the program, as Typer knows them, and a process that runs many command lines."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from loaded_command import run_command

from atom_saas_sync.cli.main import app

# Runs many command lines in one process, which is faster than a process for each.
_IN_ONE_PROCESS = """
import contextlib, io, json, sys, traceback
from atom_saas_sync.cli.main import run
results = []
for arguments in json.load(sys.stdin):
    sys.argv = ["atom-sync", *arguments]
    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run()
        except SystemExit as exit:
            code = exit.code
        except Exception:
            traceback.print_exc()
    results.append([code, out.getvalue(), err.getvalue()])
json.dump(results, sys.stdout)
"""


def clean_environment(directory: Path, **variables: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(directory), **variables}


def run_all(
    directory: Path, command_lines: list[list[str]], *, first: str = "", **variables: str
) -> list[tuple[int, str, str]]:
    """Run the command lines in one process; `first` is Python code to execute before."""
    result = run_command(
        environment=clean_environment(directory, **variables),
        directory=directory,
        stdin=json.dumps(command_lines),
        first=first,
        code=_IN_ONE_PROCESS,
    )
    assert result.returncode == 0, result.stderr
    return [tuple(line) for line in json.loads(result.stdout)]


def _commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every group and command with the words that lead to it."""
    command = command or typer.main.get_command(app)
    yield path, command
    for name in getattr(command, "commands", {}):
        yield from _commands(command.commands[name], (*path, name))


COMMANDS = dict(_commands())
LEAVES = [path for path, command in COMMANDS.items() if path and not getattr(command, "no_args_is_help", False)]
REPORTING = [
    path for path, command in COMMANDS.items() if any("--json" in parameter.opts for parameter in command.params)
]

# Those that change something, ask, or run until they are stopped. Every other command must work wherever one can read.
_NOT_READING = """
    sync skills, sync categories, sync ratings, sync all, watch, serve-health, demo, config init, files write
    jobs stop, jobs start, sandbox, sandbox push, sandbox fault, sandbox flood, sandbox state, budget reset, cache purge
    db upgrade, db downgrade, db rebind, db backup, db restore, db compact, db copy
    skills edit, skills import, skills revert, skills restore, skills delete, conflicts resolve, conflicts undo
    ratings add, ratings retry, ratings restore, ratings delete
    updates review, updates approve, updates reject, updates rescan, pins add, pins remove
    revocations add, revocations remove, quarantine add, quarantine release
"""
READING = [path for path in LEAVES if " ".join(path) not in re.split(r",?\s*\n\s*|, ", _NOT_READING)]


# Required arguments that Typer does not mark as required.
_ALSO_REQUIRED: dict[tuple[str, ...], list[str]] = {
    ("conflicts", "resolve"): ["--all", "--strategy", "merge"],
    ("ratings", "retry"): ["--all"],
    ("updates", "approve"): ["--all"],
    ("updates", "reject"): ["--all"],
    ("revocations", "add"): ["--id", "some-id"],
    ("revocations", "remove"): ["1"],
}
_OPTIONS_REQUIRED = {"to": ["--to", "another-database"], "version": ["--version", "1"]}


def minimal(path: tuple[str, ...], **values: str) -> list[str]:
    """Return a command line with correct usage; `values` are those of arguments, by name."""
    wanted = [parameter for parameter in COMMANDS[path].params if parameter.required]
    options = [each.name for each in wanted if each.param_type_name == "option"]
    wanted = [each for each in wanted if each.param_type_name == "argument"]
    usual = {"stars": "5", "shell": "bash", "url": "https://market.example", **values}
    numbers = (usual.get(each.name) or ("5" if _is_number(each) else "some-id") for each in wanted)
    given = [word for name in options for word in _OPTIONS_REQUIRED[name]]
    return [*path, *numbers, *given, *_ALSO_REQUIRED.get(path, [])]


def _is_number(parameter: Any) -> bool:
    return bool(parameter.type_descriptor.annotation is int)
