"""Tab completion: commands, options, their values, and ids from the database."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.output import LOG_FORMATS, LOG_LEVELS, GlobalOptions
from atom_saas_sync.errors import AtomSyncError
from atom_saas_sync.model import CONFLICT_TYPES, SEVERITIES, STRATEGIES

if TYPE_CHECKING:
    from typer._click import Command, Context, Parameter

    from atom_saas_sync.usecases.ports import Engine

    Candidates = Iterable[str] | Iterable[tuple[str, str]]

SHELLS = ("bash", "zsh", "fish")
_LONGEST_MEANING = 60


def complete(root: Command, words: list[str]) -> int:
    """Print the completions of the last word, one per line: the value, a tab, its meaning.

    Prints nothing where the shell must complete, as for file names. Called by the scripts of `completion`.
    """
    from typer._click import shell_completion

    before, typed = words[:-1], words[-1] if words else ""
    try:
        context = shell_completion._resolve_context(root, {}, "atom-sync", before)  # noqa: SLF001 - of a pinned Typer
        target, unfinished = shell_completion._resolve_incomplete(context, before, typed)  # noqa: SLF001 - likewise
        items = target.shell_complete(context, unfinished)
    except typer.TyperException:
        return 0  # no completion after a mistake
    option = typed.removesuffix(unfinished) if typed.startswith("--") and "=" in typed else ""
    for item in items:
        if item.type == "plain":
            meaning = printable(" ".join((item.help or "").split()))
            sys.stdout.write(f"{option}{printable(item.value)}\t{meaning[:_LONGEST_MEANING]}\n")
    return 0


def candidates(context: Context, parameter: Parameter, typed: str) -> list[tuple[str, str]]:
    """Return the values of a parameter with the typed prefix, and their meanings."""
    path = context.command_path.partition(" ")[2]
    name = parameter.opts[0] if parameter.param_type_name == "option" else (parameter.metavar or "").strip("[]…")
    of = (
        _CANDIDATES.get(f"{path} {name}")
        or _CANDIDATES.get(f"{path.partition(' ')[0]} {name}")
        or _CANDIDATES.get(name)
    )
    if of is None:
        return []
    found = (each if isinstance(each, tuple) else (each, "") for each in of(context, typed))
    return [each for each in found if each[0].startswith(typed)]


def _fixed(*values: str) -> Callable[[Context, str], Candidates]:
    return lambda _context, _typed: values


def _stored(kind: str) -> Callable[[Context, str], Candidates]:
    def find(context: Context, typed: str) -> Candidates:
        try:
            return _engine(context).suggestions(kind, typed)
        except AtomSyncError:
            return []  # the command itself reports the error

    return find


def _engine(context: Context) -> Engine:
    from atom_saas_sync.cli.runtime import settings_of
    from atom_saas_sync.store import engine_at

    given = context.find_root().params
    options = {name: given[name] for name in ("env_file", "no_env_file", "system", "database") if given.get(name)}
    return engine_at(settings_of(GlobalOptions(**options)).database)


def _faults(_context: Context, _typed: str) -> Candidates:
    from atom_saas_sync.sandbox.faults import KINDS

    return list(KINDS.items())


def _migrations(context: Context, _typed: str) -> Candidates:
    try:
        return _engine(context).known_migrations()
    except AtomSyncError:
        return []  # likewise


def _files(context: Context, _typed: str) -> Candidates:
    from atom_saas_sync.cli.files import all_files

    names = all_files(context.find_root().command)
    return [*dict.fromkeys(f"{each.name.partition('/')[0]}/" for each in names), *(each.name for each in names)]


def _run_kinds(_context: Context, _typed: str) -> Candidates:
    from atom_saas_sync.core.run_log import RUN_KINDS

    return RUN_KINDS


def _reasons(_context: Context, _typed: str) -> Candidates:
    from atom_saas_sync.core.gate.reasons import REASON_TEXTS

    return list(REASON_TEXTS.items())


def _states(_context: Context, _typed: str) -> Candidates:
    from atom_saas_sync.core.gate.states import STATES

    return STATES


# Keyed by the words of the command or its group and the option or argument, or by the latter alone.
_CANDIDATES: dict[str, Callable[[Context, str], Candidates]] = {
    "--log-level": _fixed(*LOG_LEVELS),
    "--log-format": _fixed(*LOG_FORMATS),
    "--strategy": _fixed(*STRATEGIES),
    "conflicts resolve --strategy": _fixed(*(each for each in STRATEGIES if each != "manual")),
    "--severity": _fixed(*SEVERITIES),
    "--type": _fixed(*CONFLICT_TYPES),
    "--sort": _fixed("rating", "name", "updated"),
    "--kind": _run_kinds,
    "ratings list --state": _fixed("pending", "sent", "failed"),
    "skills verify --state": _states,
    "--category": _stored("category"),
    "--skill": _stored("skill"),
    "skills ID": _stored("skill"),
    "SKILL_ID": _stored("skill"),
    "conflicts ID": _stored("conflict"),
    "conflicts undo ID": _stored("resolved conflict"),
    "ratings ID": _stored("rating"),
    "runs ID": _stored("run"),
    "updates --skill": _stored("waiting"),
    "updates ID": _stored("waiting"),
    "updates ID[@DIGEST": _stored("waiting"),
    "--reason": _reasons,
    "--reason-held": _reasons,
    "pins ID[@VERSION|@DIGEST": _stored("skill"),
    "pins ID": _stored("pinned"),
    "quarantine add ID": _stored("skill"),
    "quarantine ID": _stored("quarantined"),
    "policy explain ID": _stored("judged"),
    "revocations --id": _stored("skill"),
    "revocations remove NUMBER": _stored("revocation"),
    "REVISION": _migrations,
    "--fault": _faults,
    "sandbox fault FAULT": _faults,
    "files write NAME": _files,
    "SHELL": _fixed(*SHELLS),
}
