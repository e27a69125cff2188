"""One logging set-up for the whole program. Secrets are masked at the root: in whatever a line is made of."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from math import isfinite
from types import TracebackType
from typing import ClassVar, TextIO
from urllib.parse import quote, quote_plus

from atom_saas_sync.characters import escaped, printable

_MASK = "********"
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_CHATTY = ("httpx", "httpcore", "websockets", "uvicorn", "asyncio")
# The token goes into the query of the WebSocket's URL, as the contract asks; whatever stands there is masked.
_TOKEN_IN_URL = re.compile(r"(?i)([?&]token=)[^&\s'\"\\]+")
_TOKEN_IN_HEADER = re.compile(
    r"(?i)((?:authorization\W{1,8}(?:b\W{1,3})?bearer|x-api-token|x-federation-key)\W{1,8}(?:b['\"])?)[^\s'\",\\]+"
)
_TOKEN_OF_OURS = re.compile(r"at_saas_[A-Za-z0-9_.~+/=-]{4,}")
BUG = "a bug ended the program"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_run_id: ContextVar[str | None] = ContextVar("run_id", default=None)


def set_run_id(run_id: int | None) -> None:
    """Put the id of the run into every line that follows."""
    _run_id.set(None if run_id is None else str(run_id))


def set_up_logging(
    level: str, line_format: str, *, secrets: Iterable[str], stream: TextIO | None = None
) -> logging.Logger:
    """Send the log and uncaught errors to `stream` (default: standard error); return the program's logger."""
    stream = stream or sys.stderr
    if line_format == "auto":
        line_format = "journal" if goes_to_journal(stream) else "text"
    mask = masking(secrets)
    formatters: dict[str, logging.Formatter] = {
        "text": _TextFormatter(mask, colour=may_colour(stream)),
        "json": _JsonFormatter(mask),
        "journal": _JournalFormatter(mask),
    }
    handler = _Handler(stream, mask)
    handler.setFormatter(formatters[line_format])
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    # A bug's traceback may hold a token as well as a line of ours may: it takes the same way.
    sys.excepthook = _log_crash
    threading.excepthook = _log_crash_of_thread
    sys.unraisablehook = _log_unraisable
    logging.captureWarnings(capture=True)
    return logging.getLogger("atom_saas_sync")


def line_format() -> str | None:
    """Return the format of the log: text, json or journal; None if it is not set up yet."""
    formatters = [handler.formatter for handler in logging.getLogger().handlers if isinstance(handler, _Handler)]
    names = {_TextFormatter: "text", _JsonFormatter: "json", _JournalFormatter: "journal"}
    return next((name for kind, name in names.items() for each in formatters if isinstance(each, kind)), None)


def log_error(message: str, hint: str | None) -> None:
    """Log what a command failed with."""
    logging.getLogger("atom_saas_sync").error("%s", message, extra={"hint": hint} if hint else {})


def masking(secrets: Iterable[str]) -> Callable[[str], str]:
    """Return what takes these secrets out of a text, however they are written there, and what looks like a token."""
    forms = {form for secret in secrets if secret for form in _written(secret)}
    longest_first = sorted(forms, key=len, reverse=True)

    def mask(text: str) -> str:
        for form in longest_first:
            text = text.replace(form, _MASK)
        text = _TOKEN_IN_HEADER.sub(rf"\1{_MASK}", _TOKEN_IN_URL.sub(rf"\1{_MASK}", text))
        return _TOKEN_OF_OURS.sub(_MASK, text)

    return mask


def masked(text: str) -> str:
    """Mask a text as the log would, for what is told in other ways than by logging."""
    masks = [handler.mask for handler in logging.getLogger().handlers if isinstance(handler, _Handler)]
    return (masks[0] if masks else masking(()))(text)


