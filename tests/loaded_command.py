"""Runs the command in forks of a process that has imported all of it, so that starts are fast.

Each command is still a process of its own, with its own environment, directory and streams. Tests of encodings, import
times and memory need a real start.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

_LONGEST = 120.0
# Variables that the interpreter and its libraries read only once, when they start.
_READ_ON_START = ("PYTHON", "LC_", "LANG", "LOC", "MALLOC_")


class Forked:
    """A command that runs in a fork, with the part of subprocess.Popen that tests use."""

    def __init__(self, arguments: list[str], told: IO[bytes], stdout: IO[str] | None, stderr: IO[str] | None) -> None:
        self.args = arguments
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: int | None = None
        self._told = told
        self._lock = threading.Lock()
        self.pid = int(told.readline())

    def poll(self) -> int | None:
        """Return the exit code if it has ended."""
        return self._ended_within(0)

    def wait(self, timeout: float = _LONGEST) -> int:
        """Wait for its end. Raises TimeoutExpired."""
        code = self._ended_within(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def communicate(self, timeout: float = _LONGEST) -> tuple[str, str]:
        """Read the rest of its output until it ends. Raises TimeoutExpired."""
        texts = {}

        def read(number: int, stream: IO[str]) -> None:
            texts[number] = stream.read()

        streams = [(number, each) for number, each in enumerate((self.stdout, self.stderr)) if each is not None]
        threads = [threading.Thread(target=read, args=each, daemon=True) for each in streams if not each[1].closed]
        for each in threads:
            each.start()
        self.wait(timeout)
        for each in threads:
            each.join(timeout)
            if each.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.close()
        return texts.get(0, ""), texts.get(1, "")

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ended just now
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Close our ends of its streams."""
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    def _ended_within(self, seconds: float) -> int | None:
        if self.returncode is None:
            with suppress(ValueError, OSError):  # closed: another thread has just read it
                select.select([self._told], [], [], seconds)
            with self._lock:
                if self.returncode is None and select.select([self._told], [], [], 0)[0]:
                    self.returncode = int(self._told.readline())
                    self._told.close()
        return self.returncode


class _ForkServer:
    """The process that is forked; any thread may send orders."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair()
        self._lock = threading.Lock()
        # In a directory and with variables of its own.
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py")), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()

    def fork(self, order: Mapping[str, Any], streams: tuple[int, int, int]) -> IO[bytes]:
        """Start a command; return the stream with its process id and then its exit code, one a line."""
        told, tell = os.pipe()
        text = json.dumps(order).encode()
        with self._lock:
            socket.send_fds(self._orders, [struct.pack("!I", len(text))], [tell, *streams])
            self._orders.sendall(text)
        os.close(tell)
        return os.fdopen(told, "rb", buffering=0)

    def stop(self) -> None:
        """End the process."""
        self._orders.close()
        self._process.wait(timeout=10)


@functools.cache
def _of_this_process() -> _ForkServer:
    server = _ForkServer()
    atexit.register(server.stop)
    return server


def may_fork(environment: Mapping[str, str]) -> bool:
    """Tell whether nothing in the environment requires a real start."""
    return not any(name.startswith(_READ_ON_START) for name in environment)


def start_command(
    *arguments: str,
    environment: dict[str, str],
    directory: Path,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    umask: int = -1,
    hurried: bool = False,
    new_session: bool = False,
    first: str = "",
    code: str | None = None,
) -> Forked:
    """Start the command, or Python `code`; streams without a descriptor of the caller can be read.

    If `hurried`, pauses only move its clock. `first` is Python code to execute before.
    """
    order = {
        "arguments": arguments,
        "environment": environment,
        "directory": str(directory),
        "umask": umask,
        "hurried": hurried,
        "new_session": new_session,
        "first": first,
        "code": code,
    }
    theirs = []
    ours: list[IO[str] | None] = []
    given = []
    if stdin is None:
        stdin = os.open(os.devnull, os.O_RDONLY)
        theirs.append(stdin)
    for descriptor in (stdout, stderr):
        if descriptor is None:
            reader, descriptor = os.pipe()  # noqa: PLW2901 - the one that was not given
            theirs.append(descriptor)
            ours.append(os.fdopen(reader, encoding="utf-8"))
        else:
            ours.append(None)
        given.append(descriptor)
    told = _of_this_process().fork(order, (stdin, given[0], given[1]))
    for descriptor in theirs:
        os.close(descriptor)
    return Forked(["atom-sync", *arguments], told, ours[0], ours[1])


def run_command(
    *arguments: str,
    environment: dict[str, str],
    directory: Path,
    stdin: str = "",
    umask: int = -1,
    hurried: bool = False,
    first: str = "",
    code: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the command, or Python `code`, to its end: in a fork unless a real start is required.

    A command that does not end is killed; its exit code is then -9.
    """
    if not (hurried or first or may_fork(environment)):
        return subprocess.run(
            [sys.executable, *(["-m", "atom_saas_sync"] if code is None else ["-c", code]), *arguments],
            env=environment,
            cwd=directory,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_LONGEST,
            check=False,
            umask=umask,
        )
    with os.fdopen(os.memfd_create("stdin"), "wb+", buffering=0) as given:
        given.write(stdin.encode())
        given.seek(0)
        process = start_command(
            *arguments,
            environment=environment,
            directory=directory,
            stdin=given.fileno(),
            umask=umask,
            hurried=hurried,
            first=first,
            code=code,
        )
    timer = threading.Timer(_LONGEST, process.kill)
    timer.start()
    try:
        out, err = process.communicate(2 * _LONGEST)
    finally:
        timer.cancel()
    return subprocess.CompletedProcess(process.args, process.wait(), out, err)
