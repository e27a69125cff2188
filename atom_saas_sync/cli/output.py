"""Output of all commands: results to standard output, everything else to standard error."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from atom_saas_sync import characters
from atom_saas_sync.characters import escaped, printable
from atom_saas_sync.errors import AtomSyncError, UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console
    from typer._click import Context

counted = characters.counted

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "text", "json", "journal")
_WIDE = 10_000
_SOME = 20
_PADDING = re.compile(r" +((?:\x1b\[[0-9;]*m)*)(?=\n|$)")
_LARGEST_TEXT = 256 * 1024**2
_LONGEST_SUMMARY = 500
_BUG_HINT = "please report it with the traceback: `atom-sync --log-level debug …` logs it"


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """The options that every command shares; `ctx.obj` of every command.

    `usual_level` is the level of the log without -v, -q and --log-level. Raises UsageError for wrong values.
    """

    env_file: Path | None = None
    no_env_file: bool = False
    system: bool = False
    database: str | None = None
    log_level: str | None = None
    log_format: str = "auto"
    verbose: int = 0
    quiet: bool = False
    no_pager: bool = False
    usual_level: str = "warning"

    def __post_init__(self) -> None:
        """Check the values."""
        _one_of("--log-level", self.level, LOG_LEVELS)
        _one_of("--log-format", self.log_format, LOG_FORMATS)
        if self.quiet and self.verbose:
            raise UsageError("-q and -v exclude each other")
        if self.env_file is not None and self.no_env_file:
            raise UsageError("--env-file and --no-env-file exclude each other")

    @property
    def level(self) -> str:
        """Return the level of the log."""
        if self.log_level is not None:
            return self.log_level
        if self.quiet:
            return "error"
        return (self.usual_level, "info", "debug")[min(self.verbose, 2)]


def take_options(ctx: Context, options: GlobalOptions) -> None:
    """Make these the options of the command."""
    ctx.obj = options
    given_options.set(options)
    if options.log_format == "json":  # errors before the settings are read use this format too
        from atom_saas_sync.logs import set_up_logging

        set_up_logging(options.level, options.log_format, secrets=())


def take_option(ctx: Context, name: str, value: Any) -> None:  # noqa: ANN401 - of any type
    """Apply a global option given after the command. It overrides one before the command; -v adds up."""
    options: GlobalOptions = ctx.obj
    if name == "verbose":
        value += options.verbose
    take_options(ctx, replace(options, **{name: value}))


def note(text: str) -> None:
    """Print a line to standard error, unless only errors are wanted (-q)."""
    if given_options.get().quiet:
        return
    notes = waiting_notes.get()
    if notes is None or sys.stdout.tell() == 0:  # the screen is not shown yet
        sys.stderr.write(f"{printable(text, lines=True)}\n")
    else:
        notes.append(text)


def _one_of(option: str, got: str, choices: tuple[str, ...]) -> None:
    if got not in choices:
        raise UsageError(f"invalid {option} {printable(got)!r}: expected {', '.join(choices)}")


# Neither AtomSyncError nor OSError, so that no handler mistakes them for a failure of the command.
class ReaderGone(Exception):
    """The reader of standard output has exited (head, less)."""


class OutputFailed(Exception):
    """Standard output cannot be written; the message is the system's reason."""


class _Output(io.FileIO):
    def write(self, data: Any, /) -> int:  # noqa: ANN401 - a buffer: the type has no name before Python 3.12
        try:
            return super().write(data)
        except BrokenPipeError:
            raise ReaderGone from None
        except OSError as error:
            raise OutputFailed(error.strerror or str(error)) from None


