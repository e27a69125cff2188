"""`config show` and `config check` for users and pipelines."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Machine
from loaded_command import run_command

from atom_saas_sync.config import VARIABLES

TOKEN = "at_saas_abcdef123456"


def _run(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run_command(*arguments, environment={"PATH": os.environ["PATH"], **variables}, directory=directory)


def test_show_masks_secrets_and_prints_origins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"ATOM_SAAS_API_TOKEN={TOKEN}\n")
    result = _run(tmp_path, "config", "show", "--json", ATOM_SAAS_SYNC_INTERVAL_MINUTES="20")
    assert result.returncode == 0
    assert TOKEN not in result.stdout + result.stderr
    lines = {line["name"]: line for line in json.loads(result.stdout)["settings"]}
    assert lines["ATOM_SAAS_API_TOKEN"]["value"] == "at_saas_… (20 characters)"
    assert lines["ATOM_SAAS_API_TOKEN"]["origin"].endswith(".env")
    assert lines["ATOM_SAAS_SYNC_INTERVAL_MINUTES"] == {
        "name": "ATOM_SAAS_SYNC_INTERVAL_MINUTES",
        "value": "20",
        "origin": "environment",
    }


def test_show_prints_one_line_for_each_variable_unchanged(tmp_path: Path) -> None:
    path = f"{tmp_path}/{'long/' * 30}atom.db"
    result = _run(
        tmp_path, "config", "show", ATOM_SAAS_API_TOKEN=TOKEN, ATOM_SAAS_DATABASE_URL=path, ATOM_INSTANCE_ID="[red]x[/]"
    )
    assert result.returncode == 0
    assert TOKEN not in result.stdout
    assert len(result.stdout.splitlines()) == len(VARIABLES) + 1
    lines = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()}
    assert lines["ATOM_SAAS_DATABASE_URL"] == [path, "environment"]
    assert lines["ATOM_INSTANCE_ID"] == ["[red]x[/]", "environment"]
    assert lines["ATOM_SAAS_API_DIALECT"] == ["v1", "default"]
    assert "\x1b" not in result.stdout


def test_show_wraps_nothing_on_a_terminal_of_80_columns(tmp_path: Path) -> None:
    url = f"https://marketplace.example/{'long/' * 30}"
    result = _run(tmp_path, "config", "show", ATOM_SAAS_API_TOKEN=TOKEN, ATOM_SAAS_API_URL=url, COLUMNS="80")
    lines = result.stdout.splitlines()
    assert len(lines) == len(VARIABLES) + 1
    assert max(map(len, lines)) <= 80
    assert next(line for line in lines if "API_URL" in line).split()[1:] == [f"{url[:26]}…", "environment"]


def test_show_works_although_something_is_wrong(tmp_path: Path) -> None:
    result = _run(tmp_path, "config", "show", ATOM_SAAS_SYNC_INTERVAL_MINUTES="4", ATOM_SAAS_API_DIALECT="v9")
    assert result.returncode == 78
    assert "ATOM_SAAS_ENABLED" in result.stdout
    assert result.stderr.count("atom-sync: ") == 2


def test_check(tmp_path: Path) -> None:
    assert _run(tmp_path, "config", "check", ATOM_SAAS_API_TOKEN=TOKEN).returncode == 0
    missing = _run(tmp_path, "config", "check", "--json")
    assert missing.returncode == 78
    assert "ATOM_SAAS_API_TOKEN" in json.loads(missing.stdout)["problems"][0]
    assert "dashboard" in missing.stderr
    assert _run(tmp_path, "config", "check", ATOM_SAAS_ENABLED="false").returncode == 0


@pytest.mark.parametrize(("strict", "exit_code"), [([], 0), (["--strict"], 78)])
def test_a_typo_is_a_warning_and_with_strict_a_problem(tmp_path: Path, strict: list[str], exit_code: int) -> None:
    result = _run(tmp_path, "config", "check", *strict, ATOM_SAAS_API_TOKEN=TOKEN, ATOM_SAAS_WS_ULR="x")
    assert result.returncode == exit_code
    assert "did you mean ATOM_SAAS_WS_URL?" in result.stderr


def test_check_finds_everything_at_once(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    (tmp_path / ".env").write_text("ATOM_SAAS_WS_ENABLED=perhaps\n")
    result = _run(tmp_path, "config", "check", "--json", ATOM_SAAS_SYNC_BATCH_SIZE="0", ATOM_SAAS_CA_FILE="ca.pem")
    assert result.returncode == 78
    problems = json.loads(result.stdout)["problems"]
    assert [problem.partition(":")[0] for problem in problems] == [
        "ATOM_SAAS_SYNC_BATCH_SIZE",
        "ATOM_SAAS_WS_ENABLED",
        "ATOM_SAAS_CA_FILE",
        "ATOM_SAAS_API_TOKEN",
    ]
    assert result.stderr.splitlines() == [f"atom-sync: {problem}" for problem in problems]


@pytest.mark.parametrize("name", ["missing.env", "."])
def test_an_unreadable_env_file_is_refused(tmp_path: Path, name: str) -> None:
    result = _run(tmp_path, "--env-file", name, "config", "check", ATOM_SAAS_API_TOKEN=TOKEN)
    assert result.returncode == 78
    assert result.stderr.startswith(f"atom-sync: {name}: ")


def test_the_env_file_of_the_option_takes_the_place_of_the_other(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ATOM_SAAS_API_TOKEN=nonsense\n")
    (tmp_path / "other.env").write_text(f"ATOM_SAAS_API_TOKEN={TOKEN}\n")
    assert _run(tmp_path, "config", "check").returncode == 78
    assert _run(tmp_path, "--env-file", "other.env", "config", "check").returncode == 0


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_command_with_invalid_settings_lists_all_problems_and_exits_with_78(
    tmp_path: Path, as_json: list[str]
) -> None:
    token = f"{TOKEN}\ny"
    result = _run(tmp_path, "sync", "skills", *as_json, ATOM_SAAS_SYNC_BATCH_SIZE="0", ATOM_SAAS_API_TOKEN=token)
    assert result.returncode == 78
    first, second, hint = result.stderr.splitlines()
    assert first.startswith("atom-sync: ATOM_SAAS_API_TOKEN: invalid value (from environment): expected a token")
    assert second.startswith("atom-sync: ATOM_SAAS_SYNC_BATCH_SIZE: invalid value '0' (from environment): expected")
    assert hint.startswith("  → ")
    assert TOKEN not in result.stdout + result.stderr
    if as_json:
        document = json.loads(result.stdout)
        assert document["success"] is False
        assert document["error"]["type"] == "config"
    else:
        assert result.stdout == ""


def test_a_secret_of_the_environment_is_in_no_output_of_any_level(tmp_path: Path) -> None:
    result = _run(
        tmp_path,
        "--log-level",
        "debug",
        "sync",
        "skills",
        ATOM_SAAS_API_TOKEN=TOKEN,
        ATOM_SYNC_ADMIN_TOKEN="hunter2-hunter2-hunter2",
        ATOM_SAAS_API_URL="http://127.0.0.1:9",
        ATOM_SAAS_RATE_LIMIT_PER_HOUR="1",  # so that it does not try again for seconds
    )
    assert result.returncode in {69, 75}
    assert TOKEN not in result.stdout + result.stderr
    assert "hunter2" not in result.stdout + result.stderr


@pytest.mark.parametrize("arguments", [["--log-level", "loud"], ["--log-format", "xml"], ["--log-level", "INFO"]])
@pytest.mark.parametrize("command", [["sync", "skills"], ["config", "show"], ["status"]])
def test_wrong_logging_options_are_wrong_usage(tmp_path: Path, arguments: list[str], command: list[str]) -> None:
    result = _run(tmp_path, *arguments, *command, ATOM_SAAS_API_TOKEN=TOKEN)
    assert result.returncode == 2
    assert result.stderr.startswith(f"atom-sync: invalid {arguments[0]} {arguments[1]!r}: expected ")
    assert result.stdout == ""


def test_a_wrong_value_is_shown_and_a_wrong_secret_is_not(machine: Machine) -> None:
    wrong = {
        "ATOM_SAAS_SYNC_INTERVAL_MINUTES": "2",
        "ATOM_SAAS_CONFLICT_STRATEGY": "newest",
        "ATOM_SAAS_API_URL": "https://me:hunter2@api.example",
        "ATOM_SAAS_API_TOKEN": "a token with spaces",
    }
    result = machine.command("config", "show", "--json", **wrong)
    shown = {each["name"]: each["value"] for each in json.loads(result.stdout)["settings"]}
    assert result.returncode == 78
    assert shown["ATOM_SAAS_SYNC_INTERVAL_MINUTES"] == "2"
    assert shown["ATOM_SAAS_CONFLICT_STRATEGY"] == "newest"
    assert "hunter2" not in result.stdout + result.stderr
    assert "with spaces" not in result.stdout + result.stderr


def _link_to_nowhere(path: Path) -> None:
    path.symlink_to(path.with_name("missing"))


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, _link_to_nowhere])
def test_an_env_file_that_is_not_a_regular_file_is_a_warning(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / ".env")
    _warned(tmp_path, "/.env is not a regular file and was ignored")


SECRET_LINES = ["ATOM_SAAS_API_TOKEN=at_saas_secret", "ATOM_SYNC_ADMIN_TOKEN=secret-secret-secret"]


@pytest.mark.parametrize(
    ("text", "mode", "warning"),
    [
        ("ATOM_SAAS_ENABLED", 0o600, "line 1: is not NAME=value and was ignored"),
        ("A=b\nexport ATOM_SAAS_ENABLED\n", 0o600, "line 2: is not NAME=value and was ignored"),
        ("ATOM_SAAS_ENABLED=true\n\0ATOM_SYNC_HISTORY_VERSIONS=3", 0o600, "line 2: the name has control or invisible"),
        ("ATOM\0_SAAS_ENABLED=true", 0o600, "line 1: the name has control or invisible"),
        ("\u200bATOM_SAAS_ENABLED=true", 0o600, "line 1: the name has control or invisible"),
        (SECRET_LINES[0], 0o644, "contains a secret and can be read by others; chmod 600 it"),
        (SECRET_LINES[1], 0o640, "contains a secret and can be read by others; chmod 600 it"),
        (SECRET_LINES[0], 0o600, None),
        ("ATOM_SAAS_ENABLED=true", 0o644, None),
        ("ATOM_SAAS_DATABASE_URL=sqlite:///${HOME}/a.db", 0o600, "ATOM_SAAS_DATABASE_URL (from "),
        ("ATOM_SAAS_CA_FILE=$HOME/ca.pem\nATOM_SAAS_ENABLED=true", 0o600, "the $ is literal"),
        ("ATOM_SAAS_DATABASE_URL='costs $5.db'", 0o600, None),
        ("ATOM_SAAS_API_TOKEN_FILE=other", 0o600, "ATOM_SAAS_API_TOKEN (from environment) overrides"),
    ],
)
def test_oddities_of_an_env_file_are_warnings(tmp_path: Path, text: str, mode: int, warning: str | None) -> None:
    path = tmp_path / ".env"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    _warned(tmp_path, warning)


def _warned(directory: Path, warning: str | None) -> None:
    """Check the warnings of `config check`, and that --strict makes them problems."""
    results = {}
    for strict in (False, True):
        result = run_command(
            *("config", "check", "--json", *["--strict"] * strict),
            environment={"PATH": os.environ["PATH"], "ATOM_SAAS_API_TOKEN": "at_saas_x"},
            directory=directory,
        )
        results[strict] = result.returncode
        document = json.loads(result.stdout)
        assert "secret" not in str(document).replace("contains a secret", "")
    problems = bool(document["problems"])  # a CA file that is not there
    assert [warning in each for each in document["warnings"]] == [True] if warning else document["warnings"] == []
    assert results == {False: 78 if problems else 0, True: 78 if problems or warning else 0}
