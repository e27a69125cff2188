"""What every command prints with: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atom_saas_sync.errors import AtomSyncError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "text", "json", "journal")
WIDE = 10_000
_LARGEST_TEXT = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """The options before the command; `ctx.obj` of every command."""

    env_file: Path | None = None
    database: str | None = None
    log_level: str = "info"
    log_format: str = "auto"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return the number with its noun: "1 skill", "2 skills"; `plural` where an s is not enough."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def print_json(document: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Print one JSON document, and nothing else, on standard output."""
    text = json.dumps(document, ensure_ascii=False, indent=2)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # a terminal of another age, or half a character in a skill
        text = json.dumps(document, indent=2)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def console(*, stderr: bool = False, whole_lines: bool = False) -> Console:
    """Return a console that obeys NO_COLOR, FORCE_COLOR and the absence of a terminal.

    With `whole_lines`, a file or pipe gets every row of a table on one line with nothing cut off, as grep likes it;
    COLUMNS still wins.
    """
    from rich.console import Console

    from atom_saas_sync.logs import may_colour

    class QuietConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # which ends the command quietly, as everywhere else

    colour = may_colour(sys.stderr if stderr else sys.stdout)
    made = QuietConsole(stderr=stderr, highlight=False, soft_wrap=False, color_system="auto" if colour else None)
    if whole_lines and not made.is_terminal:
        made.width = shutil.get_terminal_size((WIDE, 0)).columns
    return made


def age(moment: str) -> str:
    """Return a time as how long ago it was, for a terminal; a file or pipe gets the time itself."""
    if not sys.stdout.isatty():
        return moment
    from datetime import UTC, datetime

    from atom_saas_sync.core.health import ago

    return ago(moment, datetime.now(UTC))


def printable(text: str, *, lines: bool = False) -> str:
    """Return text from strangers as a terminal may show it: no control characters or invisible ones, no escapes.

    With `lines`, line breaks stay and tabs become spaces.
    """
    if lines:
        return "\n".join(printable(line) for line in text.expandtabs(4).split("\n"))
    return "".join(character if character.isprintable() else "�" for character in text)


def read_text(path: Path) -> str:
    """Return the text of a file that a person names; - is standard input. Raises UsageError."""
    try:
        if str(path) == "-":
            text = sys.stdin.read(_LARGEST_TEXT + 1)
        else:
            with path.open(encoding="utf-8") as stream:
                text = stream.read(_LARGEST_TEXT + 1)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UsageError(f"can't read {printable(str(path))}: {reason}") from error
    if len(text) > _LARGEST_TEXT:
        raise UsageError(f"{printable(str(path))} is larger than {_LARGEST_TEXT // 1024**2} MiB")
    return text


def error_document(error: AtomSyncError) -> dict[str, Any]:
    """Return the JSON form of an error (cli.md, "JSON of sync ratings")."""
    from atom_saas_sync.logs import masked

    return {"type": error.kind, "message": masked(error.message), "hint": masked(error.hint) if error.hint else None}


def report_failure(error: AtomSyncError, *, as_json: bool) -> None:
    """Say on standard error what failed, why, and what to do; as JSON on standard output too if asked."""
    if as_json:
        print_json({"success": False, "error": error_document(error)})
    complain(error.message, error.hint)


def complain(message: str, hint: str | None = None) -> None:
    """Say on standard error what is wrong and what to do; in the journal as one line, with the priority of an error."""
    from atom_saas_sync.logs import goes_to_journal, masked

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
