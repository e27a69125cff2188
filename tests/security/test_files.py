"""Files: their modes under any umask, and the handling of odd names, links and special files."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from conftest import Machine

OTHERS = 0o077


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_everything_that_is_written_is_private_under_any_umask(machine: Machine, umask: int) -> None:
    database = machine.directory / "new" / "deeper" / "atom.db"
    variables = {"ATOM_SAAS_DATABASE_URL": str(database)}
    machine.umask = umask
    for arguments in (
        ("sync", "all", "--textfile", str(machine.directory / "atom.prom")),
        ("db", "backup", str(database.parent / "copy.db")),
        ("db", "downgrade", "-1", "--yes"),
        ("db", "upgrade"),
        ("cache", "purge"),
        ("sync", "skills", "--deadline", "0.001"),
    ):
        machine.command(*arguments, **variables)
    files = [path for path in machine.directory.rglob("*") if path.is_file() and path.name != "atom.prom"]
    assert {"atom.db", "copy.db"} < {path.name for path in files}
    assert len(files) > 3
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) & OTHERS == 0, path
    for directory in (database.parent, database.parent.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((machine.directory / "atom.prom").stat().st_mode) == 0o644


@pytest.fixture
def valuable(machine: Machine) -> Path:
    """Return an unrelated file."""
    assert machine.command("sync", "skills").returncode == 0
    path = machine.directory / "valuable"
    path.write_text("precious", encoding="utf-8")
    return path


WRITERS = (
    ("metrics", "--textfile"),
    ("sync", "ratings", "--textfile"),
    ("db", "backup"),
    ("db", "backup", "--force"),
)


def test_no_link_leads_a_writer_astray(machine: Machine, valuable: Path) -> None:
    link, dangling = machine.directory / "link.prom", machine.directory / "dangling.prom"
    link.symlink_to(valuable)
    dangling.symlink_to(machine.directory / "not yet there")
    for writer in WRITERS:
        for each in (link, dangling):
            result = machine.command(*writer, str(each))
            assert result.returncode in (2, 74), result
            assert "Traceback" not in result.stderr
            assert each.is_symlink()
    assert valuable.read_text(encoding="utf-8") == "precious"
    assert not (machine.directory / "not yet there").exists()


def test_a_hard_link_is_replaced_and_not_written_through(machine: Machine, valuable: Path) -> None:
    for number, writer in enumerate(WRITERS):
        other = machine.directory / f"other {number}"
        os.link(valuable, other)
        machine.command(*writer, str(other))
        assert valuable.read_text(encoding="utf-8") == "precious", writer


def test_special_files_are_not_written_to(machine: Machine, valuable: Path) -> None:
    pipe, directory = machine.directory / "pipe", machine.directory / "directory"
    os.mkfifo(pipe)
    directory.mkdir()
    for writer in WRITERS:
        for path in (pipe, directory, machine.directory / "missing" / "x"):  # root could replace a device
            result = machine.command(*writer, str(path))
            # A sync keeps its own exit code, and warns of metrics that it could not write.
            own = {0} if writer[0] == "sync" and path.name == "x" else set()
            assert result.returncode in {2, 74} | own, (writer, path, result)
            assert "Traceback" not in result.stderr
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(directory.iterdir()) == []


@pytest.mark.sqlite("its files")
@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
def test_a_pipe_in_place_of_a_log_of_sqlite_does_not_block(machine: Machine, valuable: Path, suffix: str) -> None:
    database = machine.directory / "atom.db"
    backup = machine.directory / "backup.db"
    assert machine.command("db", "backup", str(backup)).returncode == 0
    link = machine.directory / "link.db"
    link.symlink_to(database)
    pipe = machine.directory / f"atom.db{suffix}"
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    copy = f"sqlite:///{machine.directory / 'copy.db'}"
    for words in (("status",), ("sync", "skills"), ("metrics",), ("db", "check"), ("db", "copy", "--to", copy)):
        for path in (database, link):
            result = machine.command(*words, ATOM_SAAS_DATABASE_URL=str(path))
            assert result.returncode == 74, (words, result)
            assert f"atom.db{suffix} is not a regular file" in result.stderr
    restored = machine.command("db", "restore", "--yes", str(backup))
    assert (restored.returncode, "is not a regular file" in restored.stderr) == (74, True), restored
    completed = machine.command(
        _ATOM_SYNC_COMPLETE="complete_bash", COMP_WORDS="atom-sync skills show ", COMP_CWORD="3"
    )
    assert "Traceback" not in completed.stderr
    assert completed.returncode != -9


def test_a_file_without_end_is_not_read_to_its_end(machine: Machine, valuable: Path) -> None:
    skill_id = next(iter(machine.cached()))
    for arguments in (("skills", "import", "/dev/zero"), ("skills", "edit", skill_id, "--file", "/dev/zero")):
        result = machine.command(*arguments)
        assert result.returncode == 2, result
        assert "larger than" in result.stderr
    assert len(machine.cached()) == 60


REFUSED = ("../../../../tmp/evil", "/etc/passwd", "..\\evil")
NAMES = ("etc/passwd", "-rf", "$(touch evil);`id`' OR 1=1; --")


def test_no_name_of_a_skill_is_ever_a_path_or_a_command(machine: Machine) -> None:
    before = {path for path in machine.directory.parent.rglob("*") if not path.name.startswith("atom.db")}
    for name in (*REFUSED, *NAMES):
        machine.sandbox.put_skill({"skill_id": name, "name": name, "code": "import os; os.mkdir('evil')"}, push=False)
    assert machine.command("sync", "skills").returncode == 65
    assert not set(REFUSED) & set(machine.cached())
    for name in NAMES:
        shown = machine.command("skills", "show", "--json", "--", name)
        assert json.loads(shown.stdout)["skill_id"] == name, shown
        edited = machine.command("skills", "edit", "--set", "description=mine", "--", name)
        assert edited.returncode == 0, edited.stderr
        by_editor = machine.command("skills", "edit", "--", name, EDITOR="true")
        assert by_editor.returncode == 0, by_editor.stderr
        assert machine.command("ratings", "add", "--", name, "5").returncode == 0
    assert machine.command("sync", "all").returncode == 65
    assert {row["skill_id"] for row in machine.sandbox.ratings()} == set(NAMES)
    after = {path for path in machine.directory.parent.rglob("*") if not path.name.startswith("atom.db")}
    assert {path.name for path in after - before} <= {"__pycache__"}
    for name in NAMES:
        machine.sandbox.delete_skill(name, push=False)
    assert machine.command("sync", "skills", "--max-delete", "100%").returncode == 65


def test_no_code_of_the_marketplace_is_ever_run(machine: Machine) -> None:
    """Skills are never imported, compiled, or passed to a shell."""
    mark = machine.directory / "ran"
    attack = f"open({str(mark)!r}, 'w').write('ran')"
    pickled = f"cos\nsystem\n(S'touch {mark}'\ntR."
    for number, (kind, code) in enumerate(
        [
            ("python", attack),
            ("python", f"__import__('os').system('touch {mark}')"),
            ("cli", f"touch {mark}"),
            ("pickle", pickled),
            ("yaml", f"!!python/object/apply:os.system ['touch {mark}']"),
        ]
    ):
        skill = {"skill_id": f"evil-{number}", "name": code, "description": code, "skill_type": kind, "code": code}
        machine.sandbox.put_skill({**skill, "command": f"touch {mark}", "python_packages": [code]}, push=False)
    assert machine.command("sync", "skills").returncode == 0
    for command in (
        ("skills", "show", "evil-0"),
        ("skills", "search", "touch"),
        ("status",),
        ("doctor",),
        ("metrics",),
    ):
        machine.command(*command)
    assert "evil-4" in machine.cached()
    assert not mark.exists()
