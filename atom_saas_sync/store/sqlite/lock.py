"""One run of a kind at a time: a lock on a file beside the database, which dies with the process that holds it.

The file names the holder, for messages; only the operating system knows whether it is held. The file is never deleted:
a process with the old file open and one that created a new file would both hold "the" lock.
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
from atom_saas_sync.store.lock_taken import lock_taken
from atom_saas_sync.store.sqlite.failures import translated_errors
from atom_saas_sync.store.sqlite.files import beside, create_directories, create_private

_POLL_SECONDS = 0.25
# `holder()` takes a shared lock for an instant; retry that long before concluding that another run holds it.
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
    may_wait: bool = False,
) -> Iterator[None]:
    """Hold the lock for runs of this kind during the block; wait for it up to `wait_seconds`.

    `command` and the time `now()` are shown to others that find the lock taken, so `command` must not contain secrets.
    With `may_wait` the error names `--wait`, which only some commands have.

    Raises Locked, naming the holder, and DatabaseError if the lock file cannot be used.
    """
    path = _lock_file(database_path, kind)
    with translated_errors(database_path):
        create_directories(path.parent)
        descriptor = _create_or_open(path)
    try:
        waited = 0.0
        while not _take(descriptor, path, sleep):
            if waited >= wait_seconds:
                raise _locked(kind, _read(descriptor), may_wait=may_wait)
            pause = min(_POLL_SECONDS, wait_seconds - waited)
            sleep(pause)
            waited += pause
        with translated_errors(database_path):
            _write(descriptor, {"pid": os.getpid(), **_here(), "command": command, "since": now()})
        try:
            yield
        finally:
            with translated_errors(database_path):
                os.ftruncate(descriptor, 0)
                # Closing alone would leave the lock with a child that was forked in the meantime.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def holder(database_path: Path, kind: str) -> dict[str, Any] | None:
    """Return `pid`, `host`, `pid_namespace`, `command` and `since` of the run that holds the lock now, or None.

    The dictionary is empty for the instant before a run that got the lock has written its name.

    Raises DatabaseError if the lock file cannot be read.
    """
    path = _lock_file(database_path, kind)
    with translated_errors(database_path):
        try:
            descriptor = _open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return None if _flock(descriptor, path, fcntl.LOCK_SH) else _read(descriptor)
        finally:
            os.close(descriptor)


def _lock_file(database_path: Path, kind: str) -> Path:
    # Of the real file, so that runs with and without a symbolic link use the same lock.
    return beside(database_path, f".{kind}.lock")


def _create_or_open(path: Path) -> int:
    try:
        return create_private(path)
    except FileExistsError:
        return _open(path, os.O_RDWR)


def _open(path: Path, flags: int) -> int:
    """Open the lock file, never through a symbolic link: its contents are overwritten.

    Opening a pipe does not block.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, _PRIVATE)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise DatabaseError(f"the lock file {path} is a symbolic link", hint="remove it; it holds nothing") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise DatabaseError(f"the lock file {path} is not a regular file", hint="remove it; it holds nothing")
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != _PRIVATE:
        os.fchmod(descriptor, _PRIVATE)  # the umask removed some of our permissions, or somebody granted more
    return descriptor


def _take(descriptor: int, path: Path, sleep: Callable[[float], object]) -> bool:
    """Try to get the lock. False if another run has it."""
    for _ in range(_GLANCES):
        if _flock(descriptor, path, fcntl.LOCK_EX):
            return True
        if not _flock(descriptor, path, fcntl.LOCK_SH):
            return False
        # Only a call of `holder()` holds it, not a run.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        sleep(_GLANCE_SECONDS)
    return False


def _flock(descriptor: int, path: Path, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise DatabaseError(
            f"cannot lock {path}: {error.strerror}",
            hint=f"the file system of {path.parent} must support locks: put the database on a local disk "
            "(ATOM_SAAS_DATABASE_URL), or mount the share with locks",
        ) from error
    return True


def _write(descriptor: int, document: dict[str, Any]) -> None:
    content = json.dumps(document, ensure_ascii=False).encode()
    os.pwrite(descriptor, content, 0)
    os.ftruncate(descriptor, len(content))


def _read(descriptor: int) -> dict[str, Any]:
    """Return what the holder wrote; {} if it is just being written."""
    try:
        # Only the first value: a longer, older one may not be truncated yet.
        text = os.pread(descriptor, _MAX_BYTES, 0).decode(errors="replace")
        document, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _here() -> dict[str, str]:
    """Return the host and namespace of a process id: other hosts and containers count separately."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""  # no /proc, or not Linux
    return {"host": os.uname().nodename, "pid_namespace": namespace}


def _locked(kind: str, run: dict[str, Any], *, may_wait: bool) -> Locked:
    pid, here = run.get("pid"), _here()
    # Older versions did not record where they ran.
    if all(run.get(name, value) == value for name, value in here.items()):
        return lock_taken(kind, run, place="", stop=f"`kill {pid}` ends it and frees the lock", may_wait=may_wait)
    place = f" on {run.get('host')}" if run.get("host") != here["host"] else " in another container"
    stop = f"stop it{place}: its process does not run here"
    return lock_taken(kind, run, place=place, stop=stop, may_wait=may_wait)
