"""Syncs started over HTTP. Each is a separate process, so that it cannot delay a probe.

It is the same command that users and timers run: same lock, same signals, same audit trail.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from atom_saas_sync.errors import AtomSyncError, ConfigError, DatabaseError, Locked

STARTED_BY = "admin API"
_POLL_SECONDS = 0.05
_BEGIN_SECONDS = 60.0
STOP_SECONDS = 15.0
"""For all children together; with the requests in progress, which come first, less than the 30 s of our units."""

_NICENESS = 10
_FAILURES: tuple[type[AtomSyncError], ...] = (ConfigError, DatabaseError)


class Jobs:
    """Starts syncs as child processes, and ends them with the server."""

    def __init__(
        self,
        command: Sequence[str],
        find_run: Callable[[int, datetime], int | None],
        now: Callable[[], datetime],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`command` is the command line of atom-sync with global options; `find_run` finds a run by process and time.

        The command runs in the root directory, so both must name files by their absolute path.
        """
        self._command = list(command)
        self._environment = environment
        self._find_run = find_run
        self._now = now
        self._lock = threading.Lock()
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, kind: str) -> int:
        """Start a sync of `skills` or `ratings`; return the id of its run as soon as it has started.

        Raises Locked if one is already running, and another AtomSyncError if it did not start.
        """
        since = self._now() - timedelta(seconds=1)
        with self._lock:
            self._children = [child for child in self._children if child.poll() is None]
            child = subprocess.Popen(  # noqa: S603 - our own command, with no part of the request
                [*self._command, "sync", kind, "--json", "--started-by", STARTED_BY],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=self._environment,
                # Others may be able to write to our working directory: modules, which Python would import, and a .env.
                cwd="/",
            )
            with suppress(PermissionError):  # not possible in some sandboxes; the sync runs anyway
                # Requests that wait for a response come first.
                os.setpriority(os.PRIO_PROCESS, child.pid, _NICENESS)
            self._children.append(child)
        return self._run_id(child, kind, since)

    def stop(self) -> None:
        """Ask the children to stop, which they do after the current transaction, and kill those that take too long."""
        with self._lock:
            end = time.monotonic() + STOP_SECONDS
            for child in self._children:
                if child.poll() is None:
                    child.terminate()
            for child in self._children:
                try:
                    child.wait(max(0.0, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    def _run_id(self, child: subprocess.Popen[bytes], kind: str, since: datetime) -> int:
        end = time.monotonic() + _BEGIN_SECONDS
        while time.monotonic() < end:
            ended = child.poll()  # polled before the query: a child that has ended has written everything
            run_id = self._find_run(child.pid, since)
            if run_id is not None:
                return run_id
            if ended == Locked.exit_code:
                raise Locked(f"a {kind} sync is already running, or no request is available now")
            if ended is not None:
                failed = next((each for each in _FAILURES if each.exit_code == ended), AtomSyncError)
                raise failed(f"the {kind} sync did not start: exit code {ended}", hint="its log says why")
            time.sleep(_POLL_SECONDS)
        raise AtomSyncError(f"the {kind} sync did not start within {_BEGIN_SECONDS:.0f} s", hint="its log says why")
