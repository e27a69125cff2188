"""Standard input, output and error as the commands rely on them: open, blocking, buffered, and never a traceback."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


# Not AtomSyncError and not OSError: no handler on the way may take these for a failure of the command.
class ReaderGone(Exception):
    """Nobody reads standard output any more (head, less)."""


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
        """Write, or drop the text: a message that cannot be shown must not end what it is about."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def set_up_streams() -> None:
    """Open the streams that whoever started us has closed, and make output buffered and blocking.

    Python writes unbuffered output once (PYTHONUNBUFFERED), and a non-blocking pipe takes what it has room for: both
    lose the rest. Characters that the encoding lacks are replaced.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            # The next file that is opened would otherwise get the number, and the stream's text.
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
