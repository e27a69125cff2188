from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from store_support import child_at_work

from atom_saas_sync.errors import DatabaseError, Locked
from atom_saas_sync.store.sqlite.lock import holder, run_lock

NOW = "2026-02-19T12:00:00Z"

HOLD_THE_RUN_LOCK = f"""
with lock.run_lock(path, "skills", command="sync skills --scheduled", now=lambda: "{NOW}", sleep=lambda _: None):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "atom.db"


def no_sleep(seconds: float) -> None:
    pytest.fail(f"slept {seconds} s")


def take(
    path: Path, kind: str = "skills", *, wait_seconds: float = 0, sleep: Callable[[float], object] = no_sleep
) -> AbstractContextManager[None]:
    return run_lock(path, kind, wait_seconds=wait_seconds, command="sync skills", now=lambda: NOW, sleep=sleep)


def lock_file(path: Path) -> Path:
    return path.with_name("atom.db.skills.lock")


def test_one_run_of_a_kind_at_a_time(path: Path) -> None:
    with child_at_work(HOLD_THE_RUN_LOCK, path) as process:
        with pytest.raises(Locked) as caught, take(path):
            pass
        error = caught.value
        assert error.exit_code == 75
        assert error.message == (
            f"another skills run is in progress: `sync skills --scheduled`, process {process.pid}, since {NOW}"
        )
        assert f"kill {process.pid}" in str(error.hint)
        with take(path, "ratings"):
            pass
    with take(path):
        pass


def test_the_lock_binds_within_a_process_too(path: Path) -> None:
    with take(path), pytest.raises(Locked, match=f"process {os.getpid()}"), take(path):
        pass


def test_the_lock_dies_with_its_holder(path: Path) -> None:
    with child_at_work(HOLD_THE_RUN_LOCK, path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        assert "scheduled" in lock_file(path).read_text()
        assert holder(path, "skills") is None
        with take(path):
            held = holder(path, "skills") or {}
            assert held.items() >= {"pid": os.getpid(), "command": "sync skills", "since": NOW}.items()


def test_the_lock_is_free_after_a_failure(path: Path) -> None:
    with pytest.raises(ValueError, match="oops"), take(path):
        raise ValueError("oops")
    with take(path):
        pass


def test_waiting_is_bounded(path: Path) -> None:
    slept: list[float] = []
    with take(path), pytest.raises(Locked), take(path, wait_seconds=1.1, sleep=slept.append):
        pass
    assert sum(slept) == pytest.approx(1.1)
    assert len(slept) == 5


def test_waiting_ends_when_the_lock_is_free(path: Path) -> None:
    first = take(path)
    first.__enter__()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            first.__exit__(None, None, None)

    with take(path, wait_seconds=60, sleep=sleep):
        assert holder(path, "skills") is not None
    assert len(slept) == 2


def test_a_stop_during_the_wait_ends_it(path: Path) -> None:
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with take(path), pytest.raises(KeyboardInterrupt), take(path, wait_seconds=60, sleep=stop):
        pass
    with take(path):
        pass


def test_a_query_of_the_holder_does_not_block_a_run(path: Path) -> None:
    with take(path):
        pass
    descriptor = os.open(lock_file(path), os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    with take(path, sleep=lambda _: os.close(descriptor)):
        assert holder(path, "skills") is not None


def test_a_process_that_only_queries_forever_is_not_a_holder(path: Path) -> None:
    with take(path):
        pass
    descriptor = os.open(lock_file(path), os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    with pytest.raises(Locked) as caught, take(path, sleep=lambda _: None):
        pass
    os.close(descriptor)
    assert caught.value.message == "another skills run is in progress"


def test_a_lock_that_was_never_taken_has_no_holder(path: Path) -> None:
    assert holder(path, "skills") is None
    assert not lock_file(path).exists()


def test_a_holder_that_has_not_written_its_name_yet_is_a_holder(path: Path) -> None:
    descriptor = os.open(lock_file(path), os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    for content in (b"", b"nonsense", b"[1]", b"\xff\xfe"):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)
        assert holder(path, "skills") == {}
    # A longer old name that is not truncated yet.
    os.pwrite(descriptor, json.dumps({"pid": 1}).encode() + b'er", "pid": 5}', 0)
    assert holder(path, "skills") == {"pid": 1}
    os.close(descriptor)


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_the_file_is_private_stays_and_keeps_no_name(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "new" / "atom.db"
    before = os.umask(umask)
    try:
        with take(path):
            inode = lock_file(path).stat().st_ino
    finally:
        os.umask(before)
    assert stat.S_IMODE(lock_file(path).stat().st_mode) == 0o600
    assert lock_file(path).read_bytes() == b""
    with take(path):
        assert lock_file(path).stat().st_ino == inode


def test_a_symbolic_link_is_refused(path: Path) -> None:
    precious = path.with_name("precious")
    precious.write_text("content")
    lock_file(path).symlink_to(precious)
    with pytest.raises(DatabaseError, match="symbolic link"), take(path):
        pass
    with pytest.raises(DatabaseError, match="symbolic link"):
        holder(path, "skills")
    assert precious.read_text() == "content"


def test_a_place_that_cannot_hold_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseError) as caught, take(tmp_path / "file" / "atom.db"):
        pass
    assert caught.value.exit_code == 74


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_special_files_do_not_block(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "atom.db.skills.lock")
    with pytest.raises(DatabaseError, match=r"is not a regular file|Is a directory"):
        holder(tmp_path / "atom.db", "skills")
    with (
        pytest.raises(DatabaseError, match=r"is not a regular file|Is a directory"),
        run_lock(tmp_path / "atom.db", "skills", command="c", now=lambda: "", sleep=lambda _: None),
    ):
        pytest.fail("it has the lock")
