"""One logging set-up for the whole program. Secrets are masked at the root: in whatever a line is made of."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import ClassVar, TextIO
from urllib.parse import quote

from atom_saas_sync.errors import UsageError

_MASK = "********"
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_FORMATS = ("auto", "text", "json", "journal")
_CHATTY = ("httpx", "httpcore", "websockets", "uvicorn", "asyncio")
# The token goes into the query of the WebSocket's URL, as the contract asks; whatever stands there is masked.
_TOKEN_IN_URL = re.compile(r"(?i)([?&]token=)[^&\s'\"]+")
_TOKEN_IN_HEADER = re.compile(
    r"(?i)((?:authorization['\"]?\s*[:=,]\s*['\"]?bearer|x-api-token|x-federation-key)\W+)[^\s'\",]+"
)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_run_id: ContextVar[str | None] = ContextVar("run_id", default=None)


def set_run_id(run_id: int | None) -> None:
    """Put the id of the run into every line that follows."""
    _run_id.set(None if run_id is None else str(run_id))


def set_up_logging(
    level: str, line_format: str, *, secrets: Iterable[str], stream: TextIO | None = None
) -> logging.Logger:
    """Send all logging to `stream`, standard error by default, and return the program's logger.

    Raises UsageError for an unknown level or format.
    """
    if level.lower() not in _LEVELS:
        raise UsageError(f"--log-level {level!r} will not do; it takes {', '.join(_LEVELS)}")
    if line_format not in _FORMATS:
        raise UsageError(f"--log-format {line_format!r} will not do; it takes {', '.join(_FORMATS)}")
    stream = stream or sys.stderr
    if line_format == "auto":
        line_format = "journal" if _goes_to_journal(stream) else "text"
    handler = logging.StreamHandler(stream)
    formatters: dict[str, logging.Formatter] = {
        "text": _TextFormatter(colour=_may_colour(stream)),
        "json": _JsonFormatter(),
        "journal": _JournalFormatter(),
    }
    handler.setFormatter(_MaskingFormatter(formatters[line_format], secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level.lower()])
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    return logging.getLogger("atom_saas_sync")


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return `text` without the secrets, also where they are percent-encoded, and without any token in a URL."""
    for secret in secrets:
        text = text.replace(secret, _MASK)
    return _TOKEN_IN_HEADER.sub(rf"\1{_MASK}", _TOKEN_IN_URL.sub(rf"\1{_MASK}", text))


class _MaskingFormatter(logging.Formatter):
    """Masks what another formatter made: message, arguments, exception and all."""

    def __init__(self, inner: logging.Formatter, secrets: Iterable[str]) -> None:
        super().__init__()
        self._inner = inner
        plain = [secret for secret in secrets if secret]
        forms = {*plain, *(quote(secret, safe="") for secret in plain), *(json.dumps(secret)[1:-1] for secret in plain)}
        self._secrets = sorted(forms, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        return mask_secrets(self._inner.format(record), self._secrets)


class _TextFormatter(logging.Formatter):
    """For people."""

    _COLOURS: ClassVar = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}

    def __init__(self, *, colour: bool) -> None:
        super().__init__("%(message)s")
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        run_id = _run_id.get()
        run = f" [run {run_id}]" if run_id else ""
        level = record.levelname.lower()
        colour = self._COLOURS.get(record.levelno) if self._colour else None
        if colour:
            level = f"{colour}{level}\x1b[0m"
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        return f"{time} {level}{run} {super().format(record)}"


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if run_id := _run_id.get():
            line["run_id"] = int(run_id)
        line.update({name: value for name, value in vars(record).items() if name not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class _JournalFormatter(logging.Formatter):
    """For journald: it parses the priority of each line by itself, so each line begins with it."""

    _PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in self._PRIORITIES if record.levelno >= level), 7)
        run_id = _run_id.get()
        text = f"[run {run_id}] {super().format(record)}" if run_id else super().format(record)
        return "\n".join(f"<{priority}>{line}" for line in text.splitlines() or [""])


def _goes_to_journal(stream: TextIO) -> bool:
    """Compare, do not just look for the variable: children inherit it though their stderr goes elsewhere."""
    wanted = os.environ.get("JOURNAL_STREAM")
    if not wanted:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return wanted == f"{status.st_dev}:{status.st_ino}"


def _may_colour(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")