def _written(secret: str) -> Iterable[str]:
    """Return the ways in which a text may hold a secret: plain, in a URL, in a `repr`, in JSON."""
    for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret)):
        yield form
        yield re.sub("%..", lambda found: found[0].lower(), form)
    for form in (repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        yield form
        yield repr(form)[1:-1]


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines; of one that can't be made it tells where it stands, and not, as its parent does, what is in it."""

    def __init__(self, stream: TextIO, mask: Callable[[str], str]) -> None:
        super().__init__(stream)
        self.mask = mask

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        if isinstance(sys.exception(), OSError):
            return  # standard error is gone or full: there is nobody to tell
        about = {"levelno": record.levelno, "levelname": record.levelname, "name": record.name}
        told = {"msg": "a line of the log could not be made: %s:%d", "args": (record.filename, record.lineno)}
        self.stream.write(self.format(logging.makeLogRecord({**about, **told})) + self.terminator)


class _LinesFormatter(logging.Formatter):
    """What people read: masked, without control characters, and with the run in each line."""

    def __init__(self, mask: Callable[[str], str]) -> None:
        super().__init__("%(message)s")
        self._mask = mask

    def lines(self, record: logging.LogRecord) -> list[str]:
        run_id = _run_id.get()
        run = f"[run {run_id}] " if run_id else ""
        return [run + _plain(line) for line in self._mask(super().format(record)).splitlines() or [""]]


class _TextFormatter(_LinesFormatter):
    """For terminals and files. Lines after the first are indented, so that no text from outside passes for a line."""

    _COLOURS: ClassVar = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}

    def __init__(self, mask: Callable[[str], str], *, colour: bool) -> None:
        super().__init__(mask)
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        colour = self._COLOURS.get(record.levelno) if self._colour else None
        if colour:
            level = f"{colour}{level}\x1b[0m"
        first, *rest = self.lines(record)
        return "\n".join([f"{_time(record, 'seconds')} {level} {first}", *(f"  {line}" for line in rest)])


class _JournalFormatter(_LinesFormatter):
    """For journald: it parses the priority of each line by itself, so each line begins with it.

    What is to be done (`hint`) stands in the same line as what is wrong: `systemctl status` shows few.
    """

    _PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in self._PRIORITIES if record.levelno >= level), 7)
        first, *rest = self.lines(record)
        if hint := getattr(record, "hint", None):
            first += f" → {_plain(' '.join(self._mask(str(hint)).split()))}"
        return "\n".join(f"<{priority}>{line}" for line in (first, *rest))


class _JsonFormatter(logging.Formatter):
    """One JSON object a line; numbers stay numbers, whatever else is added to a line becomes text."""

    def __init__(self, mask: Callable[[str], str]) -> None:
        super().__init__()
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record, "milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._mask(record.getMessage()),
        }
        if run_id := _run_id.get():
            line["run_id"] = int(run_id)
        if record.exc_info:
            line["exception"] = self._mask(self.formatException(record.exc_info))
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line.setdefault(name, self._masked(value))
        return escaped(json.dumps(line, ensure_ascii=False))

    def _masked(self, value: object) -> object:
        text = self._mask(str(value))
        is_number = value is None or isinstance(value, int) or (isinstance(value, float) and isfinite(value))
        return value if is_number and text == str(value) else text


def _time(record: logging.LogRecord, precision: str) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def _plain(line: str) -> str:
    return "\t".join(map(printable, line.split("\t")))


def log_bug(error: BaseException, level: str, line_format: str, *, secrets: Iterable[str]) -> None:
    """Log the traceback of a bug that is reported in one line as well: for people who read logs, not in their way.

    As text it appears with the level debug only; JSON and the journal always have it. The level, format and secrets are
    for a command that has not set logging up.
    """
    if not any(isinstance(handler, _Handler) for handler in logging.getLogger().handlers):
        set_up_logging(level, line_format, secrets=secrets)
    (handler,) = (each for each in logging.getLogger().handlers if isinstance(each, _Handler))
    severity = logging.DEBUG if isinstance(handler.formatter, _TextFormatter) else logging.CRITICAL
    logging.getLogger("atom_saas_sync").log(severity, BUG, exc_info=error)


def _log_crash(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    logging.getLogger("atom_saas_sync").critical(BUG, exc_info=(kind, error, traceback))


def _log_crash_of_thread(crash: threading.ExceptHookArgs) -> None:
    if crash.exc_value is not None and not isinstance(crash.exc_value, SystemExit):
        _log_crash(crash.exc_type, crash.exc_value, crash.exc_traceback)


def _log_unraisable(found: sys.UnraisableHookArgs) -> None:
    """Log what went wrong where nobody could catch it: in a destructor, at the end of the program."""
    if found.exc_value is not None:
        crash = (found.exc_type, found.exc_value, found.exc_traceback)
        where = f"{found.err_msg or 'nobody could catch this'}: {found.object!r}"
        logging.getLogger("atom_saas_sync").error("%s", where, exc_info=crash)


def goes_to_journal(stream: TextIO) -> bool:
    """Tell whether a stream ends in systemd's journal, which wants a priority before each line (`<3>`: an error).

    Compare, do not just look for the variable: children inherit it though their stderr goes elsewhere.
    """
    wanted = os.environ.get("JOURNAL_STREAM")
    if not wanted:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return wanted == f"{status.st_dev}:{status.st_ino}"


def may_colour(stream: TextIO) -> bool:
    """Tell whether a stream gets colour: NO_COLOR, then FORCE_COLOR (0 is no), then whether it is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in {"", "0"}:
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"
