"""Missing, linked and foreign files and directories, and limited file systems."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from command_lines import LEAVES, minimal, run_all
from conftest import Machine, without_capabilities
from web_support import served

from atom_saas_sync.store.sqlite import schema
from atom_saas_sync.store.sqlite.lock import run_lock

pytestmark = pytest.mark.sqlite("files and the disk below them")

OTHER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

# What is done before the command, in its process.
WITHOUT_RIGHTS = without_capabilities(0, 1, 2)  # CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
# Commands that make a database if there is none, answer without one, or need none (or a terminal first).
MAKING = (
    "sync skills, sync categories, sync ratings, sync all, watch, jobs stop, db upgrade, db restore, "
    "skills import, ratings add"
)
ANSWERING = "status, metrics, doctor, jobs, serve-health"
NEEDING_NONE = (
    "config init, config show, config check, completion, demo, files list, files write, policy check, updates review, "
    "sandbox, sandbox push, sandbox fault, sandbox flood, sandbox state, schedule systemd, schedule cron"
)
ELSEWHERE = {tuple(words.split()) for words in f"{MAKING}, {ANSWERING}, {NEEDING_NONE}".split(", ")}


def run_in_need(machine: Machine, need: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process without some capabilities."""
    return machine.command(*arguments, first=need, **variables)


def run_patched(machine: Machine, patch: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with parts of the standard library replaced."""
    return machine.command(*arguments, first=f"import errno, os, fcntl, sys\n{patch}")


def test_commands_that_need_a_database_create_none(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> None:
    lock = tmp_path_factory.mktemp("lock") / "skills.lock"
    lock.write_text('{"lock_version": 1, "marketplace": "http://127.0.0.1", "skills": {}}')
    command_lines = [minimal(path) for path in LEAVES if path not in ELSEWHERE]
    variables = machine.environment(ATOM_SAAS_DATABASE_URL="data/atom.db", ATOM_SYNC_LOCK_FILE=str(lock))
    results = run_all(machine.directory, command_lines, **variables)
    for words, (code, _, err) in zip(command_lines, results, strict=True):
        assert code == 74, (words, err)
        assert "no database at" in err and "atom-sync sync skills" in err, (words, err)
    assert list(machine.directory.iterdir()) == []


@pytest.mark.parametrize("arguments", [("status",), ("metrics",), ("doctor",), ("jobs",)], ids=" ".join)
def test_commands_that_need_no_database_do_not_create_one(machine: Machine, arguments: tuple[str, ...]) -> None:
    result = machine.command(*arguments)
    assert result.returncode == (1 if arguments == ("doctor",) else 0), result.stderr
    assert list(machine.directory.iterdir()) == []


def test_a_server_without_a_database_does_not_create_one(machine: Machine) -> None:
    with served(machine) as server:
        status = server.get("/health/sync").json()
    assert status["reasons"] == ["never_synced"]
    assert list(machine.directory.iterdir()) == []


@pytest.mark.parametrize("kind", ["skills", "categories", "ratings", "all"])
def test_a_dry_run_creates_nothing(machine: Machine, kind: str) -> None:
    result = machine.command("sync", kind, "--dry-run", "--json")
    assert result.returncode == 0, result.stderr
    assert list(machine.directory.iterdir()) == []


def test_a_dry_run_upgrades_nothing(machine: Machine) -> None:
    oldest = schema.MIGRATIONS[0].name
    assert machine.command("db", "upgrade", oldest).returncode == 0
    before = machine.database_path.read_bytes()
    result = machine.command("sync", "skills", "--dry-run", "--json")
    assert (result.returncode, len(json.loads(result.stdout)["plan"])) == (0, 60)
    assert machine.database_path.read_bytes() == before
    assert machine.command("skills", "list").returncode == 74
    assert not list(machine.directory.glob("*.bak"))


def test_no_temporary_directory_is_a_disk_error(machine: Machine) -> None:
    machine.fill()
    patch = (
        "import tempfile; tempfile._get_default_tempdir = lambda: (_ for _ in ()).throw(FileNotFoundError(2, 'none'))"
    )
    skill_id = machine.sandbox.skill_ids()[0]
    for arguments in (("skills", "edit", skill_id), ("demo",), ("--database", "new.db", "sync", "skills", "--dry-run")):
        result = run_patched(machine, f"os.environ['EDITOR'] = 'true'\n{patch}", *arguments)
        assert result.returncode == 74, result.stderr
        assert "temporary directory" in result.stderr and "TMPDIR" in result.stderr


@pytest.fixture
def locked_away(machine: Machine) -> Path:
    """Return a directory of another user's that nobody else may enter."""
    directory = machine.directory / "private"
    directory.mkdir()
    os.chown(directory, OTHER, OTHER)
    directory.chmod(0o700)
    return directory


@as_root
@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("status", "--json"),
        ("metrics",),
        ("jobs",),
        ("skills", "list"),
        ("db", "check"),
        ("sync", "skills"),
        ("sync", "skills", "--dry-run"),
        ("watch",),
        ("cache", "stats"),
    ],
    ids=" ".join,
)
def test_a_directory_that_may_not_be_entered_is_74(
    machine: Machine, locked_away: Path, arguments: tuple[str, ...]
) -> None:
    result = run_in_need(machine, WITHOUT_RIGHTS, *arguments, ATOM_SAAS_DATABASE_URL=str(locked_away / "atom.db"))
    assert result.returncode == 74, result.stderr
    assert "ermission" in result.stderr and f"sudo -u '#{OTHER}'" in result.stderr
    if "--json" in arguments:
        assert json.loads(result.stdout)["error"]["type"] == "database"


