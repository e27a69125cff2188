"""The imports at startup: frequent commands must not pay for the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from conftest import NO_LIMITS

from atom_saas_sync.cli.main import PARTS, app
from atom_saas_sync.sandbox import Sandbox

# What every Typer program imports: the second for completion.
_TYPER = {"typer", "shellingham", "annotated_doc"}
# Our rooms that a start imports.
_OURS_FOR_STATUS = {"characters", "cli", "config", "core", "errors", "model", "places", "store", "times"}

_LIST_MODULES = """
import contextlib, io, json, sys, sysconfig
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    from atom_saas_sync.__main__ import start
    start()
packages = sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]
third = {
    name.partition(".")[0]
    for name, module in sys.modules.items()
    if (getattr(module, "__file__", None) or "").startswith(packages)
}
ours = {name.split(".")[1] for name in sys.modules if name.startswith("atom_saas_sync.")}
print(json.dumps({"third": sorted(third), "ours": sorted(ours), "all": sorted(sys.modules)}))
"""


def modules_after(directory: Path, *arguments: str, **environment: str) -> dict[str, list[str]]:
    result = subprocess.run(
        [sys.executable, "-c", _LIST_MODULES, *arguments],
        cwd=directory,
        env={"ATOM_SAAS_DATABASE_URL": str(directory / "atom.db"), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    modules: dict[str, list[str]] = json.loads(result.stdout)
    return modules


def test_help_imports_only_typer(tmp_path: Path) -> None:
    modules = modules_after(tmp_path, "--help")
    assert {name for name in modules["third"] if not name.startswith("_")} <= _TYPER
    assert set(modules["ours"]) == {"__main__", "characters", "cli", "errors"}


def test_status_for_programs_imports_only_typer_and_its_own_rooms(tmp_path: Path) -> None:
    modules_after(tmp_path, "db", "upgrade")
    modules = modules_after(tmp_path, "status", "--json")
    assert {name for name in modules["third"] if not name.startswith("_")} <= _TYPER | {"msgspec", "typing_extensions"}
    assert set(modules["ours"]) <= _OURS_FOR_STATUS | {"__main__"}
    # Not even these of the standard library, or another command group.
    assert not {"asyncio", "email.parser", "http.client", "ssl", "urllib.request"} & set(modules["all"])
    assert {name for name in modules["all"] if name.startswith("atom_saas_sync.cli.")} == {
        f"atom_saas_sync.cli.{name}" for name in ("lazy", "main", "output", "runtime", "status")
    }


def test_a_sync_imports_neither_migrations_nor_what_judges_while_there_is_nothing_to_judge(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    modules_after(tmp_path, "db", "upgrade")
    marketplace = {"ATOM_SAAS_API_URL": sandbox.url, "ATOM_SAAS_API_TOKEN": sandbox.token}
    modules = set(modules_after(tmp_path, "sync", "skills", "--json", **NO_LIMITS, **marketplace)["all"])
    assert "atom_saas_sync.store.sqlite.batch" in modules
    assert not modules & {
        "tomllib",
        "atom_saas_sync.core.gate.lock_file",
        "atom_saas_sync.core.gate.verdict",
        "atom_saas_sync.core.plan.offered",
        "atom_saas_sync.scanner",
        "atom_saas_sync.store.sqlite.adoption",
        "atom_saas_sync.store.sqlite.migrations",
        "atom_saas_sync.store.sqlite.schema",
    }
    # Nor what plans and writes, if nothing is new.
    modules = set(modules_after(tmp_path, "sync", "skills", "--json", **NO_LIMITS, **marketplace)["all"])
    assert not modules & {
        "atom_saas_sync.core.plan",
        "atom_saas_sync.store.sqlite.effects",
        "atom_saas_sync.store.sqlite.gate.tables",
        "atom_saas_sync.store.sqlite.history",
    }


def test_a_group_makes_and_imports_only_the_command_that_was_typed(tmp_path: Path) -> None:
    modules_after(tmp_path, "db", "upgrade")
    modules = modules_after(tmp_path, "skills", "verify", "--json")
    others = {f"atom_saas_sync.cli.{name}" for name in ("skill_reading", "skill_edits", "skill_versions")}
    assert not others & set(modules["all"])


@pytest.mark.parametrize("command", ["sync skills", "sync ratings", "cache purge", "skills list", "jobs"])
def test_default_values_are_not_converted(tmp_path: Path, command: str) -> None:
    modules_after(tmp_path, "db", "upgrade")
    assert "pydantic" not in modules_after(tmp_path, *command.split())["third"]


def test_given_values_are_converted(tmp_path: Path) -> None:
    modules_after(tmp_path, "db", "upgrade")
    assert "pydantic" in modules_after(tmp_path, "skills", "list", "--limit", "3")["third"]


def test_dotenv_is_imported_only_if_there_is_a_file_for_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ATOM_SAAS_SYNC_INTERVAL_MINUTES=20\n", encoding="utf-8")
    assert "dotenv" in modules_after(tmp_path, "status", "--json")["third"]


@pytest.mark.parametrize("name", PARTS)
def test_the_line_of_help_that_imports_nothing_is_the_command_s_own(name: str) -> None:
    group = typer.main.get_group(app)
    own = group.commands[name].help
    assert own is not None
    assert own.splitlines()[0] == PARTS[name].help
