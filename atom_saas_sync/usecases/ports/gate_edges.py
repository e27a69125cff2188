"""What the gate needs from the machine: its files, and the scan command."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol


class GateFiles(Protocol):
    """The files that the settings name; each method reads the file again and returns (name for messages, bytes).

    None if the file is not configured. Raises ConfigError if it is missing, not a regular file, unreadable, or too
    large.
    """

    def policy(self) -> tuple[str, bytes] | None:
        """Return the policy file."""

    def lock(self) -> tuple[str, bytes] | None:
        """Return the lock file."""

    def revocations(self) -> tuple[str, bytes] | None:
        """Return the revocations file."""

    def stamps(self) -> object:
        """Return a value that changes when one of the files is written, replaced or removed. Never fails."""


class Scanner(Protocol):
    """The scan command."""

    def scan(
        self, scans: Iterable[tuple[str, bytes]], *, check: Callable[[], None]
    ) -> Iterable[tuple[str, bool, str | None, bool]]:
        """Run the command, a few at a time; yield (skill id, passed, note, timed out) in any order.

        Each scan is a skill's id and the command's standard input. `check` is called often and raises to end all scans;
        no process is left running then. No more scans are started after the time that one run may spend on scanning:
        the rest has no result. Raises ConfigError if the command can't be run.
        """
