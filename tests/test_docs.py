"""The documents: printed commands run, named files exist, and nothing is missing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import typer
import yaml
from conftest import Machine
from shell_support import quick_program

from atom_saas_sync.cli.main import app
from atom_saas_sync.config import VARIABLES
from atom_saas_sync.errors import AtomSyncError

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_STATED = re.compile(r"# exit (\d+)$", re.MULTILINE)


def _blocks(path: Path, language: str) -> list[str]:
    return [text for name, text in _FENCE.findall(path.read_text(encoding="utf-8")) if name == language]


def _without_blocks(path: Path) -> str:
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


def test_every_row_of_the_threat_model_names_tests_of_make_test() -> None:
    text = (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    named = [set(re.findall(r"`(test_\w+)`", row[-1])) for row in rows if row[-1].strip() != "shown by"]
    assert len(named) > 40
    assert all(named), rows
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for marks, name in re.findall(
            r"^((?:@.+\n|[ )\]}].*\n)*)def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE
        )
        if "pytest.mark.soak" not in marks and "soak" not in path.parts
    }
    assert set.union(*named) <= there, set.union(*named) - there


def test_the_contributor_s_table_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "`" in line.rpartition("| ")[2]]
    named = {path for row in rows for path in re.findall(r"`((?:\w+/)*\w*(?:\.py|/))`", row.split(" | ")[1])}
    assert len(rows) > 20
    assert [path for path in named if not (ROOT / "atom_saas_sync" / path).exists()] == []


def test_the_code_cites_only_documents_that_exist() -> None:
    cited = {
        (str(path.relative_to(ROOT)), document)
        for directory in ("atom_saas_sync", "tests", "benchmarks")
        for path in (ROOT / directory).rglob("*.py")
        for document in re.findall(r"\b[A-Za-z][\w/-]*\.md\b", path.read_text(encoding="utf-8"))
    }
    known = {"marketplace-api.md", "SKILL.md", *(path.name for path in DOCUMENTS), "CHANGELOG.md"}
    assert len(cited) > 50
    assert [each for each in cited if each[1].rpartition("/")[2] not in known] == []


def _anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ +(.+)$", _without_blocks(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if _blocks(path, "bash")], ids=lambda path: path.name)
def test_every_command_runs_as_printed(machine: Machine, path: Path) -> None:
    """In their order, in one directory, after a first sync."""
    machine.sandbox.set_clock_offset(0)
    with quick_program() as programs:
        places = [programs, Path(sys.executable).parent, os.environ["PATH"]]
        environment = machine.environment(PATH=os.pathsep.join(map(str, places)))
        del environment["ATOM_SAAS_DATABASE_URL"]  # as for readers: data/atom.db
        for text in ["atom-sync sync skills", *_blocks(path, "bash")]:
            stated = _STATED.search(text)
            assert _run(text, environment, machine.directory) == (int(stated[1]) if stated else 0), text


def _run(text: str, environment: dict[str, str], directory: Path) -> int:
    """Run it in a shell, show its output if the test fails, and leave no process behind."""
    with (directory / "printed.txt").open("w+", encoding="utf-8") as printed:
        shell = subprocess.Popen(
            ["bash", "-e", "-c", text],
            env=environment,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return shell.wait(60)
        finally:
            with suppress(ProcessLookupError):  # all have ended, as they should
                os.killpg(shell.pid, signal.SIGKILL)
            printed.seek(0)
            print(printed.read())  # noqa: T201 - shown if the test fails


def test_commands_that_are_not_run_are_marked_so() -> None:
    for path in DOCUMENTS[1:]:
        assert {language for language, _ in _FENCE.findall(path.read_text(encoding="utf-8"))} <= {
            *("bash", "console", "text", "json", "yaml", "sql", "python"),
            "",
        }, path.name


def _options() -> set[str]:
    def walk(command: object) -> set[str]:
        found = {
            option
            for parameter in getattr(command, "params", [])
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        for name in getattr(command, "commands", {}):
            found |= walk(command.commands[name])  # type: ignore[attr-defined]
        return found

    return {"--help", "--version", *walk(typer.main.get_command(app))}


def test_every_option_of_ours_that_they_name_exists() -> None:
    known = _options()
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        ours = {
            option
            for line in text.splitlines()
            if not line.endswith("# exit 2")  # wrong usage, shown on purpose
            for command in re.findall(r"atom-sync ([^`|;&>#]*)", line)
            for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", command.partition("/")[0])
        }
        assert ours <= known, path.name


def test_every_exit_code_is_documented() -> None:
    def classes(base: type[AtomSyncError]) -> set[int]:
        return {base.exit_code}.union(*(classes(each) for each in base.__subclasses__()))

    told = set(re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "API_DOCUMENTATION.md").read_text("utf-8"), re.MULTILINE))
    assert {str(code) for code in classes(AtomSyncError) | {0, 2, 3, 4, 130, 143}} <= told


def test_every_kind_of_error_and_every_notice_is_documented() -> None:
    def kinds(base: type[AtomSyncError]) -> set[str]:
        return {base.kind}.union(*(kinds(each) for each in base.__subclasses__()))

    health = (ROOT / "atom_saas_sync" / "core" / "health.py").read_text(encoding="utf-8")
    notices = set(re.findall(r'^            "([a-z]+(?:_[a-z]+)*)",$', health, re.MULTILINE))
    assert {"tampered", "updates_tripped"} < notices
    text = (ROOT / "docs" / "API_DOCUMENTATION.md").read_text(encoding="utf-8")
    assert [each for each in kinds(AtomSyncError) | notices if f"`{each}`" not in text] == []


def test_every_variable_is_documented() -> None:
    text = (ROOT / "docs" / "API_DOCUMENTATION.md").read_text(encoding="utf-8")
    for variable in VARIABLES:
        row = f"| `{variable.name}` | {variable.meaning[0].upper()}{variable.meaning[1:]} | {variable.takes} |"
        assert row in text, row


def test_every_finding_and_every_alert_has_its_heading() -> None:
    there = _anchors(ROOT / "docs" / "TROUBLESHOOTING.md")
    package = ROOT / "atom_saas_sync"
    modules = [package / "usecases" / "diagnose.py", *(package / "core" / "diagnosis").glob("*.py")]
    checks = {
        check for each in modules for check in re.findall(r'Finding\(\s*"(\w+)"', each.read_text(encoding="utf-8"))
    }
    assert len(checks) > 12
    assert checks <= there
    rules = yaml.safe_load((ROOT / "monitoring" / "alerts" / "prometheus-alerts.yml").read_text(encoding="utf-8"))
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        document, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert anchor == rule["alert"].lower()
        assert anchor in _anchors(ROOT / document)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _without_blocks(path)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        document = path.parent / name if name else path
        assert document.exists(), target
        assert not anchor or anchor in _anchors(document), target
