"""Logging setup for the whole program. Secrets are masked in every part of a record."""

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
# The contract puts the token into the query of the WebSocket URL; any value there is masked.
_TOKEN_IN_URL = re.compile(r"(?i)([?&]token=)[^&\s'\"\\]+")
_TOKEN_IN_HEADER = re.compile(
    r"(?i)((?:authorization\W{1,8}(?:b\W{1,3})?bearer|x-api-token|x-federation-key)\W{1,8}(?:b['\"])?)[^\s'\",\\]+"
)
_TOKEN_OF_OURS = re.compile(r"at_saas_[A-Za-z0-9_.~+/=-]{4,}")
BUG = "a bug ended the program"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_run_id: ContextVar[str | None] = ContextVar("run_id", default=None)


def set_run_id(run_id: int | None) -> None:
    """Add the id of the run to every following line."""
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
    # A bug's traceback may contain a token, just like a log line, so it is masked in the same way.
    sys.excepthook = _log_crash
    threading.excepthook = _log_crash_of_thread
    sys.unraisablehook = _log_unraisable
    logging.captureWarnings(capture=True)
    return logging.getLogger("atom_saas_sync")


def line_format() -> str | None:
    """Return the format of the log: text, json or journal; None if logging is not set up yet."""
    formatters = [handler.formatter for handler in logging.getLogger().handlers if isinstance(handler, _Handler)]
    names = {_TextFormatter: "text", _JsonFormatter: "json", _JournalFormatter: "journal"}
    return next((name for kind, name in names.items() for each in formatters if isinstance(each, kind)), None)


def log_error(message: str, hint: str | None) -> None:
    """Log the error that ended a command."""
    logging.getLogger("atom_saas_sync").error("%s", message, extra={"hint": hint} if hint else {})


def masking(secrets: Iterable[str]) -> Callable[[str], str]:
    """Return a function that masks these secrets in a text, in any spelling, and anything that looks like a token."""
    forms = {form for secret in secrets if secret for form in _written(secret)}
    longest_first = sorted(forms, key=len, reverse=True)

    def mask(text: str) -> str:
        for form in longest_first:
            text = text.replace(form, _MASK)
        text = _TOKEN_IN_HEADER.sub(rf"\1{_MASK}", _TOKEN_IN_URL.sub(rf"\1{_MASK}", text))
        return _TOKEN_OF_OURS.sub(_MASK, text)

    return mask


def masked(text: str) -> str:
    """Mask a text as the log would, for output that is not logged."""
    masks = [handler.mask for handler in logging.getLogger().handlers if isinstance(handler, _Handler)]
    return (masks[0] if masks else masking(()))(text)


def _written(secret: str) -> Iterable[str]:
    """Return the spellings of a secret in a text: plain, in a URL, in a `repr`, in JSON."""
    for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret)):
        yield form
        yield re.sub("%..", lambda found: found[0].lower(), form)
    for form in (repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        yield form
        yield repr(form)[1:-1]


class _Handler(logging.StreamHandler[TextIO]):
    """A stream handler that reports an unformattable record by file and line only.

    The base class would print its arguments, which may contain secrets.
    """

    def __init__(self, stream: TextIO, mask: Callable[[str], str]) -> None:
        super().__init__(stream)
        self.mask = mask

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        if isinstance(sys.exception(), OSError):
            return  # standard error is gone or full: there is nowhere to report it
        about = {"levelno": record.levelno, "levelname": record.levelname, "name": record.name}
        told = {"msg": "could not format a log record: %s:%d", "args": (record.filename, record.lineno)}
        self.stream.write(self.format(logging.makeLogRecord({**about, **told})) + self.terminator)


class _LinesFormatter(logging.Formatter):
    """Readable text: masked, without control characters, and with the run in each line."""

    def __init__(self, mask: Callable[[str], str]) -> None:
        super().__init__("%(message)s")
        self._mask = mask

    def lines(self, record: logging.LogRecord) -> list[str]:
        run_id = _run_id.get()
        run = f"[run {run_id}] " if run_id else ""
        return [run + _plain(line) for line in self._mask(super().format(record)).splitlines() or [""]]


class _TextFormatter(_LinesFormatter):
    """For terminals and files. Continuation lines are indented, so that no foreign text can imitate a log line."""

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
    """For journald, which parses the priority of each line separately, so each line begins with one.

    The `hint` is on the same line as the problem, because `systemctl status` shows only a few lines.
    """

    _PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in self._PRIORITIES if record.levelno >= level), 7)
        first, *rest = self.lines(record)
        if hint := getattr(record, "hint", None):
            first += f" → {_plain(' '.join(self._mask(str(hint)).split()))}"
        return "\n".join(f"<{priority}>{line}" for line in (first, *rest))


class _JsonFormatter(logging.Formatter):
    """One JSON object per line; added numbers stay numbers, any other added value becomes text."""

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
    """Log the traceback of a bug, which is also reported in one line.

    As text it appears only at level debug; JSON and the journal always contain it. Level, format and secrets are for a
    command that has not set up logging.
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
    """Log an exception that could not be caught: in a destructor, at the end of the program."""
    if found.exc_value is not None:
        crash = (found.exc_type, found.exc_value, found.exc_traceback)
        where = f"{found.err_msg or 'uncatchable exception'}: {found.object!r}"
        logging.getLogger("atom_saas_sync").error("%s", where, exc_info=crash)


def goes_to_journal(stream: TextIO) -> bool:
    """Tell whether a stream goes to systemd's journal, where each line needs a priority (`<3>`: an error).

    Compare the descriptor, do not only check the variable: children inherit it even if their stderr goes elsewhere.
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
    """Tell whether a stream gets colour: NO_COLOR, then FORCE_COLOR (0 means no), then whether it is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in {"", "0"}:
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"
