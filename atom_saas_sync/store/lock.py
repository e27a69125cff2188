"""One run of a kind at a time: a lock on a file beside the database, which dies with the process that holds it.

The file says who holds it, for people; whether it is held only the operating system knows. It is never deleted: a
process that opened the old file and one that made a new file would both hold "the" lock.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atom_saas_sync.errors import DatabaseError, Locked
from atom_saas_sync.store.database import create_directories
from atom_saas_sync.store.failures import translated_errors

_POLL_SECONDS = 0.25
# Somebody who asks `holder` has the lock shared for an instant; that long a run lets itself be kept from it.
_GLANCE_SECONDS = 0.01
_GLANCES = 100
_MAX_BYTES = 4096
_PRIVATE = 0o600


@contextmanager
def run_lock(
    database_path: Path,
    kind: str,
    *,
    command: str,
    now: Callable[[], str],
    sleep: Callable[[float], object],
    wait_seconds: float = 0,
) -> Iterator[None]:
    """Hold the lock for runs of this kind during the block; wait for it up to `wait_seconds`.

    `command` and the time `now()` are shown to whoever finds the lock taken: put no secret in the command.

    Raises Locked, naming the holder, and DatabaseError if the lock file cannot be used.
    """
    path = _lock_file(database_path, kind)
    with translated_errors(database_path):
        create_directories(path.parent)
        descriptor = _open(path, os.O_RDWR | os.O_CREAT)
    try:
        waited = 0.0
        while not _take(descriptor, sleep):
            if waited >= wait_seconds:
                raise _locked(kind, _read(descriptor))
            pause = min(_POLL_SECONDS, wait_seconds - waited)
            sleep(pause)
            waited += pause
        with translated_errors(database_path):
            _write(descriptor, {"pid": os.getpid(), "command": command, "since": now()})
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
            # Closing alone would leave the lock with a child that was forked in the meantime.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def holder(database_path: Path, kind: str) -> dict[str, Any] | None:
    """Return `pid`, `command` and `since` of the run that holds the lock now, or None.

    The dictionary is empty in the instant in which a run has the lock and has not written its name yet.

    Raises DatabaseError if the lock file cannot be read.
    """
    path = _lock_file(database_path, kind)
    with translated_errors(database_path):
        try:
            descriptor = _open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(descriptor)
        else:
            return None
        finally:
            os.close(descriptor)


def _lock_file(database_path: Path, kind: str) -> Path:
    return database_path.with_name(f"{database_path.name}.{kind}.lock")


def _open(path: Path, flags: int) -> int:
    """Open the lock file, never through a symbolic link: its contents are overwritten."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise DatabaseError(f"the lock file {path} is a symbolic link", hint="remove it; it holds nothing") from error
    status = os.fstat(descriptor)
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != _PRIVATE:
        os.fchmod(descriptor, _PRIVATE)  # the umask took rights from us, or somebody gave them to others
    return descriptor


def _take(descriptor: int, sleep: Callable[[float], object]) -> bool:
    """Try to get the lock. False if another run has it."""
    for _ in range(_GLANCES):
        if _flock(descriptor, fcntl.LOCK_EX):
            return True
        if not _flock(descriptor, fcntl.LOCK_SH):
            return False
        # No run holds it, only somebody who looks.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        sleep(_GLANCE_SECONDS)
    return False


def _flock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(descriptor: int, document: dict[str, Any]) -> None:
    content = json.dumps(document, ensure_ascii=False).encode()
    os.pwrite(descriptor, content, 0)
    os.ftruncate(descriptor, len(content))


def _read(descriptor: int) -> dict[str, Any]:
    """Return what the holder wrote; {} if it is just being written."""
    try:
        # The first value only: a longer, older one may not have been cut off yet.
        text = os.pread(descriptor, _MAX_BYTES, 0).decode(errors="replace")
        document, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _locked(kind: str, run: dict[str, Any]) -> Locked:
    pid = run.get("pid")
    who = f": `{run.get('command')}`, process {pid}, since {run.get('since')}" if pid else ""
    return Locked(
        f"another {kind} run is at work{who}",
        hint="it goes on by itself; `--wait SECONDS` waits for it"
        + (f"; if it hangs, `kill {pid}` ends it and frees the lock" if pid else ""),
    )
