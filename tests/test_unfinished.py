"""Leftovers of killed processes: they cause no problems and do not accumulate."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from atom_saas_sync.store.sqlite.backup import backup
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.textfile import write_textfile
from atom_saas_sync.unfinished import create_beside


def back_up(directory: Path, target: Path) -> None:
    with Database.open(directory / "atom.db") as database:
        backup(database.path, target, force=True)


def write_metrics(_directory: Path, target: Path) -> None:
    write_textfile(target, "metrics\n")


@pytest.mark.parametrize("write", [back_up, write_metrics])
def test_leftovers_of_killed_processes_are_removed_after_a_day(
    write: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    target = tmp_path / "target[1]"
    # A container gives its process the same number each time: that name was "in use" for ever.
    young = tmp_path / f".{target.name}.{os.getpid()}.tmp"
    old = [tmp_path / f".{target.name}.{name}" for name in ("abc.tmp", "abc.tmp-journal", "7.tmp")]
    others = [tmp_path / name for name in (".another.abc.tmp", f"{target.name}.abc.tmp", f".{target.name}.abc")]
    for each in (young, *old, *others):
        each.touch()
    for each in (*old, *others):
        os.utime(each, (0, 0))
    write(tmp_path, target)
    left = {each.name for each in tmp_path.iterdir()} - {"atom.db", "atom.db-wal", "atom.db-shm"}
    assert left == {target.name, young.name, *(each.name for each in others)}


def test_the_name_is_new_each_time_and_private(tmp_path: Path) -> None:
    made = [create_beside(tmp_path / "target") for _ in range(3)]
    assert len({path for _, path in made}) == 3
    for descriptor, path in made:
        assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o600
        os.close(descriptor)
        assert path.name.startswith(".target.") and path.name.endswith(".tmp")
