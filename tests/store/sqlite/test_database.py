from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_support import HOLD_THE_WRITE_LOCK, ROOT, child, child_at_work, plain, run_child, schema_of, sql

from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.store.sqlite import migrations, revisions
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.failures import translated_errors
from atom_saas_sync.store.sqlite.files import create_directories


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "atom.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with Database.open(path, busy_timeout_seconds=0.05) as database:
        yield database


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """Return a directory that every user can reach, as pytest's own is not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def failure(path: Path, **options: bool) -> DatabaseError:
    with pytest.raises(DatabaseError) as caught:
        Database.open(path, busy_timeout_seconds=0.05, **options)
    error = caught.value
    assert error.exit_code == 74
    assert str(path) in error.message
    assert "\n" not in error.message
    assert error.hint
    return error


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Opening


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o277])
def test_files_and_directories_are_private_under_any_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "state" / "atom" / "atom.db"
    before = os.umask(umask)
    try:
        with Database.open(path) as database, database.transaction() as connection:
            connection.execute("UPDATE sync_state SET total_syncs = 1")
            files = {each.name: mode(each) for each in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert files == {"atom.db": 0o600, "atom.db-wal": 0o600, "atom.db-shm": 0o600}
    assert mode(path.parent) == mode(path.parent.parent) == 0o700


def test_existing_directories_and_files_keep_their_modes(path: Path) -> None:
    path.parent.chmod(0o750)
    path.touch()
    path.chmod(0o660)
    with Database.open(path) as database, database.transaction():
        assert mode(path) == mode(path.with_name("atom.db-shm")) == 0o660
    assert mode(path.parent) == 0o750


def test_a_directory_made_by_another_process_at_the_same_moment_is_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = Path.mkdir

    def twice(self: Path, mode: int) -> None:
        mkdir(self, mode)
        mkdir(self, mode)

    monkeypatch.setattr(Path, "mkdir", twice)
    create_directories(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_connection_is_set_up(database: Database) -> None:
    values = {
        name: database.connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous", "recursive_triggers")
    }
    assert values == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "busy_timeout": 50,
        "synchronous": 1,
        "recursive_triggers": 0,
    }


def test_an_existing_empty_file_becomes_a_database(path: Path) -> None:
    path.touch()
    with Database.open(path) as database:
        assert revisions.pending(database) == []


def test_a_name_that_looks_like_a_url_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=ro#%20ü" / "file:x.db"
    Database.open(path).close()
    assert path.exists()


def test_opening_a_current_database_needs_no_sqlite_utils(path: Path) -> None:
    Database.open(path).close()
    code = """
import sys
from pathlib import Path
from atom_saas_sync.store.sqlite.database import Database
for read_only in (False, True):
    Database.open(Path(sys.argv[1]), read_only=read_only).close()
