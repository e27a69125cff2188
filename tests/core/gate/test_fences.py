"""Checks of the code that nothing bypasses the gate. mypy checks the rest: effects only accept admitted versions."""

from __future__ import annotations

import ast
import functools
from collections import defaultdict

import pytest
from package_source import ROOT, paths, text_of, tree_of

GATE = "core/gate/admission.py"
GUARDED = {"Admitted", "Servable"}
EFFECTS = {"WriteServed", "AddServed", "ReplaceServed", "RefreshFigures", "SetBase"}

PLANS = {"adoption", "plan/deletions", "plan/edits", "plan/listed", "plan/offered", "plan/resolutions"}
CALLERS = {
    "judged": {"core/plan/offered.py", "usecases/gate/pins_and_quarantine.py"},
    "unjudged": {"core/plan/messages.py", "usecases/gate/planning.py"},
    "admitted_before": {"core/plan/sides.py"},
    "chosen_here": {"core/adoption.py", "core/plan/resolutions.py"},
    "text_of": {"core/plan/edits.py", "core/plan/listed.py"},
    "written_here": {f"core/{name}.py" for name in PLANS},
    "with_figures": {"core/plan/figures.py", "core/plan/offered.py"},
}
"""Who may create a value that can be served, by function of core/gate/admission.py."""


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Return the modules that name what is guarded."""
    words = ("gate.admission", "import admission", *GUARDED, *EFFECTS)
    return {
        path.relative_to(ROOT).as_posix(): tree_of(path)
        for path in paths()
        if any(word in text_of(path) for word in words)
    }


def named(node: ast.AST) -> str:
    """Return the last part of the name that a node is, or that a string constant has; empty for other nodes."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return getattr(node, "id", getattr(node, "attr", ""))


def imported(tree: ast.AST) -> set[str]:
    """Return what a module imports from core/gate/admission.py; "admission" if it imports all of it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("core.gate.admission"):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {"admission" for each in node.names if each.name.rpartition(".")[2] == "admission"}
    return names


def makers(tree: ast.AST, names: set[str]) -> set[str]:
    """Return which of these types a module makes: by a call, or by a call that is given the type, such as `cast`."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    made = {named(part) for call in calls for part in (call.func, *call.args)}
    aliases = {
        each.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for each in node.names if each.asname
    }
    return names & (made | aliases)


def test_only_the_declared_modules_make_what_can_be_served() -> None:
    found = defaultdict(set)
    for module, tree in modules().items():
        for name in imported(tree):
            found[name].add(module)
    assert found == CALLERS


def test_only_the_gate_makes_admitted_versions_and_servable_texts() -> None:
    """Not by their constructor, `cast` or msgspec's `convert`, and not by an alias."""
    made = {module for module, tree in modules().items() if makers(tree, GUARDED)}
    assert made - {"model/effects.py"} == {GATE}


def test_only_plans_make_effects_that_serve_something() -> None:
    made = {module for module, tree in modules().items() if makers(tree, EFFECTS)}
    assert {module for module in made if not module.startswith("core/plan/")} <= {
        "model/plans.py",  # isinstance
        "usecases/gate/local.py",
        "core/gate/verdicts.py",
    }


@pytest.mark.parametrize(
    "code",
    [
        "Servable(x)",
        "cast('Servable', x)",
        "cast(effects.Servable, x)",
        "from m import Servable as S",
        "convert(x, Servable)",
    ],
)
def test_the_search_finds_each_way_of_making_one(code: str) -> None:
    assert makers(ast.parse(code), {"Servable"})
    assert not makers(ast.parse("def f(x: Servable) -> Servable: return x"), {"Servable"})
