"""Syncs that HTTP asked for. Each is a process of its own, so that nothing it does can delay a probe's answer.

It is the very command that people and timers use: same lock, same signals, same audit trail.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from atom_saas_sync.errors import AtomSyncError, Locked

STARTED_BY = "admin API"
_POLL_SECONDS = 0.05
_BEGIN_SECONDS = 60.0
_STOP_SECONDS = 30.0
_NICENESS = 10


class Jobs:
    """Starts syncs as child processes, and ends them with the server."""

    def __init__(
        self,
        command: Sequence[str],
        find_run: Callable[[int, datetime], int | None],
        now: Callable[[], datetime],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`command` is how atom-sync is called, global options included; `find_run` knows runs by process and time.

        It runs in the root directory: both must name files by their whole path.
        """
        self._command = list(command)
        self._environment = environment
        self._find_run = find_run
        self._now = now
        self._lock = threading.Lock()
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, kind: str) -> int:
        """Start a sync of `skills` or `ratings`; return the id of its run as soon as it has begun.

        Raises Locked if one is at work already, and AtomSyncError if it did not begin.
        """
        since = self._now() - timedelta(seconds=1)
        with self._lock:
            self._children = [child for child in self._children if child.poll() is None]
            child = subprocess.Popen(  # noqa: S603 - our own command, nothing of the request in it
                [*self._command, "sync", kind, "--json", "--started-by", STARTED_BY],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=self._environment,
                # To where we are others may write: modules, which Python would import, and a .env.
                cwd="/",
            )
            with suppress(PermissionError):  # where a sandbox forbids it, the sync goes on without
                # Whoever waits for an answer comes first.
                os.setpriority(os.PRIO_PROCESS, child.pid, _NICENESS)
            self._children.append(child)
        return self._run_id(child, kind, since)

    def stop(self) -> None:
        """Ask the children to end, which they do after the transaction in hand."""
        with self._lock:
            for child in self._children:
                if child.poll() is None:
                    child.terminate()
            for child in self._children:
                try:
                    child.wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    def _run_id(self, child: subprocess.Popen[bytes], kind: str, since: datetime) -> int:
        end = time.monotonic() + _BEGIN_SECONDS
        while time.monotonic() < end:
            ended = child.poll()  # before the look: one that has ended has written all that it will
            run_id = self._find_run(child.pid, since)
            if run_id is not None:
                return run_id
            if ended == Locked.exit_code:
                raise Locked(f"a {kind} sync is at work already, or no request is free now")
            if ended is not None:
                raise AtomSyncError(f"the {kind} sync began no run: exit code {ended}", hint="its log says why")
            time.sleep(_POLL_SECONDS)
        raise AtomSyncError(f"the {kind} sync has not begun within {_BEGIN_SECONDS:.0f} s", hint="its log says why")
