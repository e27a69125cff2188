"""`skills edit --code` with real editors: keys pressed on a terminal, and the stored result."""

from __future__ import annotations

import shutil

import pytest
from conftest import Machine
from terminal import Terminal

pytestmark = pytest.mark.soak

ADD_A_LINE = {"vim": "Goprint('more')\x1b:wq\r", "nano": "print('more')\r\x0f\r\x18"}
ONLY_LEAVE = {"vim": ":q\r", "nano": "\x18"}
BREAK_OFF = {"vim": ":cq\r"}  # nano has no such key


@pytest.fixture(params=["vim", "nano"])
def editor(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} here")
    return name


def edit(machine: Machine, editor: str, keys: str, awaited: str) -> int:
    """Edit the code of a skill, pressing these keys once the editor shows its file; return the exit code."""
    command = ["atom-sync", "skills", "edit", "mine-1", "--code"]
    terminal = Terminal(command, machine.directory, **machine.environment(EDITOR=editor, TERM="xterm"))
    try:
        terminal.await_text("code.py")
        terminal.type(keys, awaited)
        return terminal.wait()
    finally:
        terminal.close()


def test_an_editor_changes_the_code(machine: Machine, editor: str) -> None:
    skill = '{"skill_id": "mine-1", "name": "Mine", "skill_type": "python", "code": "print(1)"}'
    assert machine.command("skills", "import", "-", stdin=skill).returncode == 0
    assert edit(machine, editor, ONLY_LEAVE[editor], "nothing was changed") == 0
    if editor in BREAK_OFF:
        assert edit(machine, editor, BREAK_OFF[editor], "ended with exit code 1; nothing was changed") == 2
    assert machine.cached()["mine-1"]["code"] == "print(1)"

    assert edit(machine, editor, ADD_A_LINE[editor], "mine-1: edited") == 0
    assert sorted(machine.cached()["mine-1"]["code"].split()) == ["print('more')", "print(1)"]
