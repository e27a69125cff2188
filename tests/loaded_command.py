"""Runs the command in forks of a process that has all of it imported: a start takes a small part of its usual time.

Each command is still a process of its own, with its own environment, directory and streams. What happens before our
first line, and what depends on it (encodings, terminals, import times), needs a real start.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

_LONGEST = 120.0
# Variables that the interpreter and its libraries read once, on their start.
_READ_ON_START = ("PYTHON", "LC_", "LANG", "LOC", "MALLOC_", "SSL_")
_LOADED = """
import importlib, json, os, pkgutil, runpy, sys, time
from datetime import UTC, datetime, timedelta
import atom_saas_sync
for module in pkgutil.walk_packages(atom_saas_sync.__path__, "atom_saas_sync."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
import httpx, rich.console, rich.table, sqlite_utils, tenacity, websockets.asyncio.client
from atom_saas_sync.cli.runtime import StopSignals

skipped = 0.0
def skip(self, seconds):
    global skipped
    skipped += seconds
    self.check()

def hurry():
    StopSignals.sleep = skip
    StopSignals.now = lambda self: datetime.now(UTC) + timedelta(seconds=skipped)
    StopSignals.monotonic = lambda self: time.monotonic() + skipped

for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.environ.clear()
        os.environ.update(order["environment"])
        time.tzset()
        os.chdir(order["directory"])
        for number, name in enumerate(order["streams"]):
            file = os.open(name, os.O_RDWR | (os.O_CREAT | os.O_TRUNC if number else 0), 0o600)
            os.dup2(file, number)
            os.close(file)
        sys.stdin, sys.stdout, sys.stderr = (open(n, "rw"[n > 0], closefd=False) for n in range(3))
        if order["umask"] >= 0:
            os.umask(order["umask"])
        if order["hurried"]:
            hurry()
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


class LoadedCommand:
    """A process that has the command loaded; `pid` is that of the command that was begun last."""

    def __init__(self) -> None:
        self.pid = 0
        self._begun: list[str] = []
        self._streams = tempfile.TemporaryDirectory(prefix="atom-sync-test-")
        # In a directory and with variables that no test knows.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LOADED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self,
        *arguments: str,
        environment: dict[str, str],
        directory: Path,
        stdin: str = "",
        umask: int = -1,
        hurried: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. If `hurried`, nobody waits in it: a pause moves its clock on instead."""
        self.begin(*arguments, environment=environment, directory=directory, stdin=stdin, umask=umask, hurried=hurried)
        return self.end()

    def begin(
        self,
        *arguments: str,
        environment: dict[str, str],
        directory: Path,
        stdin: str = "",
        umask: int = -1,
        hurried: bool = False,
    ) -> None:
        """Start a command; it must end before the next one."""
        Path(self._names()[0]).write_text(stdin, "utf-8")
        assert self._process.stdin is not None
        self._begun = list(arguments)
        order = {
            "arguments": arguments,
            "environment": environment,
            "directory": str(directory),
            "streams": self._names(),
            "umask": umask,
            "hurried": hurried,
        }
        print(json.dumps(order), file=self._process.stdin, flush=True)
        self.pid = int(self._answer())

    def end(self) -> subprocess.CompletedProcess[str]:
        """Wait for the command that was begun. One that does not end is killed; -9 is then its code."""
        timer = threading.Timer(_LONGEST, os.kill, (self.pid, signal.SIGKILL))
        timer.start()
        try:
            code = int(self._answer())
        finally:
            timer.cancel()
        out, err = (Path(name).read_text("utf-8") for name in self._names()[1:])
        return subprocess.CompletedProcess(self._begun, code, out, err)

    def stop(self) -> None:
        """End the process."""
        self._process.communicate(timeout=10)
        self._streams.cleanup()

    def _names(self) -> Sequence[str]:
        return [f"{self._streams.name}/{name}" for name in ("in", "out", "err")]

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@functools.cache
def _of_this_process() -> LoadedCommand:
    loaded = LoadedCommand()
    atexit.register(loaded.stop)
    return loaded


def run_command(
    *arguments: str,
    environment: dict[str, str],
    directory: Path,
    stdin: str = "",
    umask: int = -1,
    hurried: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end: in a fork where nothing asks for a real start."""
    plain = not any(name.startswith(_READ_ON_START) for name in environment)
    if hurried or (plain and threading.current_thread() is threading.main_thread()):
        return _of_this_process().run(
            *arguments, environment=environment, directory=directory, stdin=stdin, umask=umask, hurried=hurried
        )
    return subprocess.run(
        [sys.executable, "-m", "atom_saas_sync", *arguments],
        env=environment,
        cwd=directory,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=_LONGEST,
        check=False,
        umask=umask,
    )