print([name for name in ("sqlite_utils", "asyncio", "typer") if name in sys.modules])
"""
    output = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert output.stdout == "[]\n"


def test_closing_twice_is_fine(path: Path) -> None:
    database = Database.open(path)
    database.close()
    database.close()


# Paths that cannot be a database


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert "Is a directory" in failure(tmp_path).message
    assert "Is a directory" in failure(tmp_path, read_only=True).message


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "Not a directory" in failure(tmp_path / "file" / "atom.db").message


def test_a_directory_that_cannot_be_made_is_refused() -> None:
    assert "/proc/nowhere" in failure(Path("/proc/nowhere/atom.db")).message


def test_a_file_that_cannot_be_made_is_refused() -> None:
    assert failure(Path("/proc/atom.db")).__cause__ is not None


def test_a_path_that_is_not_a_regular_file_is_refused(path: Path) -> None:
    os.mkfifo(path)
    assert "not a regular file" in failure(path).message


def test_a_file_with_two_names_can_be_read_but_not_written(path: Path, tmp_path: Path) -> None:
    Database.open(path).close()
    other = tmp_path / "other.db"
    other.hardlink_to(path)
    for name in (path, other):
        assert "2 names" in failure(name).message
        Database.open(name, read_only=True).close()
    other.unlink()
    Database.open(path).close()


def test_a_link_to_nowhere_is_refused(path: Path) -> None:
    path.symlink_to("nowhere")
    assert "No such file" in failure(path).message


@pytest.mark.parametrize(
    "content", [b"Dear diary, today I was mistaken for a database. " * 30, b"SQLite format 3\0" * 99]
)
def test_a_file_that_is_not_a_database_is_refused_and_unchanged(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for read_only in (False, True):
        error = failure(path, read_only=read_only)
        assert "is not an SQLite database" in error.message
        assert isinstance(error.__cause__, sqlite3.DatabaseError)
    assert path.read_bytes() == content


def test_a_database_cut_short_is_refused(path: Path) -> None:
    Database.open(path).close()
    path.write_bytes(path.read_bytes()[: 3 * 4096])
    error = failure(path)
    assert "is damaged" in error.message
    assert "backup" in str(error.hint)


def test_a_damaged_page_is_reported_by_any_command_that_reads_it(path: Path) -> None:
    with Database.open(path) as database, database.transaction() as connection:
        connection.execute("""
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
            INSERT INTO fact SELECT 'fact ' || i, hex(zeroblob(500)), 'now' FROM n
        """)
    content = bytearray(path.read_bytes())
    content[-40 * 4096 :] = b"\xff" * (40 * 4096)
    path.write_bytes(content)
    with (
        Database.open(path) as database,
        pytest.raises(DatabaseError, match="is damaged"),
        database.reading() as connection,
    ):
        connection.execute("SELECT sum(length(value)) FROM fact").fetchone()


@pytest.mark.parametrize(("closed", "mode"), [("file", 0o444), ("file", 0o000), ("directory", 0o000)])
def test_without_the_right_to_it_it_is_refused(public_directory: Path, closed: str, mode: int) -> None:
    path = public_directory / "atom.db"
    Database.open(path).close()
    path.chmod(0o666)
    (path if closed == "file" else public_directory).chmod(mode)
    output = run_child("become_nobody(); report(lambda: Database.open(path))", path)
    public_directory.chmod(0o755)
    assert output.startswith("74 ")
    assert "Permission denied" in output
    assert "run as the user that owns" in output


@pytest.mark.parametrize("read_only", [True, False])
def test_a_directory_without_the_right_to_write_is_named(public_directory: Path, read_only: bool) -> None:
    # Even reading needs it: nobody has the database open, and so there is no -shm file to share.
    path = public_directory / "atom.db"
    Database.open(path).close()
    path.chmod(0o666)
    public_directory.chmod(0o555)
    try:
        output = run_child(f"become_nobody(); report(lambda: Database.open(path, read_only={read_only}))", path)
    finally:
        public_directory.chmod(0o755)
    assert output.startswith("74 ")
    assert f"no permission to write in the directory {public_directory}" in output
    assert "even for reading" in output


def test_a_directory_that_may_not_be_made_is_refused(public_directory: Path) -> None:
    public_directory.chmod(0o555)
    output = run_child("become_nobody(); report(lambda: Database.open(path))", public_directory / "new" / "atom.db")
    assert output.startswith("74 ")
    assert "Permission denied" in output
    public_directory.chmod(0o755)


# Full disks


def test_a_new_database_on_a_full_disk_leaves_nothing_half_done(path: Path) -> None:
    output = run_child("limit_files(20_000); report(lambda: Database.open(path))", path)
    assert output.startswith("74 ")
    with Database.open(path) as database:
        assert revisions.pending(database) == []


def test_a_write_on_a_full_disk_keeps_what_was_committed(path: Path) -> None:
    Database.open(path).close()
    output = run_child(
        """
database = Database.open(path)
with database.transaction() as connection:
    connection.execute("UPDATE sync_state SET total_syncs = 7")
limit_files(path.stat().st_size)
def fill():
    with database.transaction() as connection:
        connection.execute("UPDATE sync_state SET total_syncs = 8")
        connection.execute("INSERT INTO fact VALUES ('large', hex(zeroblob(9000000)), 'now')")
