"""Screens that are longer than the terminal."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

import pytest
from conftest import Machine
from loaded_command import start_command


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Return a machine with 60 skills; the sandbox, which is not needed, has ended."""
    from atom_saas_sync.sandbox import Sandbox

    with Sandbox(skills=60) as sandbox:
        machine = Machine(sandbox, tmp_path_factory.mktemp("built"))
        machine.pull()
        return machine


def on_screen(machine: Machine, pager: str, *words: str, rows: int = 20) -> str:
    """Run a command on a terminal with `rows` lines, and return its output."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 120, 0, 0))
    process = start_command(
        *words,
        environment=machine.environment(PAGER=pager, TERM="xterm"),
        directory=machine.directory,
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            seen += os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
    process.wait(60)
    os.close(leader)
    return seen.decode().replace("\r\n", "\n")


LIST = ("skills", "list", "--limit", "30")


def test_a_long_screen_is_paged_with_the_note_below(sixty: Machine) -> None:
    lines = on_screen(sixty, "sed s/^/P:/", *LIST).splitlines()
    assert len(lines) == 32
    assert all(line.startswith("P:") for line in lines[:-1])
    assert lines[-1] == "30 of 60 skills, 30 more: see --limit"


def test_quitting_the_pager_early_is_not_an_error(sixty: Machine) -> None:
    lines = on_screen(sixty, "head -1", *LIST).splitlines()
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("pager", "words", "rows"),
    [
        ("sed s/^/P:/", (*LIST, "--no-pager"), 20),
        ("", LIST, 20),
        ("sed s/^/P:/", LIST, 31),
    ],
)
def test_no_pager_is_started(sixty: Machine, pager: str, words: tuple[str, ...], rows: int) -> None:
    seen = on_screen(sixty, pager, *words, rows=rows)
    assert len(seen.splitlines()) == 32
    assert "P:" not in seen


def test_a_pager_that_cannot_be_started_is_one_warning(sixty: Machine) -> None:
    lines = on_screen(sixty, "/no/such/pager -x", *LIST).splitlines()
    assert lines[0] == "warning: cannot start the pager '/no/such/pager -x': No such file or directory"
    assert len(lines) == 33
