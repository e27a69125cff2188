"""A database that is moved, removed or replaced under a running program: no write is lost silently."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import Machine
from watch_support import watching

from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.store.sqlite.database import Database

pytestmark = pytest.mark.sqlite("a file that is moved")


@pytest.mark.parametrize("what", ["moved", "removed", "replaced"])
def test_nothing_is_written_to_a_missing_file(tmp_path: Path, what: str) -> None:
    path = tmp_path / "atom.db"
    with Database.open(path) as database:
        with database.transaction() as connection:
            connection.execute("UPDATE sync_state SET user_id = 'before'")
        if what == "replaced":
            shutil.copyfile(path, tmp_path / "copy.db")
            (tmp_path / "copy.db").replace(path)
        else:
            path.rename(tmp_path / "moved.db")
        with pytest.raises(DatabaseError, match="was moved, removed or replaced"), database.transaction():
            pytest.fail("it could be written to")
        if what == "moved":
            (tmp_path / "moved.db").rename(path)
            with database.transaction() as connection:
                connection.execute("UPDATE sync_state SET user_id = 'after'")


def test_watch_reports_a_moved_database(machine: Machine) -> None:
    machine.sandbox.set_clock_offset(0)
    with watching(machine) as service:
        machine.database_path.rename(machine.directory / "moved.db")
        machine.sandbox.patch_skill(machine.sandbox.skill_ids()[0], {"description": "to nowhere"})
        assert service.stderr is not None
        line = next(line for line in service.stderr if "trying again" in line)
        assert "was moved, removed or replaced while it was in use; trying again" in line
        service.kill()
        service.wait(timeout=60)