@as_root
def test_a_file_in_a_directory_that_may_not_be_entered(machine: Machine, locked_away: Path) -> None:
    machine.fill()
    inside = str(locked_away / "new")
    for arguments in (("db", "backup", inside), ("metrics", "--textfile", inside)):
        result = run_in_need(machine, WITHOUT_RIGHTS, *arguments)
        assert result.returncode == 74, (arguments, result.stderr)
    doctor = run_in_need(machine, WITHOUT_RIGHTS, "doctor", ATOM_SAAS_DATABASE_URL=inside)
    assert doctor.returncode == 1
    assert "Traceback" not in doctor.stderr and "ermission" in doctor.stdout


@pytest.mark.parametrize("token", ["good", "refused"])
def test_metrics_that_cannot_be_written_are_a_warning(machine: Machine, token: str) -> None:
    variables = {} if token == "good" else {"ATOM_SAAS_API_TOKEN": "at_saas_refused"}
    machine.pull()
    skill_id = machine.sandbox.skill_ids()[0]
    assert machine.command("ratings", "add", skill_id, "4").returncode == 0
    for kind in ("skills", "categories", "ratings", "all"):
        target = str(machine.directory / "missing" / "m.prom")
        result = machine.command("sync", kind, "--json", "--textfile", target, **variables)
        assert result.returncode == (0 if token == "good" else 77), (kind, result.stderr)
        assert "success" in json.loads(result.stdout)
        assert "warning: the metrics were not written" in result.stderr


NAMES = {"long": "n" * 300, "longest": "n" * 250, "path": "/".join(["n" * 200] * 30)}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_that_are_too_long(machine: Machine, name: str) -> None:
    machine.fill()
    for arguments in (
        ("db", "backup", name),
        ("metrics", "--textfile", name),
        ("--database", name, "db", "upgrade"),
        ("--database", name, "status"),
        ("--env-file", name, "status"),
        ("skills", "import", name),
        ("sandbox", "--port", "0", "--catalogue", f"{name}/x"),
        ("schedule", "systemd", "--install", "--root", name * 2),
    ):
        result = machine.command(*arguments)
        assert "Traceback" not in result.stderr and "a bug" not in result.stderr, (arguments, result.stderr)
        may_do = {0} if name == NAMES["longest"] else set()
        assert result.returncode in {2, 74, 78} | may_do, (arguments, result.stderr)


@pytest.mark.parametrize("number", ["EINVAL", "ENOSYS", "ENOTSUP"])
def test_a_file_system_that_cannot_flush(machine: Machine, number: str) -> None:
    machine.fill()
    patch = f"""
def refuse(descriptor): raise OSError(errno.{number}, os.strerror(errno.{number}))
os.fsync = refuse"""
    assert run_patched(machine, patch, "db", "backup", "copy.db").returncode == 0
    assert run_patched(machine, patch, "metrics", "--textfile", "m.prom").returncode == 0
    assert run_patched(machine, patch, "db", "downgrade", "--yes").returncode == 0
    assert run_patched(machine, patch.replace(number, "EIO"), "db", "backup", "other.db").returncode == 74
    assert not (machine.directory / "other.db").exists()


@pytest.mark.parametrize("number", ["ENOLCK", "ENOSYS", "ENOTSUP", "EIO"])
def test_a_file_system_without_locks(machine: Machine, number: str) -> None:
    patch = f"""
def refuse(descriptor, mode): raise OSError(errno.{number}, os.strerror(errno.{number}))
fcntl.flock = refuse"""
    assert machine.command("db", "upgrade").returncode == 0
    for arguments in (("sync", "skills"), ("watch",)):
        result = run_patched(machine, patch, *arguments)
        assert result.returncode == 74, result.stderr
        assert "cannot lock" in result.stderr and "  → the file system of" in result.stderr


