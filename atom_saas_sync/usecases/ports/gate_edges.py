"""What the gate needs of the machine: its files, and the scan command."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol


class GateFiles(Protocol):
    """The files that the settings name, read anew by each verb: (its name for messages, its bytes).

    None if no setting names the file. Raises ConfigError if it is missing, is not a regular file, can't be read, or is
    too large.
    """

    def policy(self) -> tuple[str, bytes] | None:
        """Return the policy file."""

    def lock(self) -> tuple[str, bytes] | None:
        """Return the lock file."""

    def revocations(self) -> tuple[str, bytes] | None:
        """Return the revocations file."""

    def stamps(self) -> object:
        """Return a value that differs once one of the files was written, replaced or removed. It never fails."""


class Scanner(Protocol):
    """The scan command."""

    def scan(
        self, scans: Iterable[tuple[str, bytes]], *, check: Callable[[], None]
    ) -> Iterable[tuple[str, bool, str | None, bool]]:
        """Run the command, a few at a time; yield in any order (skill id, whether it passed, a note, if it timed out).

        Each scan is a skill's id and what the command reads on its standard input. `check` is called often and raises
        what shall end it all: then no process is left. After the time that one run may take for scanning no more are
        started: the rest has no result. Raises ConfigError if the command can't be run.
        """
