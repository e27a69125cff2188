"""Lists on narrow terminals, in pipes, and with characters of any width."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from conftest import Machine
from rich.cells import cell_len

from atom_saas_sync.cli.comparison import guess_syntax
from atom_saas_sync.cli.tables import Column, fitted

WIDE_NAME = "日本語のスキル 👩‍👩‍👧 한국어 e\u0301\u0301 " * 3
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with wide names and users, and with open, failed and resolved items."""
    from atom_saas_sync.sandbox import Sandbox

    with Sandbox(skills=4) as sandbox:
        machine = Machine(sandbox, tmp_path_factory.mktemp("full"))
        machine.pull()
        for number, skill_id in enumerate(sandbox.skill_ids()):
            machine.edit(skill_id, name=WIDE_NAME, version="1.0.0-" + "界" * 10, code="x" * 300)
            sandbox.patch_skill(skill_id, {"code": f"theirs {number}", "version": "2.0.0"})
            assert machine.command("ratings", "add", skill_id, "5", "--user", "用户 " * (number + 1)).returncode == 0
        sandbox.fault("error", endpoint="ratings", status=422)
        assert machine.command("sync", "ratings").returncode == 1
        sandbox.clear_faults()
        machine.pull(strategy="manual")
        assert machine.command("conflicts", "resolve", "1", "--strategy", "local_wins").returncode == 0
        yield machine


LISTS = {
    "skills list --modified": "skills",
    "ratings list": "skills",
    "ratings failed": "skills",
    "conflicts list": "skills",
    "conflicts list --resolved": "skills",
    "skills log {id}": "numbers",
}


def _lines(machine: Machine, words: str, **variables: str) -> list[str]:
    result = machine.command(*words.format(id=machine.sandbox.skill_ids()[0]).split(), **variables)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
@pytest.mark.parametrize("words", LISTS)
def test_a_list_fits_its_terminal_and_no_id_vanishes(full: Machine, words: str, columns: int) -> None:
    heads, *rows = _lines(full, words, COLUMNS=str(columns))
    assert rows
    assert max(cell_len(line) for line in (heads, *rows)) <= columns
    ids = full.sandbox.skill_ids()
    if LISTS[words] == "skills":
        assert all(any(skill_id in row for skill_id in ids) for row in rows), rows
    else:
        assert rows[0].startswith("base")


@pytest.mark.parametrize("words", ["ratings list", "ratings failed", "conflicts list"])
def test_names_are_shown_beside_ids_from_80_columns_on(full: Machine, words: str) -> None:
    heads, *rows = _lines(full, words, COLUMNS="80")
    assert "name" in heads.split()
    assert all("日本語" in row for row in rows)


@pytest.mark.parametrize("words", LISTS)
def test_columns_are_aligned_with_their_heads_for_any_content(full: Machine, words: str) -> None:
    heads, *rows = _lines(full, words, COLUMNS="200")
    starts = [cell_len(heads[: found.start()]) for found in re.finditer(r"(?<!\S)\S+(?: \S+)*", heads)]
    for row in rows:
        for start in starts[1:]:
            before = _first_cells(row, start)
            assert before == "" or before.endswith("  ") or before.isspace(), (row, start)


def _first_cells(text: str, cells: int) -> str:
    """Return what stands in the first cells, or "" if the text is shorter, or a wide character covers the border."""
    for end in range(len(text) + 1):
        if cell_len(text[:end]) == cells and (end == len(text) or cell_len(text[: end + 1]) > cells):
            return text[:end]
    return ""


def test_ids_give_way_to_nothing() -> None:
    columns = [Column("id"), Column("name", drop=1, cut=True), Column("note", drop=2), Column("key")]
    assert fitted(columns, [36, 50, 9, 4], None) == [36, 50, 9, 4]
    assert fitted(columns, [36, 50, 9, 4], 80) == [36, 25, 9, 4]
    assert fitted(columns, [36, 50, 9, 4], 58) == [36, 14, None, 4]
    assert fitted(columns, [36, 50, 9, 4], 44) == [36, None, None, 4]
    assert fitted(columns, [36, 50, 9, 4], 10) == [36, None, None, 4]
    assert fitted([Column("a", drop=1, cut=True), Column("b", drop=2, cut=True)], [30, 30], 40) == [19, 19]
    two_ids = [
        Column("id"),
        Column("skill"),
        Column("name", drop=1, cut=True, least=4),
        Column("user", drop=2, cut=True),
    ]
    assert fitted(two_ids, [36, 36, 30, 9], 80) == [36, 36, 4, None]


@pytest.mark.parametrize("variables", [{"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}, {"FORCE_COLOR": "3"}, {}])
def test_a_pipe_has_no_width(full: Machine, variables: dict[str, str]) -> None:
    """Code and rows are complete and without padding, also with colour."""
    skill_id = full.sandbox.skill_ids()[1]
    for words in ("skills list --modified", f"skills show {skill_id}", "status", "config show", "db history", "doctor"):
        result = full.command(*words.split(), TERM="xterm-256color", **variables)
        lines = [ESCAPE.sub("", line) for line in result.stdout.splitlines()]
        assert lines, words
        assert [line for line in lines if line != line.rstrip()] == [], words
        if words.startswith("skills list"):
            assert [line for line in lines if skill_id in line and "界" * 10 in line], lines
        if words.startswith("skills show"):
            assert "x" * 300 in lines


def test_code_on_a_terminal_is_not_cut_into_lines(full: Machine) -> None:
    leader, follower = os.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "atom_saas_sync", "skills", "show", full.sandbox.skill_ids()[1]],
            env=full.environment(TERM="xterm-256color", COLUMNS="80"),
            cwd=full.directory,
            stdin=subprocess.DEVNULL,
            stdout=follower,
            stderr=subprocess.PIPE,
            timeout=30,
            check=True,
        )
        seen = os.read(leader, 100_000).decode()
    finally:
        os.close(leader)
        os.close(follower)
    assert "x" * 300 in seen


@pytest.mark.parametrize(
    ("code", "syntax"),
    [
        ("import os\nprint(1)\n", "python"),
        ("#!/usr/bin/env python3\nprint(1)\n", "python"),
        ("// Tools\nconst a = 1 ?? 2;\n", "javascript"),
        ('import { readFile } from "node:fs";\n', "javascript"),
        ("#!/usr/bin/env node\nlet a;\n", "javascript"),
        ("#!/bin/sh\nset -e\n", "bash"),
        ("# Title\n\n## How\n", "markdown"),
    ],
)
def test_code_is_coloured_as_its_language(code: str, syntax: str) -> None:
    assert guess_syntax("code", code) == syntax


def test_names_of_fields_are_coloured_and_values_are_not(full: Machine) -> None:
    shown = full.command("skills", "show", full.sandbox.skill_ids()[1], FORCE_COLOR="1", TERM="xterm-256color").stdout
    assert "\x1b[36mcategory: \x1b[0m" in shown


def test_the_summary_of_all_runs_has_a_line_of_its_own(full: Machine) -> None:
    lines = full.command("status", COLUMNS="80").stdout.splitlines()
    (runs,) = (line for line in lines if "succeeded" in line)
    assert re.fullmatch(r" {13}\d+ runs?: \d+ succeeded(, \d+ failed)?", runs)
