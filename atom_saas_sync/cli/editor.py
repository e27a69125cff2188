"""Edit a text in the user's editor."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from atom_saas_sync.cli import runtime
from atom_saas_sync.cli.output import complain, note
from atom_saas_sync.errors import AtomSyncError, DatabaseError, UsageError

_HOW_TO_SET = "set VISUAL or EDITOR, or use --data, --file or --set"


class EditedFile:
    """A private file with a text for the editor. It is removed afterwards, unless its content could not be used."""

    def __init__(self, text: str, *, name: str) -> None:
        self._directory = runtime.make_temporary_directory("atom-sync-")
        self.path = self._directory / name
        try:
            self.path.write_text(text, encoding="utf-8")
        except OSError as error:
            self.remove()
            raise DatabaseError(f"cannot write {self.path}: {error.strerror}") from error
        self.before = text

    def edit(self) -> str | None:
        """Let the user edit; return the new text, None if it is unchanged.

        Raises UsageError if there is no editor, or it ends with an error.
        """
        command = runtime.editor()
        if command is None:
            raise UsageError("no editor is set", hint=_HOW_TO_SET)
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"the editor {command!r} is not a command: {error}", hint=_HOW_TO_SET) from error
        try:
            # The user's own command, run as usual, but without the token in its environment.
            result = subprocess.run(  # noqa: S603
                [*words, str(self.path)],
                check=False,
                env=runtime.environment_for_others(),
                # Standard output may be a pipe or file for our result, so the editor must not print to it.
                stdout=None if sys.stdout.isatty() else sys.stderr.fileno(),
            )
        except OSError as error:
            raise UsageError(f"the editor {command!r} can't be started: {error.strerror}") from error
        if result.returncode != 0:
            raise UsageError(f"the editor {command!r} ended with exit code {result.returncode}; nothing was changed")
        from atom_saas_sync.core.documents import decode_text

        try:
            text = decode_text(self.path.read_bytes(), "the edited text")
        except OSError as error:
            raise UsageError(f"the edited file can't be read: {error}; nothing was changed") from error
        return None if text == self.before else text

    shown = "the edited text"

    @property
    def changed(self) -> bool:
        """Tell whether the file contains the user's work."""
        try:
            return self.path.read_text(encoding="utf-8", errors="replace") != self.before
        except OSError:
            return False

    def remove(self) -> None:
        """Remove the file and its directory."""
        import shutil

        shutil.rmtree(self._directory, ignore_errors=True)


def pretty(text: str) -> str:
    """Return a skill's JSON text formatted for editing; a text that is not a JSON object is returned unchanged."""
    import json

    from atom_saas_sync.core.canonical import decode_object

    fields = decode_object(text)
    return text if fields is None else json.dumps(fields, ensure_ascii=False, indent=2) + "\n"


def edited(file: EditedFile, check: Callable[[str], str], *, may_ask: bool) -> str | None:
    """Let the user edit until `check` accepts the text; return its result, None if nothing was changed.

    After a UsageError of `check`, ask whether to edit again, if there is a terminal.
    """
    while True:
        text = file.edit()
        if text is None:
            return None
        try:
            return check(text)
        except UsageError as error:
            mistake = _with_place(error, text)
        if not may_ask:
            raise mistake
        complain(mistake.message)
        if not typer.confirm("edit again?", default=True, err=True):
            raise UsageError("nothing was changed")


def _with_place(error: UsageError, text: str) -> UsageError:
    """Return the error with line and column of the field that it names, if they are missing."""
    from atom_saas_sync.core.documents import place_of_field

    field = re.search(r"(?:is not a skill|invalid skill): (\w+)", error.message)
    place = place_of_field(text, field[1]) if field else None
    return error if place is None else UsageError(f"{error.message}, {place}", hint=error.hint)


@contextmanager
def keeping(file: EditedFile) -> Iterator[None]:
    """Remove the file after the block; if the user's text could not be used, keep it and print its path."""
    try:
        yield
    except AtomSyncError as error:
        if not file.changed:
            file.remove()
            raise
        kept = f"your text is kept in {file.path}"
        raise UsageError(error.message, hint=kept if error.hint is None else f"{error.hint}; {kept}") from error
    except typer.Abort:
        if file.changed:
            note(f"your text is kept in {file.path}")
        else:
            file.remove()
        raise
    file.remove()
