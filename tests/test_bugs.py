"""The last line of defence: an unexpected error in any command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_lines import LEAVES, REPORTING, clean_environment, minimal, run_all
from conftest import Machine

NEEDS_NOTHING = {"completion", "files"}  # which are part of the program
TRIED = [path for path in LEAVES if path[0] not in NEEDS_NOTHING and path != ("updates", "review")]  # on a terminal
# Breaks what every command needs first: the settings, or a sandbox.
BROKEN = """
import urllib.request
import atom_saas_sync.cli.runtime, atom_saas_sync.sandbox
def broken(*_, **__):
    raise {error}
atom_saas_sync.cli.runtime.sources = broken
atom_saas_sync.sandbox.Sandbox = broken
urllib.request.build_opener = broken
"""
ERRORS = [
    'KeyError("labels")',
    'ValueError("two\\nlines")',
    'UnicodeEncodeError("ascii", "é", 0, 1, "no")',
    "MemoryError()",
]


@pytest.mark.parametrize("error", ERRORS)
def test_a_bug_in_any_command_is_one_line_and_1(tmp_path: Path, error: str) -> None:
    (tmp_path / "some-id").write_text('{"skill_id": "x", "name": "X"}')
    command_lines = [minimal(path) for path in TRIED]
    results = run_all(tmp_path, command_lines, first=BROKEN.format(error=error))
    for words, (code, out, err) in zip(command_lines, results, strict=True):
        told = [line for line in err.splitlines() if line.startswith("atom-sync: ")]
        assert code == 1, (words, err)
        assert out == "", words
        assert len(told) == 1 and error.partition("(")[0] in told[0], (words, err)
        assert "Traceback" not in err, words


def test_a_bug_in_any_reporting_command_is_a_document_of_type_internal(tmp_path: Path) -> None:
    (tmp_path / "some-id").write_text('{"skill_id": "x", "name": "X"}')
    command_lines = [[*minimal(path), "--json"] for path in REPORTING if path[0] not in NEEDS_NOTHING]
    results = run_all(tmp_path, command_lines, first=BROKEN.format(error=ERRORS[0]))
    for words, (code, out, _) in zip(command_lines, results, strict=True):
        assert code == 1, words
        document = json.loads(out)
        assert document["success"] is False, words
        assert document["error"]["type"] == "internal", words
        assert "KeyError: 'labels'" in document["error"]["message"], words


@pytest.mark.sqlite("it breaks a module of its store; what is logged does not depend on the engine")
@pytest.mark.parametrize(
    ("options", "traced"),
    [
        ([], False),
        (["--log-level", "debug"], True),
        (["--log-format", "json"], True),
        (["--log-format", "journal"], True),
    ],
)
@pytest.mark.parametrize("command", [["status"], ["sync", "skills"]])
def test_the_traceback_goes_to_the_log(machine: Machine, options: list[str], traced: bool, command: list[str]) -> None:
    """`status` has no log until then; `sync skills` breaks when it has one."""
    secret = machine.sandbox.token
    code = f"""
import sys
import atom_saas_sync.store.sqlite.database
def broken(*_, **__):
    raise KeyError({secret!r})
atom_saas_sync.store.sqlite.database.Database.open = broken
sys.argv = ["atom-sync", *{options!r}, *{command!r}]
from atom_saas_sync.cli.main import run
run()
"""
    machine.database_path.touch()
    ended = machine.python(code)
    assert ended.returncode == 1
    assert ("Traceback (most recent call last)" in ended.stderr) is traced
    assert ended.stderr.count("a bug ended the program: KeyError") == 1  # as text, or as a line of that log
    assert secret not in ended.stdout + ended.stderr
    assert ended.stdout == ""


def test_a_broken_pipe_elsewhere_does_not_count_as_a_closed_reader(tmp_path: Path) -> None:
    code = f"""
import sys
{BROKEN.format(error="BrokenPipeError(32, 'Broken pipe')")}
sys.argv = ["atom-sync", "status", "--json"]
from atom_saas_sync.cli.main import run
run()
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=clean_environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["error"]["type"] == "internal"
