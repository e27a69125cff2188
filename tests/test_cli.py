"""The command line as a whole: help, usage, exit codes, colour, completion, pipes; no command in particular."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from command_lines import COMMANDS, LEAVES, REPORTING, clean_environment, minimal, run_all
from conftest import Machine
from loaded_command import run_command

from atom_saas_sync import __version__
from atom_saas_sync.cli.examples import EXAMPLES
from atom_saas_sync.cli.output import print_json


def _run(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run_command(*arguments, environment=clean_environment(directory, **variables), directory=directory)


# `db downgrade -1` takes what looks like an option for the place to go back to.
STRICT = [path for path in COMMANDS if path != ("db", "downgrade")]


def test_version_from_everywhere(tmp_path: Path) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    result = _run(tmp_path, "--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"atom-sync {__version__}\n", "")
    script = subprocess.run(
        [Path(sys.executable).parent / "atom-sync", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert script.stdout == result.stdout


def test_every_command_has_help(tmp_path: Path) -> None:
    assert len(COMMANDS) > 20
    command_lines = [[*path, option] for path in COMMANDS for option in ("-h", "--help")]
    for words, (code, out, err) in zip(command_lines, run_all(tmp_path, command_lines), strict=True):
        assert (code, err) == (0, ""), words
        assert out.startswith(f"Usage: {' '.join(['atom-sync', *words[:-1]])} "), words
        assert all(character.isprintable() for line in out.splitlines() for character in line), words
        assert max(map(len, out.splitlines())) <= 80, words
    assert list(tmp_path.iterdir()) == []


GLOBAL_OPTIONS = ["--env-file", "x", "--database", "y", "--log-level", "info", "--log-format", "json"]


def test_global_options_are_taken_after_every_command(tmp_path: Path) -> None:
    command_lines = [[*path, *GLOBAL_OPTIONS, *more, "--help"] for path in COMMANDS for more in (["-vv"], ["-v", "-q"])]
    for words, (code, out, err) in zip(command_lines, run_all(tmp_path, command_lines), strict=True):
        assert (code, err) == (0, ""), words
        assert out.startswith("Usage: "), words


def test_a_global_option_after_the_command_is_in_force(tmp_path: Path) -> None:
    for name in ("before.db", "after.db", "group.db"):
        assert _run(tmp_path, "db", "upgrade", "--database", name).returncode == 0
    (tmp_path / "settings").write_text("ATOM_SAAS_SYNC_INTERVAL_MINUTES=17\n")
    command_lines = [
        ["status", "--json", "--database", "after.db"],
        ["--database", "before.db", "status", "--database", "after.db", "--json"],
        ["cache", "--database=group.db", "stats"],
        ["db", "--database", "before.db", "check", "--database", "after.db", "--json"],
        ["config", "show", "--json", "--env-file", "settings"],
        ["jobs", "--database", "settings", "stop"],
        ["skills", "search", "--", "--database"],
    ]
    results = run_all(tmp_path, command_lines)
    paths = [json.loads(out)["database"]["path"] for _, out, _ in results[:2]]
    assert paths == [str(tmp_path / "after.db")] * 2
    assert results[2][0] == 0
    assert json.loads(results[3][1])["database"] == str(tmp_path / "after.db")
    shown = {each["name"]: each["value"] for each in json.loads(results[4][1])["settings"]}
    assert shown["ATOM_SAAS_SYNC_INTERVAL_MINUTES"] == "17"
    assert results[5][0] == 74


@pytest.mark.parametrize(
    "words",
    [
        ["status", "--log-level", "loud"],
        ["sync", "--log-format", "xml", "skills"],
        ["skills", "list", "-q", "-v"],
        ["-q", "jobs", "-v"],
        ["conflicts", "list", "--databas", "x"],
    ],
)
def test_wrong_global_options_after_the_command_are_wrong_usage(tmp_path: Path, words: list[str]) -> None:
    ((code, out, err),) = run_all(tmp_path, [words])
    assert (code, out) == (2, "")
    assert "Traceback" not in err


def test_an_option_of_the_command_wins_over_a_global_one_of_the_same_name() -> None:
    own = [each for each in COMMANDS["sandbox", "push"].params if "--quiet" in each.opts]
    assert [each.name for each in own] == ["quiet"]


def test_every_command_and_every_option_is_explained() -> None:
    for path, command in COMMANDS.items():
        assert command.help, path
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, (path, parameter.name)


def test_groups_alone_show_their_help(tmp_path: Path) -> None:
    groups = [list(path) for path, command in COMMANDS.items() if getattr(command, "no_args_is_help", False)]
    assert groups
    for words, (code, out, err) in zip(groups, run_all(tmp_path, groups), strict=True):
        assert code == 2, words
        assert out == "", words
        assert "Commands:" in err, words


def test_wrong_usage_of_every_command_is_2(tmp_path: Path) -> None:
    command_lines = [[*path, "--no-such-option"] for path in STRICT]
    command_lines += [[*path, "no-such-command"] for path, command in COMMANDS.items() if hasattr(command, "commands")]
    command_lines += [["--env-file"], ["--log-level", "loud", "status"], ["sync", "skills", "--wait", "soon"]]
    for words, (code, out, err) in zip(command_lines, run_all(tmp_path, command_lines), strict=True):
        assert code == 2, (words, err)
        assert out == "", words
        assert err, words
        assert "Traceback" not in err, words
    assert list(tmp_path.iterdir()) == []


WRONG = {
    "skills show": "missing argument ID → `atom-sync skills show --help` shows the usage",
    "skills list --limit many": "invalid --limit 'many': expected a whole number, at least 0",
    "sync skills --wait -1": "invalid --wait '-1': expected a number, at least 0",
    "serve-health --port 70000": "invalid --port '70000': expected a whole number, at most 65535",
    "conflicts resolve 1 x": "invalid ID '1 x': expected whole numbers",
    "sync skill": "no such command 'skill'; did you mean 'skills'? → `atom-sync sync --help` shows the usage",
    "sync skills --stratgy x": "no such option --stratgy; did you mean --strategy? "
    "→ `atom-sync sync skills --help` shows the usage",
}


def test_wrong_usage_is_said_in_one_style(tmp_path: Path) -> None:
    for words, (code, out, err) in zip(WRONG, run_all(tmp_path, [each.split() for each in WRONG]), strict=True):
        assert (code, out) == (2, "")
        assert " ".join(err.split()) == f"atom-sync: {WRONG[words]}"


def test_help_cuts_no_summary_and_names_no_type_of_python(tmp_path: Path) -> None:
    for _, out, _ in run_all(tmp_path, [[*path, "--help"] for path in COMMANDS]):
        assert "..." not in out.replace("COMMAND [ARGS]...", "")
        assert not re.search(r"<(str|int|float|path|list|bool)|x>=|<=x", out), out


def test_every_example_is_right_usage() -> None:
    assert set(LEAVES) <= {tuple(words.split()) for words in EXAMPLES}
    own = {words: examples for words, examples in EXAMPLES.items() if words}
    assert set(EXAMPLES[""]) <= {example for examples in own.values() for example in examples}
    for words, examples in own.items():
        path = tuple(words.split())
        for example in (each for each in examples if path in COMMANDS):
            line = example.removeprefix('eval "$(').removesuffix(')"').partition(" > ")[0]
            line = line.removeprefix("sudo -u atom-sync ").partition("atom-sync ")[2]
            typed = shlex.split(line.removeprefix("--system "))
            assert tuple(typed[: len(path)]) == path, example
            COMMANDS[path].make_context(words, typed[len(path) :])


def test_wrong_usage_of_every_command_is_one_document_if_json_is_asked_for(tmp_path: Path) -> None:
    command_lines = [[*path, "--json", "--no-such-option"] for path in REPORTING if path in STRICT]
    for words, (code, out, err) in zip(command_lines, run_all(tmp_path, command_lines), strict=True):
        assert code == 2, words
        document = json.loads(out)
        assert document["success"] is False, words
        assert document["error"]["type"] == "usage", words
        assert "--no-such-option" in document["error"]["message"], words
        assert "--no-such-option" in err, words


@pytest.mark.parametrize(
    ("variables", "kind", "code"),
    [
        ({"ATOM_SAAS_SYNC_BATCH_SIZE": "0", "ATOM_SAAS_API_DIALECT": "v9"}, "config", 78),
        ({"ATOM_SAAS_DATABASE_URL": "no-database"}, "database", 74),
    ],
)
def test_failures_of_every_reporting_command(tmp_path: Path, variables: dict[str, str], kind: str, code: int) -> None:
    """Wrong settings or a broken database: one document, the documented code, and never a traceback."""
    (tmp_path / "some-id").write_text("{}")
    (tmp_path / "no-database").write_text("a text as long as the first page of a database\n" * 100)
    # `config` and `doctor` report such problems as their result. The others need neither settings nor a database.
    paths = [path for path in REPORTING if path[0] not in {"config", "doctor", "sandbox", "files"}]
    command_lines = [[*minimal(path), "--json"] for path in paths]
    results = run_all(tmp_path, command_lines, ATOM_SAAS_API_TOKEN="at_saas_x", ENABLE_SCHEDULER="true", **variables)
    for words, (got, out, err) in zip(command_lines, results, strict=True):
        assert "Traceback" not in err, words
        document = json.loads(out)
        if got in {0, 2}:  # needs no settings, or first other input from the user
            continue
        assert got == code, (words, err)
        assert document["error"]["type"] == kind, words
        assert err.startswith("atom-sync: "), words
    assert sum(got == code for got, _, _ in results) >= len(results) * 0.7


def test_every_document_says_that_it_succeeded(machine: Machine) -> None:
    """And one thing stands under its own name, several under that of many."""
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    machine.edit(skill_id, code="mine")
    machine.sandbox.patch_skill(skill_id, {"code": "theirs"})
    machine.pull(strategy="manual")
    url = ["--url", machine.sandbox.url]
    asked = {
        "rating": [["ratings", "add", skill_id, "5"], ["ratings", "show", "1"]],
        "ratings": [["ratings", "list"]],
        "failed": [["ratings", "failed"]],
        "skill": [["skills", "show", skill_id]],
        "skills": [["skills", "list"], ["skills", "search", "a"]],
        "fields": [["skills", "diff", skill_id]],
        "versions": [["skills", "log", skill_id]],
        "conflict": [["conflicts", "show", "1"]],
        "conflicts": [["conflicts", "list"]],
        "settings": [["config", "show"]],
        "sync": [["status"]],
        "migrations": [["db", "history"]],
        "skill_id": [["sandbox", "push", skill_id, "--set", "name=x", *url]],
        "faults": [["sandbox", "fault", *url]],
        "ws_url": [["sandbox", "state", *url]],
    }
    for name, command_lines in asked.items():
        for words in command_lines:
            ended = machine.command(*words, "--json")
            assert ended.returncode == 0, (words, ended.stderr)
            document = json.loads(ended.stdout)
            assert document["success"] is True, words
            assert name in document, (words, list(document))


def test_a_missing_thing_is_not_a_usage_error(machine: Machine) -> None:
    assert machine.command("sync", "skills").returncode == 0
    skill_id = machine.sandbox.skill_ids()[0]
    (machine.directory / "skill.json").write_text('{"skill_id": "nothing"}')
    asked = [
        *(["skills", command, "nothing"] for command in ("show", "edit", "revert", "diff", "log")),
        ["skills", "show", "nothing", "--code"],
        ["skills", "edit", "nothing", "--set", "name=x"],
        ["skills", "edit", "nothing", "--file", "skill.json"],
        ["skills", "diff", skill_id, "--from", "no such version"],
        ["skills", "diff", skill_id, "--to", "#99"],
        ["conflicts", "show", "99"],
        ["conflicts", "undo", "99"],
        ["conflicts", "resolve", "99", "--strategy", "merge"],
        ["conflicts", "resolve", "99", "--edit"],
        ["conflicts", "resolve", "99", "--data", "skill.json"],
        ["ratings", "show", "99"],
        ["ratings", "retry", "99", "98"],
        ["ratings", "add", "nothing", "5"],
    ]
    command_lines = [[*words, "--json"] for words in asked]
    variables = {"ATOM_SAAS_DATABASE_URL": machine.database.url, "EDITOR": "true"}
    results = run_all(machine.directory, command_lines, **variables)
    for words, (code, out, err) in zip(command_lines, results, strict=True):
        assert code == 1, (words, err)
        assert json.loads(out)["error"]["type"] == "not_found", words
        assert err.startswith("atom-sync: "), words


def test_mistakes_of_people_show_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "text").write_text("no database, no JSON")
    mistakes = [
        ["--database", "directory", "skills", "list"],
        ["--database", "text", "skills", "list"],
        ["--database", "text", "status"],
        ["--database", "missing/x/y.db", "db", "check"],
        ["--database", "", "status"],
        ["--database", "postgresql://localhost/x", "status"],
        ["--env-file", "missing", "status"],
        ["--env-file", "directory", "status"],
        ["skills", "show", "no-such-skill"],
        ["skills", "show", "../../etc"],
        ["skills", "show", ""],
        ["skills", "import", "missing"],
        ["skills", "import", "directory"],
        ["skills", "import", "text"],
        ["skills", "list", "--limit", "-1"],
        ["skills", "list", "--limit", "9" * 30],
        ["conflicts", "show", "999"],
        ["conflicts", "show", "9" * 30],
        ["conflicts", "resolve"],
        ["db", "downgrade", "nowhere"],
        ["db", "backup", "missing/directory/file"],
        ["sync", "skills"],
        ["sync", "skills", "--strategy", "best"],
        ["sync", "skills", "--max-delete", "200%"],
        ["sandbox", "--catalogue", "text", "--port", "0"],
        ["sandbox", "--port", "99999999"],
    ]
    for words, (code, _, err) in zip(mistakes, run_all(tmp_path, mistakes), strict=True):
        assert code not in {0, None}, words
        assert "Traceback" not in err, words
        assert err.strip(), words


@pytest.mark.parametrize("text", ['"', "NEAR(", "a OR", "*", "name:", "-", "'", "(", "\\", "^", " "])
def test_no_search_text_is_interpreted_as_syntax(machine: Machine, text: str) -> None:
    results = run_all(machine.directory, [["db", "upgrade"], ["skills", "search", "--", text]])
    assert [code for code, _, _ in results] == [0, 0], results


def test_colour_is_there_only_if_asked_for(tmp_path: Path) -> None:
    coloured = _run(tmp_path, "status", FORCE_COLOR="1", TERM="xterm")
    assert "\x1b[" in coloured.stdout
    for variables in ({}, {"FORCE_COLOR": "0"}, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, {"NO_COLOR": "1"}):
        plain = _run(tmp_path, "status", TERM="xterm", **variables)
        assert "\x1b" not in plain.stdout + plain.stderr, variables
        assert "unhealthy" in plain.stdout
    assert "\x1b" not in _run(tmp_path, "--help", FORCE_COLOR="1", TERM="xterm").stdout


def test_json_has_no_colour(machine: Machine) -> None:
    for variables in ({"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}):
        result = machine.command("sync", "skills", "--json", TERM="xterm", **variables)
        assert json.loads(result.stdout)["success"]
        assert "\x1b" not in result.stdout


@pytest.mark.parametrize(("terminal", "no_color", "coloured"), [(True, "", True), (True, "1", False)])
def test_colour_on_a_terminal(tmp_path: Path, terminal: bool, no_color: str, coloured: bool) -> None:
    leader, follower = os.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "atom_saas_sync", "status"],
            env=clean_environment(tmp_path, TERM="xterm-256color", NO_COLOR=no_color),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=follower,
            stderr=subprocess.PIPE,
            timeout=60,
            check=True,
        )
        seen = os.read(leader, 100_000).decode()
    finally:
        os.close(leader)
        os.close(follower)
    assert "unhealthy" in seen
    assert ("\x1b[" in seen) is coloured


def test_the_log_is_shown_above_the_progress_bar(machine: Machine) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    machine.edit(skill_id, code="mine")
    machine.sandbox.patch_skill(skill_id, {"code": "theirs"})
    machine.sandbox.fault("delay", endpoint="list", seconds=0.5)  # the bar is there before the conflict is found
    leader, follower = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "atom_saas_sync", "sync", "skills", "-v", "--strategy", "manual"],
        env=machine.environment(TERM="xterm-256color", COLUMNS="200"),
        cwd=machine.directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=follower,
    )
    os.close(follower)
    overdue = threading.Timer(60, process.kill)
    overdue.start()
    seen = b""
    with suppress(OSError):  # the command has closed the terminal; a full one would block it
        while read := os.read(leader, 4096):
            seen += read
    os.close(leader)
    assert process.wait(60) == 0
    overdue.cancel()
    # Colours and movements of the cursor apart; each return or line break begins a line of its own.
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode()))
    assert any("conflict on" in line for line in lines)
    assert not [line for line in lines if line.startswith("skills") and "[run" in line]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("atom-sync sy", {"sync"}),
        ("atom-sync sync s", {"skills"}),
        ("atom-sync config ", {"show", "check"}),
        ("atom-sync status --ch", {"--check"}),
        ("atom-sync --log-l", {"--log-level"}),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(tmp_path: Path, shell: str, words: str, offered: set[str]) -> None:
    variables = {"_ATOM_SYNC_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        variables |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    else:
        variables |= {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    result = _run(tmp_path, **variables)
    assert result.stderr == ""
    assert offered <= set(re.findall(r"[\w-]+", result.stdout))
    assert "demo" not in result.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_can_be_shown(tmp_path: Path, shell: str) -> None:
    result = _run(tmp_path, _ATOM_SYNC_COMPLETE=f"source_{shell}")
    assert result.returncode == 0
    assert "_ATOM_SYNC_COMPLETE" in result.stdout
    assert "python" not in result.stdout


def _into_a_closed_pipe(machine: Machine, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose reader ends before it prints, as with `| head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, "-m", "atom_saas_sync", *arguments],
            env=machine.environment(),
            cwd=machine.directory,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)


def test_a_closed_reader_ends_a_command_quietly(machine: Machine) -> None:
    assert machine.command("sync", "skills").returncode == 0
    for arguments in (
        ["skills", "list"],
        ["skills", "list", "--json"],
        ["skills", "show", machine.sandbox.skill_ids()[0], "--code"],
        ["status"],
        ["status", "--json"],
        ["config", "show"],
        ["config", "check"],
        ["--help"],
        ["--version"],
    ):
        result = _into_a_closed_pipe(machine, *arguments)
        assert (result.returncode, result.stderr) == (0, b""), arguments


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["--help"], ["config", "show"]])
def test_a_full_disk_under_the_output_is_74(tmp_path: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "atom_saas_sync", *arguments],
            env=clean_environment(tmp_path),
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (result.returncode, result.stderr) == (74, "atom-sync: can't write: No space left on device\n")


def test_closed_standard_streams_do_no_harm(tmp_path: Path) -> None:
    for command in ("db upgrade >&- 2>&-", "status --json >&-", "status 2>&-", "db check --json >/dev/null 2>&-"):
        result = subprocess.run(
            ["/bin/sh", "-c", f"exec '{sys.executable}' -m atom_saas_sync {command}"],
            env=clean_environment(tmp_path),
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
        assert result.returncode == 0, command
    assert _run(tmp_path, "db", "check").returncode == 0


def test_a_working_directory_that_has_gone(tmp_path: Path) -> None:
    result = subprocess.run(
        [
            "/bin/sh",
            "-c",
            f"mkdir gone && cd gone && rmdir ../gone && exec '{sys.executable}' -m atom_saas_sync status",
        ],
        env=clean_environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("atom-sync: the working directory no longer exists\n")


def test_an_output_without_utf_8_still_gets_json(machine: Machine) -> None:
    skill_id = machine.sandbox.skill_ids()[0]
    assert machine.command("sync", "skills").returncode == 0
    machine.edit(skill_id, description="café 日本")
    result = machine.command("skills", "show", skill_id, "--json", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert "café 日本" in json.dumps(json.loads(result.stdout), ensure_ascii=False)


def test_half_a_character_can_be_printed(capfd: pytest.CaptureFixture[str]) -> None:
    print_json({"half": "\ud83d"})
    assert capfd.readouterr().out == '{\n  "success": true,\n  "half": "\\ud83d"\n}\n'


def test_a_table_in_a_pipe_is_whole(machine: Machine) -> None:
    machine.fill()
    first = machine.sandbox.skill_ids()[0]
    name, version = "n" * 90, "1.0.0-" + "v" * 90
    machine.edit(first, name=name, version=version)
    piped = machine.command("skills", "list", "--modified").stdout
    (row,) = [line for line in piped.splitlines() if first in line]
    assert row.split()[1:3] == [name, version]
    assert max(map(len, machine.command("doctor").stdout.splitlines())) > 80
    # A program that sets COLUMNS knows what it wants.
    assert max(map(len, machine.command("doctor", COLUMNS="80").stdout.splitlines())) <= 80


@pytest.mark.parametrize(("columns", "heads"), [(80, {"version", "rating"}), (140, {"version", "category", "rating"})])
def test_a_list_of_skills_fits_and_shortens_only_names(machine: Machine, columns: int, heads: set[str]) -> None:
    machine.fill()
    first = machine.sandbox.skill_ids()[0]
    machine.edit(first, name="n" * 90)
    lines = machine.command("skills", "list", "--modified", COLUMNS=str(columns)).stdout.splitlines()
    assert max(map(len, lines)) <= columns
    assert heads <= set(lines[0].split())
    assert lines[1].rstrip().endswith("edited")
    assert first in lines[1]
    assert "n…" in lines[1]


def test_the_requests_of_doctor_can_be_logged(machine: Machine) -> None:
    logged = machine.command("doctor", "-vv").stderr
    assert re.search(r"GET /health: 200, \d+ bytes in \d+ ms$", logged, re.MULTILINE)
    assert re.search(r"GET /api/v1/skills\?page=1&page_size=1: 200, \d+ bytes in \d+ ms$", logged, re.MULTILINE)
    assert re.search(r"WebSocket 127\.0\.0\.1: connected$", logged, re.MULTILINE)
    assert machine.sandbox.token not in logged
    failed = machine.command("doctor", "-vv", ATOM_SAAS_WS_URL="ws://127.0.0.1:9").stderr
    assert "WebSocket 127.0.0.1: cannot connect to 127.0.0.1" in failed
    failed = machine.command("doctor", "-vv", ATOM_SAAS_API_URL="http://127.0.0.1:9").stderr
    assert "GET /health: connection, 0 bytes" in failed
    assert "WebSocket" not in failed