report(fill)
print(database.connection.in_transaction)
print(*database.connection.execute("SELECT total_syncs FROM sync_state").fetchone())
""",
        path,
    )
    assert output.startswith("74 ")
    assert "failed" in output
    assert "ulimit -f" in output
    assert output.endswith("False\n7")
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_full_database_is_reported(database: Database) -> None:
    pages = database.connection.execute("PRAGMA page_count").fetchone()[0]
    database.connection.execute(f"PRAGMA max_page_count = {pages}")
    with (
        pytest.raises(DatabaseError, match="is full") as caught,
        database.transaction() as connection,
    ):
        connection.execute("INSERT INTO fact VALUES ('large', hex(zeroblob(900000)), 'now')")
    assert "df -h" in str(caught.value.hint)
    with database.transaction() as connection:
        connection.execute("UPDATE sync_state SET total_syncs = 1")


# Other versions and other programs


def test_a_newer_database_is_refused(path: Path) -> None:
    Database.open(path).close()
    sql(path, "INSERT INTO _sqlite_migrations VALUES (99, 'atom_saas_sync', '0099_future', '2030-01-01 00:00:00')")
    for read_only in (False, True):
        error = failure(path, read_only=read_only)
        assert "newer atom-sync" in error.message
        assert "0099_future" in error.message


def test_another_programs_table_of_our_name_is_named_and_nothing_is_touched(path: Path) -> None:
    sql(path, "CREATE TABLE users (id)", "CREATE TABLE Skill_Rating (stars)", "INSERT INTO Skill_Rating VALUES (5)")
    before = path.read_bytes()
    error = failure(path)
    assert "table skill_rating" in error.message
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["atom.db"]


def test_another_programs_database_gets_our_tables_beside_its_own(path: Path) -> None:
    sql(
        path,
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name)",
        "INSERT INTO users VALUES (1, 'ada')",
        # As sqlite-migrate, the forerunner of sqlite-utils 4, made it.
        "CREATE TABLE _sqlite_migrations (migration_set, name, applied_at, PRIMARY KEY (migration_set, name))",
        "INSERT INTO _sqlite_migrations VALUES ('theirs', '0001_catalogue', 'once')",
    )
    with Database.open(path) as database:
        assert revisions.pending(database) == []
    assert sql(path, "SELECT * FROM users") == [(1, "ada")]
    assert sql(path, "SELECT name, applied_at FROM _sqlite_migrations WHERE migration_set = 'theirs'") == [
        ("0001_catalogue", "once")
    ]


# Read-only


def test_read_only_does_not_make_a_database(path: Path) -> None:
    error = failure(path, read_only=True)
    assert "there is no database" in error.message
    assert "db upgrade" in str(error.hint)
    assert not path.exists()


def test_read_only_does_not_upgrade(path: Path) -> None:
    with Database.open(path) as database:
        migrations.downgrade(database, "0003_conflicts")
    before = schema_of(path)
    assert f"it lacks {', '.join(list(revisions.NAMES)[3:])}" in failure(path, read_only=True).message
    Database.open(path, read_only=True, migrate=False).close()
    assert schema_of(path) == before


def test_read_only_cannot_write(path: Path) -> None:
    Database.open(path).close()
    with (
        Database.open(path, read_only=True) as database,
        pytest.raises(DatabaseError, match="cannot read and write"),
        database.transaction() as connection,
    ):
        connection.execute("UPDATE sync_state SET total_syncs = 1")


# Transactions


def total(path: Path) -> int:
    return int(sql(path, "SELECT total_syncs FROM sync_state")[0][0])


def test_a_transaction_is_all_or_nothing(path: Path, database: Database) -> None:
    with database.transaction() as connection:
        connection.execute("UPDATE sync_state SET total_syncs = 1")
        assert total(path) == 0
    assert total(path) == 1
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            write_and_fail(database, error)
    assert total(path) == 1


def write_and_fail(database: Database, error: type[BaseException]) -> None:
    with database.transaction() as connection:
        connection.execute("UPDATE sync_state SET total_syncs = 2")
        raise error


def test_transactions_do_not_nest(database: Database) -> None:
    with database.transaction(), pytest.raises(RuntimeError), database.transaction():
        pass
    with database.reading(), pytest.raises(RuntimeError), database.transaction():
        pass


def test_failures_of_sqlite_are_translated_and_others_are_not(database: Database) -> None:
    with pytest.raises(DatabaseError, match="no such table: gone") as caught, database.reading() as connection:
        connection.execute("SELECT * FROM gone")
    assert "db check" in str(caught.value.hint)
    with pytest.raises(DatabaseError, match="UNIQUE"), database.transaction() as connection:
        connection.execute("INSERT INTO sync_state (id, device_id) VALUES ('marketplace_sync', 'x')")
    # A closed pipe is the printer's failure, a wrong call a bug.
    with pytest.raises(BrokenPipeError), database.transaction():
        raise BrokenPipeError
    with pytest.raises(sqlite3.ProgrammingError), database.transaction() as connection:
        connection.execute("SELECT ?", ())


def test_an_error_of_the_disk_says_where(path: Path) -> None:
    other = path.with_name("other")
    with (
        pytest.raises(DatabaseError, match=f"No space left on device \\({other}\\)") as caught,
        translated_errors(path),
    ):
        raise OSError(28, "No space left on device", str(other))
    assert "df -h" in str(caught.value.hint)


def test_a_lock_held_for_too_long_is_reported(path: Path, database: Database) -> None:
    with child_at_work(HOLD_THE_WRITE_LOCK, path):
        with pytest.raises(DatabaseError, match=r"locked for longer than 0\.05 s") as caught, database.transaction():
            pass
        assert f"fuser -v {path}" in str(caught.value.hint)
        with database.reading() as connection:
            assert connection.execute("SELECT total_syncs FROM sync_state").fetchone()[0] == 0
    with database.transaction():
        pass


def test_migrating_waits_for_the_lock_no_longer_than_the_timeout(path: Path) -> None:
    with plain(path) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "locked" in failure(path).message


def test_a_transaction_waits_for_the_lock(path: Path) -> None:
    done = threading.Event()

    def write() -> None:
        with Database.open(path, busy_timeout_seconds=20) as database, database.transaction() as connection:
            connection.execute("UPDATE sync_state SET total_syncs = 5")
        done.set()

    Database.open(path).close()
    thread = threading.Thread(target=write)
    with child_at_work(HOLD_THE_WRITE_LOCK, path):
        thread.start()
        assert not done.wait(0.2)
    thread.join(60)
    assert total(path) == 5


def test_readers_and_another_programs_writer_do_not_wait_for_each_other(path: Path, database: Database) -> None:
    with plain(path) as other:
        other.execute("PRAGMA busy_timeout = 0")
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE sync_state SET total_syncs = 1")
        with database.reading() as connection:
            query = "SELECT total_syncs FROM sync_state"
            assert connection.execute(query).fetchone()[0] == 0
            other.execute("COMMIT")
            # One snapshot from the first query to the last.
            assert connection.execute(query).fetchone()[0] == 0
        with database.reading() as connection:
            assert connection.execute(query).fetchone()[0] == 1


def test_a_write_in_a_read_transaction_is_rolled_back(path: Path, database: Database) -> None:
    with database.reading() as connection:
        connection.execute("UPDATE sync_state SET total_syncs = 1")
    assert total(path) == 0


def test_processes_that_read_and_then_write_lose_no_update(path: Path) -> None:
    Database.open(path).close()
    code = """
with Database.open(path) as database:
    for _ in range(40):
        with database.transaction() as connection:
            (total,) = connection.execute("SELECT total_syncs FROM sync_state").fetchone()
            connection.execute("UPDATE sync_state SET total_syncs = ?", (total + 1,))
"""
    processes = [child(code, path) for _ in range(3)]
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert total(path) == 120
