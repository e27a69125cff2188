"""Each default is declared once, and help texts that have to repeat one agree with it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator

import pytest
from package_source import ROOT, nodes_of, paths

from atom_saas_sync.cli import sandbox as sandbox_command
from atom_saas_sync.cli import sync as sync_command
from atom_saas_sync.config.variables import VARIABLES
from atom_saas_sync.core.deletions import DEFAULT_FLOOR, DEFAULT_SHARE
from atom_saas_sync.sandbox import DEFAULT_TOKEN, Sandbox

# The sandbox is the other side, and has defaults of its own; Policy() admits everything, and TrustState() reports that.
ELSEWHERE = {"config", "sandbox", "Policy", "TrustState"}
# Names of the same settings in other rooms.
ALIASES = {
    "page_size": "batch_size",
    "strategy": "conflict_strategy",
    "scope": "admission_scope",
    "skills_minutes": "sync_interval_minutes",
    "ratings_minutes": "rating_sync_interval_minutes",
    "per_minute": "rate_limit_per_minute",
    "per_hour": "rate_limit_per_hour",
    "timeout": "timeout_seconds",
    "heartbeat_seconds": "ws_heartbeat_seconds",
    "attempts": "ws_reconnect_attempts",
    "poll_minutes": "sync_interval_minutes",
}


def defaults(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ast.expr]]:
    """Yield each field and parameter that has a default."""
    for node in nodes:
        if isinstance(node, ast.ClassDef) and node.name not in ELSEWHERE:
            for each in node.body:
                if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and each.value is not None:
                    yield each.target.id, each.value
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            places = [*given.posonlyargs, *given.args]
            yield from (
                (argument.arg, value)
                for argument, value in [
                    *zip(places[len(places) - len(given.defaults) :], given.defaults, strict=True),
                    *zip(given.kwonlyargs, given.kw_defaults, strict=True),
                ]
                if value is not None
            )


def test_the_default_of_a_setting_is_declared_only_with_its_variable() -> None:
    of_field = {variable.field: variable.default for variable in VARIABLES if variable.default}
    modules = [path for path in paths() if not ELSEWHERE & set(path.relative_to(ROOT).parts)]
    found = [(path, *each) for path in modules for each in defaults(nodes_of(path))]
    assert len(found) > 500
    assert [
        f"{path.relative_to(ROOT)}: {name} = {ast.unparse(value)}"
        for path, name, value in found
        if isinstance(value, ast.Constant) and type(value.value) in (int, float, str)
        if str(value.value) == of_field.get(ALIASES.get(name, name))
    ] == []


def test_help_texts_repeat_the_defaults_of_rooms_that_they_must_not_import() -> None:
    assert f"Default: {DEFAULT_SHARE:.0%}, at least {DEFAULT_FLOOR}." in inspect.getsource(sync_command)
    assert f"Default: {DEFAULT_TOKEN}." in inspect.getsource(sandbox_command)


@pytest.mark.parametrize("name", ["skills", "seed", "rate_limit", "ping_interval", "host"])
def test_the_sandbox_command_has_the_defaults_of_its_class(name: str) -> None:
    of_command, of_class = (inspect.signature(each).parameters for each in (sandbox_command.serve, Sandbox.__init__))
    assert of_command[name].default == of_class[name].default
