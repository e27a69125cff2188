"""A program on a terminal, as users see and use it."""

from __future__ import annotations

import fcntl
import os
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

from conftest import wait_until

_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x08|\r")


class Terminal:
    """A program on a terminal of 80 columns; `atom-sync` is on its PATH."""

    def __init__(self, command: list[str], directory: Path, **variables: str) -> None:
        self._leader, follower = os.openpty()
        termios.tcsetwinsize(follower, (24, 80))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._process = subprocess.Popen(
            command,
            env={"HOME": str(directory), "TERM": "xterm", **variables, "PATH": path},
            cwd=directory,
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - there are no threads
        )
        os.close(follower)

    def await_text(self, awaited: str) -> None:
        """Wait until the terminal shows a new text."""
        shown, end = "", time.monotonic() + 30
        while awaited not in _CONTROLS.sub("", shown):
            assert time.monotonic() < end, shown
            if select.select([self._leader], [], [], 1)[0]:
                shown += os.read(self._leader, 65536).decode(errors="replace")

    def type(self, keys: str, awaited: str | None = None) -> None:
        """Press keys, and wait until the terminal shows a text."""
        os.write(self._leader, keys.encode())
        if awaited is not None:
            self.await_text(awaited)

    def wait(self) -> int:
        """Wait for the program's end, and return its exit code."""
        wait_until(lambda: self._process.poll() is not None)
        return self._process.returncode

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.wait(30)
        os.close(self._leader)
