"""Ask the user: before local work is lost, and which of several ways to take."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from atom_saas_sync.cli.output import note, print_some, say
from atom_saas_sync.errors import UsageError


def confirm_loss(lines: Sequence[str], *, what: str, question: str, yes: bool, as_json: bool) -> None:
    """List what would be lost, and ask; do nothing if the list is empty, or with `yes`.

    `what` is a noun with its number, such as "2 local edits". Raises UsageError without a terminal.
    """
    if yes or not lines:
        return
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        for line in lines:
            note(f"  {line}")
        raise UsageError(f"nothing was changed: {what} would be lost", hint="pass --yes to continue")
    say(f"{what} would be lost:")
    print_some(lines)
    typer.confirm(question, abort=True)


def choose(question: str, words: Sequence[str]) -> str:
    """Ask until the answer is one of `words` or its first letter, and return the word.

    Nothing else counts: "abort" must not approve because it begins like "approve".
    """
    by_answer = {each[0]: each for each in words} | {each: each for each in words}
    while True:
        answer: str = typer.prompt(question, err=True, prompt_suffix=" ").strip().lower()
        if answer in by_answer:
            return by_answer[answer]