class _Messages(io.FileIO):
    def write(self, data: Any, /) -> int:  # noqa: ANN401 - a buffer: the type has no name before Python 3.12
        """Write the text, or drop it: a message that cannot be shown must not end the command."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def set_up_streams() -> None:
    """Open streams that were closed by the parent, and make output buffered and blocking.

    Python writes unbuffered output once (PYTHONUNBUFFERED), and a non-blocking pipe takes what it has room for: both
    lose the rest. Characters that the encoding lacks are replaced.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            # Otherwise the next opened file would get the descriptor, and the stream's text.
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, descriptor == number)
            setattr(sys, name, open(descriptor, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - kept open
        elif stream is getattr(sys, f"__{name}__"):
            os.set_blocking(number, True)
            if number > 0:
                setattr(sys, name, _rebuilt(stream, _Output if number == 1 else _Messages))


def drop_output() -> None:
    """Redirect standard output to /dev/null, so that the interpreter's final flush cannot fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _rebuilt(stream: io.TextIOWrapper, kind: type[io.FileIO]) -> io.TextIOWrapper:
    is_output = kind is _Output
    return io.TextIOWrapper(
        io.BufferedWriter(kind(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="replace" if is_output else "backslashreplace",
        line_buffering=not is_output or stream.isatty(),
    )


given_options = ContextVar("given_options", default=GlobalOptions())  # noqa: B039 - it is frozen
"""The options of the current command, for reports after its end."""


waiting_notes: ContextVar[list[str] | None] = ContextVar("waiting_notes", default=None)
"""Notes to print below a screen that is not shown yet; None: print them at once."""


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document to standard output, with terminal control characters escaped.

    Every document has `success`, which is true unless `document` says otherwise.
    """
    document = {"success": True, **document}
    try:
        text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False)
    except ValueError:  # JSON has no infinity
        document = _finite(document)
        text = json.dumps(document, ensure_ascii=False, indent=2)
    if sys.stdout.isatty():
        text = escaped(text)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # an old encoding, or a lone surrogate in a skill
        text = json.dumps(document, indent=2)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _finite(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Return a document in which null replaces NaN and infinity: another program may have written them."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def say(text: str) -> None:
    """Print lines of untrusted text to standard output."""
    sys.stdout.write(f"{printable(text, lines=True)}\n")
    sys.stdout.flush()


def print_some(lines: Sequence[str]) -> None:
    """Print the first lines of a long list within a screen, and the number of the others.

    On a terminal, lines do not wrap: put what may be cut, such as a name, at the end.
    """
    from rich.cells import cell_len, set_cell_size

    room = (shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDE) - 2
    for line in map(printable, lines[:_SOME]):
        shown = line if cell_len(line) <= room else set_cell_size(line, room - 1) + "…"
        sys.stdout.write(f"  {shown}\n")
    if len(lines) > _SOME:
        sys.stdout.write(f"  … and {len(lines) - _SOME:,} more (--json)\n")


def console(*, stderr: bool = False, whole_lines: bool = False) -> Console:
    """Return a console that obeys NO_COLOR, FORCE_COLOR and the absence of a terminal.

    A file or pipe gets lines without padding and, with `whole_lines`, every row of a table on one line with nothing
    cut off, as grep likes it; COLUMNS still wins. Rich alone would treat it as a terminal for FORCE_COLOR's sake.
    """
    from atom_saas_sync.cli.screen import Screen
    from atom_saas_sync.logs import may_colour

    stream = sys.stderr if stderr else sys.stdout
    colour = may_colour(stream)
    file = stream if stream.isatty() else cast("TextIO", _Unpadded(stream))
    made = Screen(
        file=file,
        highlight=False,
        soft_wrap=False,
        markup=False,
        emoji=False,
        color_system="auto" if colour else None,
    )
    if whole_lines and not stream.isatty():
        made.width = shutil.get_terminal_size((_WIDE, 0)).columns
    return made


class _Unpadded:
    """A stream that removes the padding that rich adds to lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; rich writes whole lines."""
        return self._stream.write(_PADDING.sub(r"\1", text))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a stream has
        return getattr(self._stream, name)


def age(moment: datetime | None) -> str:
    """Return a relative time for a terminal, the time itself for a file or pipe."""
    if not sys.stdout.isatty():
        from atom_saas_sync.times import time_text

        return time_text(moment) or ""
    from datetime import UTC, datetime

    from atom_saas_sync.core.health import ago

    return ago(moment, datetime.now(UTC))


def file_name(path: Path) -> str:
    """Return the display name of a file; - is standard input."""
    return "standard input" if str(path) == "-" else printable(str(path))


def read_text(path: Path) -> str:
    """Return the text of a file, which is UTF-8 in any locale; - is standard input.

    Raises UsageError.
    """
    from atom_saas_sync.core.documents import decode_text

    name = file_name(path)
    try:
        if str(path) != "-":
            with path.open("rb") as stream:
                data = stream.read(_LARGEST_TEXT + 1)
        elif sys.stdin is None:
            raise UsageError("can't read standard input: it is closed")
        else:
            data = sys.stdin.buffer.read(_LARGEST_TEXT + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"can't read {name}: {reason}") from error
    if len(data) > _LARGEST_TEXT:
        raise UsageError(f"{name} is larger than {_LARGEST_TEXT // 1024**2} MiB")
    return decode_text(data, name)


def error_document(error: AtomSyncError) -> dict[str, Any]:
    """Return the JSON form of an error (docs/API_DOCUMENTATION.md)."""
    from atom_saas_sync.logs import masked

    return {"type": error.kind, "message": masked(error.message), "hint": masked(error.hint) if error.hint else None}


def report_failure(error: AtomSyncError, *, as_json: bool) -> None:
    """Print to standard error what failed, why, and what to do; with --json, also to standard output."""
    if as_json:
        print_json({"success": False, "error": error_document(error)})
    complain(error.message, error.hint)


def report_bug(error: BaseException, *, as_json: bool) -> int:
    """Report an unexpected error in one line, with its traceback in the log. Return the exit code."""
    from atom_saas_sync.logs import BUG, log_bug

    options = given_options.get()
    log_bug(error, options.level, options.log_format, secrets=_secrets_of_environment())
    summary = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    failure = AtomSyncError(f"{BUG}: {summary[:_LONGEST_SUMMARY]}{_place(error)}", hint=_BUG_HINT)
    report_failure(failure, as_json=as_json)
    return failure.exit_code


def _place(error: BaseException) -> str:
    """Return the place in our code where the error occurred."""
    import traceback

    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "atom_saas_sync" in frame.filename]
    if not ours:
        return ""
    package, module = ours[-1].filename.rpartition("atom_saas_sync")[1:]
    return f" ({package}{module}:{ours[-1].lineno})"


def complain(message: str, hint: str | None = None) -> None:
    """Print an error and its hint to standard error; in the journal, one line with the priority of an error."""
    from atom_saas_sync.logs import goes_to_journal, line_format, log_error, masked

    if line_format() in {"json", "journal"}:
        log_error(message, hint)
        return
    lines = [printable(line) for line in masked(message).splitlines()]
    cure = masked(hint) if hint else ""
    if goes_to_journal(sys.stderr):
        cure = f" → {printable(' '.join(cure.split()))}" if cure else ""
        sys.stderr.write(f"<3>atom-sync: {'; '.join(lines)}{cure}\n")
        return
    for line in lines:
        sys.stderr.write(f"atom-sync: {line}\n")
    if cure:
        sys.stderr.write(f"  → {printable(cure, lines=True)}\n")


def _secrets_of_environment() -> list[str]:
    import re
    from urllib.parse import unquote

    from atom_saas_sync.config import without_secrets

    harmless = without_secrets(os.environ)
    secrets = [value for name, value in os.environ.items() if name not in harmless]
    # Libraries may print the password of a URL on its own.
    passwords = (re.search(r"://[^/?#@]*?:([^/?#@]+)@", value) for value in secrets)
    return secrets + [password for found in passwords if found for password in (found[1], unquote(found[1]))]
