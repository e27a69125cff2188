"""Run the scan command: a few processes at a time, each with a time limit, and none left running at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import islice

from atom_saas_sync.characters import printable, without_hidden
from atom_saas_sync.errors import ConfigError

SECONDS_EACH, SECONDS_IN_ALL, AT_ONCE = 30.0, 300.0, 4
_CHECK_SECONDS = 0.2
_LONGEST_NOTE = 200
_HEAD = 16 * 1024

_Result = tuple[str, bool, str | None, bool]


class CommandScanner:
    """Runs the command without a shell, with only `environment` as its environment."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        seconds_each: float = SECONDS_EACH,
        seconds_in_all: float = SECONDS_IN_ALL,
    ) -> None:
        self._command = tuple(command)
        self._environment = dict(environment)
        self._each = seconds_each
        self._in_all = seconds_in_all
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def scan(self, scans: Iterable[tuple[str, bytes]], *, check: Callable[[], None]) -> Iterator[_Result]:
        """Yield (skill id, passed, note, timed out) for each (skill id, document); see usecases/ports/gate_edges.py."""
        until = time.monotonic() + self._in_all
        waiting = iter(scans)
        self._stopped = False
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="scan") as pool:
            running: set[Future[_Result]] = set()
            try:
                while True:
                    check()
                    if time.monotonic() < until:
                        free = AT_ONCE - len(running)
                        running |= {pool.submit(self._run, *scan) for scan in islice(waiting, free)}
                    if not running:
                        return
                    done, running = wait(running, timeout=_CHECK_SECONDS, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            finally:
                self._kill_all()

    def _run(self, skill_id: str, document: bytes) -> _Result:
        expired = threading.Event()
        # A file, not a pipe: a program that reads nothing, or exits early, must not block us.
        with tempfile.TemporaryFile() as stdin:
            stdin.write(document)
            stdin.seek(0)
            process = self._start(stdin.fileno())

            def expire() -> None:
                expired.set()
                _kill(process)

            timer = threading.Timer(self._each, expire)
            timer.start()
            try:
                with process:
                    assert process.stdout is not None
                    head = process.stdout.read(_HEAD)
                    while process.stdout.read(_HEAD):
                        pass
                code = process.returncode
            finally:
                timer.cancel()
                with self._lock:
                    self._processes.discard(process)
        if expired.is_set():
            return skill_id, False, f"the scan command took longer than {self._each:g} s", True
        note = _first_line(head)
        return skill_id, code == 0, note if code == 0 or note else f"the scan command ended with {code}", False

    def _start(self, stdin: int) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped:
                raise InterruptedError
            try:
                process = subprocess.Popen(  # noqa: S603 - the operator's own command
                    self._command,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise ConfigError(
                    f"ATOM_SYNC_SCAN_COMMAND: cannot run {printable(self._command[0])!r}: {error.strerror}",
                    hint="nothing new is admitted without it; correct the setting, or unset it",
                ) from error
            self._processes.add(process)
            return process

    def _kill_all(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._processes:
                _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its children: they have a process group of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _first_line(output: bytes) -> str | None:
    for line in output.decode(errors="replace").splitlines():
        if without_hidden(line).strip():
            return printable(line.strip())[:_LONGEST_NOTE]
    return None
