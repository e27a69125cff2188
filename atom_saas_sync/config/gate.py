"""The gate's settings and files, as values and bytes; core/gate interprets them."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from atom_saas_sync.config.settings import Settings
from atom_saas_sync.errors import ConfigError

if TYPE_CHECKING:
    from atom_saas_sync.core.gate.types import MaxChanged, Policy

LARGEST_FILE = 64 * 1024 * 1024
_HINT = "nothing new is admitted until it can be read; served versions stay"


def policy_of(settings: Settings) -> Policy:
    """Return the configured policy, without the rules and the lock file."""
    import shlex

    from atom_saas_sync.core.durations import read_age
    from atom_saas_sync.core.gate.types import Policy

    return Policy(
        admission=settings.admission,
        scope=settings.admission_scope,
        min_age=read_age(settings.min_age),
        max_changed=_max_changed(settings.max_changed),
        scan_command=tuple(shlex.split(settings.scan_command or "")),
    )


def require_scanner(command: tuple[str, ...], environ: Mapping[str, str]) -> None:
    """Raise ConfigError if the program of the scan command does not exist."""
    if not command:
        return
    import shutil

    if shutil.which(command[0], path=environ.get("PATH", os.defpath)) is None:
        raise ConfigError(
            f"ATOM_SYNC_SCAN_COMMAND: there is no program {command[0]!r}",
            hint="nothing new is admitted without it; correct the setting, or unset it",
        )


def _max_changed(text: str | None) -> MaxChanged | None:
    from atom_saas_sync.core.gate.types import MaxChanged

    if text is None:
        return None
    return MaxChanged(share=float(text[:-1]) / 100) if text.endswith("%") else MaxChanged(number=int(text))


class SettingsFiles:
    """The gate's files, read again each time (usecases/ports/gate_edges.py)."""

    def __init__(self, settings: Settings) -> None:
        self._policy = ("ATOM_SYNC_POLICY_FILE", settings.policy_file)
        self._lock = ("ATOM_SYNC_LOCK_FILE", settings.lock_file)
        self._revocations = ("ATOM_SYNC_REVOCATIONS_FILE", settings.revocations_file)

    def policy(self) -> tuple[str, bytes] | None:
        """Return name and bytes of the policy file, None if there is no such setting. Raises ConfigError."""
        return _read(*self._policy)

    def lock(self) -> tuple[str, bytes] | None:
        """Return name and bytes of the lock file, likewise."""
        return _read(*self._lock)

    def revocations(self) -> tuple[str, bytes] | None:
        """Return name and bytes of the revocations file, likewise."""
        return _read(*self._revocations)

    def stamps(self) -> tuple[object, ...]:
        """Return a value that changes when one of the files is written, replaced or removed."""
        return tuple(_stamp(path) for _, path in (self._policy, self._lock, self._revocations))


def _read(variable: str, path: Path | None) -> tuple[str, bytes] | None:
    if path is None:
        return None
    what = f"{variable}: {path}"
    try:
        # Without waiting for the writer of a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:  # noqa: PTH123 - the file that is looked at
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"{what}: is not a regular file", hint=_HINT)
            data = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{what}: {error.strerror}", hint=_HINT) from error
    if len(data) > LARGEST_FILE:
        raise ConfigError(f"{what}: is larger than 64 MiB", hint=_HINT)
    return what, data


def _stamp(path: Path | None) -> object:
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns
