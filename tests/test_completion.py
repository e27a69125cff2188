"""Completion: what is offered after the tab key, and the script that asks for it. Other shells: tests/soak."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_lines import run_all
from conftest import Machine

from atom_saas_sync.cli.main import PARTS
from atom_saas_sync.core.gate.states import STATES
from atom_saas_sync.core.run_log import RUN_KINDS
from atom_saas_sync.model import SEVERITIES, STRATEGIES
from atom_saas_sync.sandbox.faults import KINDS
from atom_saas_sync.store.sqlite.suggestions import suggestions

FIXED = {
    "": set(PARTS),
    "sta": {"status"},
    "sync ": {"skills", "categories", "ratings", "all"},
    "sync skills --str": {"--strategy"},
    "sync skills --strategy ": set(STRATEGIES),
    "sync skills --strategy=re": {"--strategy=remote_wins"},
    "conflicts resolve 1 --strategy ": set(STRATEGIES) - {"manual"},
    "conflicts list --severity ": set(SEVERITIES),
    "ratings list --state p": {"pending"},
    "runs list --kind ": set(RUN_KINDS),
    "skills verify --state ": set(STATES),
    "sandbox --fault ": set(KINDS),
    "sandbox fault e": {each for each in KINDS if each.startswith("e")},
    "status --log-level w": {"warning"},
    "completion ": {"bash", "zsh", "fish"},
    "files write . cron": {"cron/", "cron/atom-sync"},
    "skills import ": set(),
    "skills show ": set(),
}


# At a prompt they give up after 50 ms, which a busy machine exceeds.
_PATIENTLY = """
from atom_saas_sync.store.postgresql import suggestions as on_server
from atom_saas_sync.store.sqlite import suggestions as in_file
in_file._SECONDS = 60
on_server._WAIT, on_server._CONNECT_SECONDS = "SET LOCAL statement_timeout = '60s'", "60"
"""


def _offered(directory: Path, lines: list[str]) -> list[dict[str, str]]:
    results = run_all(directory, [["__complete", *line.split(" ")] for line in lines], first=_PATIENTLY)
    assert [(code, err) for code, _, err in results] == [(0, "")] * len(lines)
    return [dict(line.split("\t") for line in out.splitlines()) for _, out, _ in results]


def test_commands_options_and_values_are_offered(tmp_path: Path) -> None:
    for line, offered in zip(FIXED, _offered(tmp_path, list(FIXED)), strict=True):
        assert set(offered) == FIXED[line], line
    assert list(tmp_path.iterdir()) == []


def test_ids_come_from_the_database_that_was_named(machine: Machine) -> None:
    machine.pull()
    skill_ids = sorted(machine.sandbox.skill_ids())
    edited = skill_ids[0]
    machine.edit(edited, code="mine")
    machine.sandbox.patch_skill(edited, {"code": "theirs"})
    machine.pull(strategy="manual")
    named = f"--database {machine.database.url}"
    shared = skill_ids[0][:2]
    whole, prefixed, after, category, conflict, undo, run, none = _offered(
        machine.directory,
        [
            f"{named} skills show ",
            f"{named} skills diff {shared}",
            f"ratings list {named} --skill ",
            f"{named} skills list --category ",
            f"{named} conflicts show ",
            f"{named} conflicts undo ",
            f"{named} runs show ",
            "--database nowhere.db skills show ",
        ],
    )
    assert sorted(whole) == sorted(after) == skill_ids
    assert whole[edited] == " ".join(machine.listed()[edited]["name"].split())[:60]
    assert sorted(prefixed) == [each for each in skill_ids if each.startswith(shared)]
    assert {machine.sandbox.skill(each)["category"] for each in skill_ids} <= set(category)
    assert [*conflict] == ["1"]
    assert [*undo] == [*none] == []
    assert {*run} == {"1", "2"}


@pytest.mark.sqlite("how it bounds the time of a statement")
def test_a_large_or_locked_database_does_not_delay_completion(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.pull()
    assert len(suggestions(machine.database_path, "skill", "")) == 60
    moments = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(moments))  # each look at the clock is a second later
    monkeypatch.setattr("atom_saas_sync.store.sqlite.suggestions._INSTRUCTIONS_BETWEEN_LOOKS", 1)
    assert suggestions(machine.database_path, "skill", "") == []


def test_bash_completes_with_the_script(machine: Machine) -> None:
    code = """
    eval "$(atom-sync completion bash)"
    tab() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _atom_sync; echo "${COMPREPLY[@]}"; }
    complete -p atom-sync
    tab atom-sync stat
    tab atom-sync sync skills --strategy = re
    tab atom-sync skills import ""
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", code],
        env=machine.environment(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"),
        cwd=machine.directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "complete -o default -F _atom_sync atom-sync",
        "status",
        "remote_wins",
        "",
    ]
    assert done.stderr == ""


def test_an_unknown_shell_is_wrong_usage(machine: Machine) -> None:
    refused = machine.command("completion", "tcsh")
    assert (refused.returncode, refused.stderr) == (
        2,
        "atom-sync: invalid SHELL 'tcsh': expected bash, zsh, fish\n",
    )
