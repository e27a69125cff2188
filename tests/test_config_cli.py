"""`config show` and `config check` as people and pipelines run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOKEN = "at_saas_abcdef123456"


def _run(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "atom_saas_sync", *arguments],
        env={"PATH": os.environ["PATH"], **variables},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_show_masks_secrets_and_tells_origins(tmp_path: Path) -> None:
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
    people = _run(tmp_path, "config", "show")
    assert "ATOM_SAAS_API_DIALECT" in people.stdout
    assert TOKEN not in people.stdout


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
    assert _run(tmp_path, "config", "check", ATOM_SAAS_ENABLED="false").returncode == 0


@pytest.mark.parametrize(("strict", "exit_code"), [([], 0), (["--strict"], 78)])
def test_a_typo_is_a_warning_and_with_strict_a_problem(tmp_path: Path, strict: list[str], exit_code: int) -> None:
    result = _run(tmp_path, "config", "check", *strict, ATOM_SAAS_API_TOKEN=TOKEN, ATOM_SAAS_WS_ULR="x")
    assert result.returncode == exit_code
    assert "did you mean ATOM_SAAS_WS_URL?" in result.stderr


def test_a_command_with_wrong_settings_tells_all_and_exits_with_78(tmp_path: Path) -> None:
    result = _run(tmp_path, "sync", "skills", ATOM_SAAS_SYNC_BATCH_SIZE="0", ATOM_SAAS_API_TOKEN="x\ny")
    assert result.returncode == 78
    assert "ATOM_SAAS_SYNC_BATCH_SIZE" in result.stderr
    assert "ATOM_SAAS_API_TOKEN" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [["--log-level", "loud"], ["--log-format", "xml"]])
def test_wrong_logging_options_are_wrong_usage(tmp_path: Path, arguments: list[str]) -> None:
    result = _run(tmp_path, *arguments, "sync", "skills", ATOM_SAAS_API_TOKEN=TOKEN)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
