"""Completion in real shells: keys pressed on a terminal, and the resulting line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from terminal import Terminal

pytestmark = pytest.mark.soak

BEGIN = {
    "bash": (["bash", "--norc", "-i"], 'eval "$(atom-sync completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'eval "$(atom-sync completion zsh)"'),
    "zsh from a file": (
        ["zsh", "-f", "-i"],
        "atom-sync completion zsh > _atom-sync; fpath=($PWD $fpath); autoload -Uz compinit; compinit -D",
    ),
    "fish": (["fish", "--no-config", "-i"], "atom-sync completion fish | source"),
}


@pytest.mark.parametrize("name", BEGIN)
def test_the_tab_key_completes(name: str, tmp_path: Path) -> None:
    command, script = BEGIN[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]} here")
    terminal = Terminal(command, tmp_path, PS1="$ ")
    try:
        terminal.type(f"{script}; echo re''ady\n", "ready")
        terminal.type("atom-sync stat\t", "atom-sync status")
        terminal.type("\x15atom-sync sync skills --strategy=rem\t", "--strategy=remote_wins")
        terminal.type("\x15atom-sync sync skills --strategy lo\t", "local_wins")
        (tmp_path / "some-skills.json").touch()
        terminal.type("\x15atom-sync skills import some-\t", "some-skills.json")
    finally:
        terminal.close()
