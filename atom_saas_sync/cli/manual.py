"""Manual pages (roff, man(7)), made from the commands: one for the program, one for each group and command."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import typer

from atom_saas_sync import __version__

if TYPE_CHECKING:
    from typer._click import Command, Context

    from atom_saas_sync.shipped import ShippedFile

_PROGRAM = "atom-sync"
_EXIT_STATUS = {
    "0": "Success, or nothing to do.",
    "1": "A failure without a code of its own, or what was asked for does not exist.",
    "2": "Wrong usage.",
    "3": "status --check: unhealthy.",
    "4": "Finished, but needs manual review.",
    "65": "A response of the marketplace violates the API contract.",
    "69": "The marketplace is unreachable or still failing after all retries.",
    "74": "Database or disk error.",
    "75": "Another run holds the lock, or the rate limit is used up: try again later.",
    "77": "The token was refused.",
    "78": "Configuration error.",
    "130, 143": "Interrupted by SIGINT or SIGTERM; the next run continues from there.",
}


def manual_pages(root: Command) -> list[ShippedFile]:
    """Return the pages of the program with this root, as files below man/man1."""
    from atom_saas_sync.shipped import ShippedFile

    pages = []
    for context in _contexts(typer.Context(root, info_name=_PROGRAM, **root.context_settings)):
        title = context.command_path.replace(" ", "-")
        pages.append(ShippedFile(f"man/man1/{title}.1", _first_sentence(context.command), _page(title, context)))
    return pages


def _contexts(context: Context) -> Iterator[Context]:
    yield context
    for name, command in getattr(context.command, "commands", {}).items():
        yield from _contexts(typer.Context(command, info_name=name, parent=context))


def _page(title: str, context: Context) -> str:
    command = context.command
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH {_quoted(title.upper())} 1 "" "{_PROGRAM} {__version__}" "User Commands"',
        ".SH NAME",
        f"{_escaped(title)} \\- {_escaped(_first_sentence(command))}",
        ".SH SYNOPSIS",
        f".B {_escaped(context.command_path)}",
        _escaped(usage),
        ".SH DESCRIPTION",
        *_paragraphs(command.help or ""),
        *_parameters("ARGUMENTS", context, "argument"),
        *_parameters("OPTIONS", context, "option"),
        *_commands(context),
        *_examples(context),
    ]
    if context.parent is None:
        lines += [*_environment(), ".SH EXIT STATUS", *_terms(_EXIT_STATUS.items()), *_files()]
    else:
        above = dict.fromkeys((_PROGRAM, context.parent.command_path.replace(" ", "-")))
        lines += [".SH SEE ALSO", ",\n".join(f"\\fB{_escaped(page)}\\fP(1)" for page in above)]
    return "\n".join(lines) + "\n"


def _first_sentence(command: Command) -> str:
    return (command.help or "").strip().partition("\n")[0].partition(". ")[0].removesuffix(".")


def _paragraphs(text: str) -> list[str]:
    lines: list[str] = []
    for number, paragraph in enumerate(text.strip().split("\n\n")):
        lines += [".PP"] if number else []
        lines.append(_escaped(" ".join(paragraph.split())))
    return lines


def _parameters(heading: str, context: Context, kind: str) -> list[str]:
    records = [
        record
        for parameter in context.command.get_params(context)
        if parameter.param_type_name == kind and (record := parameter.get_help_record(context)) is not None
    ]
    return [f".SH {heading}", *_terms(records)] if records else []


def _commands(context: Context) -> list[str]:
    commands = getattr(context.command, "commands", {})
    if not commands:
        return []
    path = context.command_path.replace(" ", "-")
    return [
        ".SH COMMANDS",
        *_terms((f"{path}-{name}(1)", each.get_short_help_str()) for name, each in commands.items()),
    ]


def _examples(context: Context) -> list[str]:
    from atom_saas_sync.cli.examples import EXAMPLES

    examples = EXAMPLES.get(context.command_path.removeprefix(_PROGRAM).strip(), ())
    return [".SH EXAMPLES", ".EX", *map(_escaped, examples), ".EE"] if examples else []


def _environment() -> list[str]:
    from atom_saas_sync.config import VARIABLES

    texts = (
        (
            each.name,
            f"{each.meaning[:1].upper()}{each.meaning[1:]}. Expects {each.takes}."
            + (f" Default: {each.default}." if each.default else ""),
        )
        for each in VARIABLES
    )
    return [".SH ENVIRONMENT", *_terms(texts)]


def _files() -> list[str]:
    from atom_saas_sync.places import SETTINGS, STATE_DIRECTORY, TOKEN_FILE

    files = {
        ".env": "Settings, read from the working directory unless --no-env-file or --env-file is given.",
        SETTINGS: "Settings of the service (--system).",
        TOKEN_FILE: "Token of the service.",
        f"{STATE_DIRECTORY}/atom.db": "Database of the service.",
    }
    return [".SH FILES", *_terms(files.items())]


def _terms(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [line for term, text in pairs for line in (".TP", f".B {_escaped(term)}", _escaped(text))]


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    """Return text that roff prints as it is; a hyphen stays one that can be copied into a shell."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{text}" if text.startswith(".") else text
