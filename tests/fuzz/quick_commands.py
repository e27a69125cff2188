"""Runs the real command again and again in a small part of its usual time: in forks of a process that has it loaded.

In them nobody waits: a sleep moves the clock on instead.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

_LONGEST = 60.0
_LOADED = """
import importlib, json, os, pkgutil, runpy, sys, time
from datetime import UTC, datetime, timedelta
import atom_saas_sync
for module in pkgutil.walk_packages(atom_saas_sync.__path__, "atom_saas_sync."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from atom_saas_sync.cli.runtime import StopSignals

skipped = 0.0
def sleep(self, seconds):
    global skipped
    skipped += seconds
    self.check()
StopSignals.sleep = sleep
StopSignals.now = lambda self: datetime.now(UTC) + timedelta(seconds=skipped)
StopSignals.monotonic = lambda self: time.monotonic() + skipped

for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["directory"])
        for number, name in enumerate((os.devnull, "out", "err")):
            file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, number)
        sys.stdin, sys.stdout, sys.stderr = (open(n, "rw"[n > 0], closefd=False) for n in range(3))
        sys.argv = ["atom-sync", *order["arguments"]]
        try:
            runpy.run_module("atom_saas_sync", run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


class QuickCommands:
    """The process that has the command loaded; `pid` is that of the command that was begun last."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.pid = 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LOADED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str, environment: dict[str, str]) -> Ended:
        """Run a command to its end."""
        self.begin(*arguments, environment=environment)
        return self.end()

    def begin(self, *arguments: str, environment: dict[str, str]) -> None:
        """Start a command; it must end before the next one."""
        order = {"arguments": arguments, "environment": environment, "directory": str(self._directory)}
        assert self._process.stdin is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        self.pid = int(self._answer())

    def end(self) -> Ended:
        """Wait for the command that was begun. One that does not end is killed; -9 is then its code."""
        timer = threading.Timer(_LONGEST, os.kill, (self.pid, signal.SIGKILL))
        timer.start()
        try:
            code = int(self._answer())
        finally:
            timer.cancel()
        out, err = ((self._directory / name).read_text("utf-8") for name in ("out", "err"))
        return Ended(code, out, err)

    def stop(self) -> None:
        """End the process."""
        self._process.communicate(timeout=10)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()
