"""A pager for screens that are longer than the terminal."""

from __future__ import annotations

import io
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import wraps
from typing import ParamSpec, TextIO, TypeVar

from atom_saas_sync.cli import runtime
from atom_saas_sync.cli.output import given_options, note, waiting_notes

P = ParamSpec("P")
T = TypeVar("T")

# Not compiled at import: few commands need them.
_ESCAPE = r"\x1b\[[0-9;?]*[A-Za-z]"
_NEEDS_SHELL = r"[|&;<>()$`\\\"'*?\[#~=%]"
_NOT_STARTED = (126, 127)


def paged(command: Callable[P, T]) -> Callable[P, T]:
    """Show a command's screen in a pager if it is longer than the terminal.

    Not for JSON, or for commands that install or ask.
    """

    @wraps(command)
    def run(*args: P.args, **options: P.kwargs) -> T:
        acts = options.get("dry_run") is False or any(map(options.get, ("as_json", "install", "uninstall")))
        with nullcontext() if acts else pager():
            return command(*args, **options)

    return run


@contextmanager
def pager() -> Iterator[None]:
    """Collect the output of the block and show it at the end, in a pager if it is longer than the terminal."""
    out = sys.stdout
    if given_options.get().no_pager or not out.isatty():
        yield
        return
    screen = _Screen(out.encoding)
    notes: list[str] = []
    token = waiting_notes.set(notes)
    sys.stdout = screen
    try:
        yield
    except KeyboardInterrupt:
        screen.truncate(0)
        raise
    finally:
        sys.stdout = out
        waiting_notes.reset(token)
        _show(screen.getvalue(), out)
        for text in notes:
            note(text)


class _Screen(io.StringIO):
    """Collects terminal output, and looks like the terminal."""

    def __init__(self, encoding: str) -> None:
        super().__init__(newline="")
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True


def _show(text: str, out: TextIO) -> None:
    command = runtime.pager()
    if command is None or _fits(text) or not _paged(text, command, out):
        out.write(text)
        out.flush()


def _fits(text: str) -> bool:
    from rich.cells import cell_len

    columns, rows = shutil.get_terminal_size()
    lines = text.split("\n", rows + 1)
    if len(lines) > rows + 1:
        return False
    needed = sum(max(1, -(-cell_len(re.sub(_ESCAPE, "", line)) // columns)) for line in lines)
    return needed - (not lines[-1]) <= rows


def _paged(text: str, command: str, out: TextIO) -> bool:
    """Show a text in the pager; return False, after a warning, if it can't be started."""
    import shlex
    import signal
    import subprocess

    out.flush()
    words = ["/bin/sh", "-c", command] if re.search(_NEEDS_SHELL, command) else shlex.split(command)
    environment = {"LESS": "FRX", "LV": "-c", **runtime.environment_for_others()}
    try:
        # The user's own command, run as usual.
        process = subprocess.Popen(words, stdin=subprocess.PIPE, env=environment)  # noqa: S603
    except OSError as error:
        note(f"warning: cannot start the pager {command!r}: {error.strerror}")
        return False
    assert process.stdin is not None
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the pager
    try:
        with suppress(BrokenPipeError):  # the user quit the pager early
            process.stdin.write(text.encode(out.encoding, errors="replace"))
        with suppress(BrokenPipeError):
            process.stdin.close()
        return process.wait() not in _NOT_STARTED
    finally:
        signal.signal(signal.SIGINT, before)
