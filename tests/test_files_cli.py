"""`files`: the shipped files, and the manual pages generated from the commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import typer
from command_lines import COMMANDS
from conftest import Machine

ROOT = Path(__file__).parent.parent
MACROS = ("TH", "SH", "B", "TP", "PP", "EX", "EE")


def test_files_are_those_of_the_project(machine: Machine) -> None:
    listed = json.loads(machine.command("files", "list", "--json").stdout)
    assert listed["total"] == len(listed["files"])
    assert all(file["meaning"] and file["size_bytes"] for file in listed["files"])
    names = {file["name"] for file in listed["files"]}
    ended = machine.command("files", "write", "to/here")
    assert ended.returncode == 0, ended.stderr
    target = machine.directory / "to" / "here"
    assert {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()} == names
    assert (target / "env" / ".env.example").read_bytes() == (ROOT / ".env.example").read_bytes()
    for directory in ("systemd", "cron", "monitoring"):
        there = [path for path in (ROOT / directory).rglob("*") if path.is_file()]
        assert {name for name in names if name.startswith(f"{directory}/")} == {
            str(path.relative_to(ROOT)) for path in there
        }
        for path in there:
            assert (target / path.relative_to(ROOT)).read_bytes() == path.read_bytes(), path
    assert {name for name in names if name.startswith("man/man1/")} == {
        f"man/man1/{'-'.join(('atom-sync', *path))}.1" for path in COMMANDS
    }


def test_files_are_written_by_name_and_never_over_others(machine: Machine) -> None:
    target = machine.directory
    written = json.loads(machine.command("files", "write", ".", "cron", "env/.env.example", "--json").stdout)
    assert written["written"] == ["cron/atom-sync", "env/.env.example"]
    again = machine.command("files", "write", ".", "cron/")
    assert (again.returncode, again.stdout) == (0, "all files in . are up to date\n")

    (target / "cron" / "atom-sync").write_text("mine")
    refused = machine.command("files", "write", ".", "env", "cron", "monitoring")
    assert refused.returncode == 2
    assert "cron/atom-sync exists" in refused.stderr
    assert not (target / "monitoring").exists()
    assert (target / "cron" / "atom-sync").read_text() == "mine"
    assert machine.command("files", "write", ".", "cron", "--force").stdout == "wrote cron/atom-sync\n"

    unknown = machine.command("files", "write", ".", "monitoring", "monitor", "--json")
    assert unknown.returncode == 1
    assert json.loads(unknown.stdout)["error"]["type"] == "not_found"
    assert not (target / "monitoring").exists()


def test_every_manual_page_is_whole(machine: Machine) -> None:
    machine.command("files", "write", ".", "man")
    for path, command in COMMANDS.items():
        page = (machine.directory / "man" / "man1" / f"{'-'.join(('atom-sync', *path))}.1").read_text(encoding="utf-8")
        assert page.startswith('.TH "ATOM\\-SYNC'), path
        sections = re.findall(r"^\.SH (.+)$", page, re.MULTILINE)
        assert sections[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"], path
        assert ("COMMANDS" in sections) is hasattr(command, "commands"), path
        assert {line.split()[0] for line in page.splitlines() if line.startswith((".", "'"))} <= {
            f".{macro}" for macro in MACROS
        }
        shown = (each for each in command.get_params(typer.Context(command)) if not each.hidden)
        for option in (name for each in shown for name in each.opts if name[0] == "-"):
            assert option.replace("-", "\\-") in page, (path, option)