@pytest.mark.parametrize("held", ["link", "file"])
def test_a_lock_is_that_of_the_real_file(machine: Machine, held: str) -> None:
    machine.fill()
    (machine.directory / "elsewhere").mkdir()
    link = machine.directory / "elsewhere" / "link.db"
    link.symlink_to(machine.database_path)
    first, second = (link, machine.database_path) if held == "link" else (machine.database_path, link)
    with hold(first):
        result = machine.command("--database", str(second), "sync", "skills")
        status = json.loads(machine.command("--database", str(second), "status", "--json").stdout)
    assert result.returncode == 75, result.stderr
    assert status["sync"]["status"] == "syncing" or "skills" in str(status)


def hold(path: Path, **fields: Any) -> ExitStack:
    stack = ExitStack()
    stack.enter_context(
        run_lock(path, "skills", command="sync skills", now=lambda: "2026-02-19T12:00:00Z", sleep=lambda _: None)
    )
    if fields:
        lock = path.with_name(f"{path.name}.skills.lock")
        lock.write_text(json.dumps({**json.loads(lock.read_text()), **fields}))
    return stack


@pytest.mark.parametrize(
    ("fields", "told", "kill"),
    [
        ({}, "process", True),
        ({"host": "box-7"}, "on box-7", False),
        ({"pid": 1, "pid_namespace": "pid:[1]"}, "in another container", False),
    ],
)
def test_the_holder_of_a_lock_is_named_with_its_place(
    machine: Machine, fields: dict[str, Any], told: str, kill: bool
) -> None:
    machine.fill()
    with hold(machine.database_path, **fields):
        result = machine.command("sync", "skills")
    assert result.returncode == 75
    assert told in result.stderr
    assert ("`kill" in result.stderr) is kill


def owners(directory: Path) -> set[int]:
    return {each.stat().st_uid for each in (directory, *directory.rglob("*"))}


@as_root
def test_files_that_root_creates_belong_to_the_owner_of_the_directory(machine: Machine) -> None:
    os.chown(machine.directory, OTHER, OTHER)
    database = "new/directory/atom.db"
    for arguments in (("sync", "skills"), ("db", "backup", "copy.db"), ("db", "downgrade", "--yes")):
        result = machine.command("--database", database, *arguments)
        assert result.returncode == 0, result.stderr
    assert owners(machine.directory) == {OTHER}
    assert (machine.directory / "new/directory/atom.db.skills.lock").exists()


@as_root
@pytest.mark.parametrize("place", ["lock", "database"])
def test_where_the_owner_cannot_be_given_it_is_74(machine: Machine, place: str) -> None:
    if place == "lock":
        machine.pull()
        for each in machine.directory.iterdir():
            os.chown(each, OTHER, OTHER)
    before = {each.name for each in machine.directory.iterdir()}
    os.chown(machine.directory, OTHER, OTHER)
    machine.directory.chmod(0o777)
    only_chown = WITHOUT_RIGHTS.replace("(0, 1, 2)", "(0,)")
    result = run_in_need(machine, only_chown, "sync", "skills")
    assert result.returncode == 74, result.stderr
    assert f"run: sudo -u '#{OTHER}' atom-sync" in result.stderr
    assert {each.name for each in machine.directory.iterdir()} - before <= {"atom.db-wal", "atom.db-shm"}


@as_root
def test_a_lock_of_another_user_is_reported_with_a_hint(machine: Machine) -> None:
    """Files that root left in a service's directory, seen by the service; here the users are reversed."""
    machine.fill()
    lock = machine.directory / "atom.db.skills.lock"
    lock.touch(mode=0o600)
    os.chown(lock, OTHER, OTHER)
    result = run_in_need(machine, WITHOUT_RIGHTS, "sync", "skills")
    assert result.returncode == 74, result.stderr
    assert f"it belongs to #{OTHER}; run: sudo chown root {lock}" in result.stderr


def test_a_sync_that_writes_much_leaves_room_on_the_disk(machine: Machine) -> None:
    """The rest of the disk is for other programs, and for what this one has to write then."""
    scarce = {"ATOM_SYNC_MIN_FREE_DISK_GB": "10000", "ATOM_SAAS_SYNC_BATCH_SIZE": "10"}
    little = "from atom_saas_sync.usecases import disk_room\ndisk_room.BYTES_REGARDLESS = {}"
    size = sum(len(json.dumps(each)) for each in machine.listed().values())
    ended = machine.command("sync", "skills", "--json", first=little.format(size // 2), **scarce)
    document = json.loads(ended.stdout)
    assert (ended.returncode, document["error"]["type"]) == (74, "database"), ended.stderr
    assert "GB are free on the disk of the database, less than 10000 GB" in document["error"]["message"]
    assert 10 <= len(machine.cached()) < 60
    assert machine.command("sync", "skills", **scarce).returncode == 0, "what it writes usually, it always may"
    assert len(machine.cached()) == 60
