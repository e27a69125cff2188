"""What keeps the gate shut, found in the code itself."""

from __future__ import annotations

import ast
from pathlib import Path

import atom_saas_sync

ROOT = Path(atom_saas_sync.__file__).parent


def test_only_the_gate_makes_admitted_versions() -> None:
    """`Admitted` is the one value with which a version of the marketplace gets into the cache."""
    made = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Admitted"
    }
    assert made == {"core/gate/verdict.py"}


def test_nothing_makes_an_admitted_version_behind_the_constructor() -> None:
    """Not by msgspec's `replace` or `convert`, and not by an alias."""
    mentions = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and any(name.name == "Admitted" and name.asname for name in node.names)
    }
    assert mentions == set()
