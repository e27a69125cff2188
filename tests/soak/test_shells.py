"""Completion in shells as people use them: a terminal, keys pressed, and what the line says then."""

from __future__ import annotations

import fcntl
import os
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.soak

BEGIN = {
    "bash": (["bash", "--norc", "-i"], 'eval "$(atom-sync completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'eval "$(atom-sync completion zsh)"'),
    "zsh from a file": (
        ["zsh", "-f", "-i"],
        "atom-sync completion zsh > _atom-sync; fpath=($PWD $fpath); autoload -Uz compinit; compinit -D",
    ),
    "fish": (["fish", "--no-config", "-i"], "atom-sync completion fish | source"),
}


class Terminal:
    """A shell on a terminal."""

    def __init__(self, command: list[str], directory: Path) -> None:
        self._leader, follower = os.openpty()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._process = subprocess.Popen(
            command,
            env={"PATH": path, "HOME": str(directory), "TERM": "xterm", "PS1": "$ "},
            cwd=directory,
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - there are no threads
        )
        os.close(follower)

    def type(self, keys: str, awaited: str) -> None:
        """Press keys, and wait until the terminal shows a text."""
        os.write(self._leader, keys.encode())
        shown, end = "", time.monotonic() + 30
        while awaited not in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x08|\r", "", shown):
            assert time.monotonic() < end, shown
            if select.select([self._leader], [], [], 1)[0]:
                shown += os.read(self._leader, 65536).decode(errors="replace")

    def close(self) -> None:
        """End the shell."""
        self._process.kill()
        self._process.wait(30)
        os.close(self._leader)


@pytest.mark.parametrize("name", BEGIN)
def test_the_tab_key_completes(name: str, tmp_path: Path) -> None:
    command, script = BEGIN[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]} here")
    terminal = Terminal(command, tmp_path)
    try:
        terminal.type(f"{script}; echo re''ady\n", "ready")
        terminal.type("atom-sync stat\t", "atom-sync status")
        terminal.type("\x15atom-sync sync skills --strategy=rem\t", "--strategy=remote_wins")
        terminal.type("\x15atom-sync sync skills --strategy lo\t", "local_wins")
        (tmp_path / "some-skills.json").touch()
        terminal.type("\x15atom-sync skills import some-\t", "some-skills.json")
    finally:
        terminal.close()
