"""The source of the package, read and parsed once in a process, for tests of its structure."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import atom_saas_sync

ROOT = Path(atom_saas_sync.__file__).parent


@functools.cache
def paths() -> tuple[Path, ...]:
    """Return the files of all modules."""
    return tuple(sorted(ROOT.rglob("*.py")))


@functools.cache
def text_of(path: Path) -> str:
    """Return the source of a module."""
    return path.read_text(encoding="utf-8")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(text_of(path))


@functools.cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """Return all nodes of that tree."""
    return tuple(ast.walk(tree_of(path)))
