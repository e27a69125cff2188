"""Architecture: a room imports only what this table says (docs/ATOM_SAAS_SYNC_ARCHITECTURE.md)."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from package_source import ROOT, nodes_of, paths, text_of, tree_of

# The rooms that a room may import; each may import itself. Those of _VALUES contain no decisions.
_VALUES = {"characters", "errors", "model", "times", "__init__", "places"}
MAY_IMPORT = {
    "__init__": set(),
    "characters": set(),
    "errors": set(),
    "places": set(),
    "times": set(),
    "model": {"errors"},
    "core": _VALUES,
    "config": _VALUES | {"core"},
    "logs": _VALUES,
    "marketplace": _VALUES | {"core"},
    "unfinished": set(),
    "shipped": _VALUES | {"config", "core"},
    "store": _VALUES | {"core", "ports", "unfinished"},
    "metrics": _VALUES | {"core"},
    "scanner": _VALUES,
    "systemd": _VALUES,
    "textfile": _VALUES | {"unfinished"},
    "ports": _VALUES | {"core"},
    "usecases": _VALUES | {"core", "ports"},
    "sandbox": _VALUES | {"core"},
    "web": _VALUES | {"core", "config", "logs", "metrics", "ports", "usecases", "store", "marketplace", "systemd"},
    "cli": _VALUES
    | {
        "core",
        "config",
        "logs",
        "marketplace",
        "metrics",
        "ports",
        "usecases",
        "store",
        "sandbox",
        "web",
        "textfile",
        "systemd",
        "scanner",
        "shipped",
    },
    "__main__": {"cli"},
}

# Each has a room in the store, which only the store's own __init__ may import.
ENGINES = {"sqlite", "postgresql"}
# Rooms within rooms: engines implement the ports, and know no use case.
INNER_ROOMS = {"usecases/ports": "ports"}

MOST_LINES = {"file": 500, "class": 300, "function": 60}
# To be split; nothing is added to these.
TOO_LARGE: set[str] = set()

# Each third-party package has one owner, a room or a part of one. The sandbox, which plays the other side, is a house
# of its own.
OWNERS = {
    "dotenv": {"config"},
    "httpcore": {"marketplace"},
    "httpx": {"marketplace"},
    "msgspec": {"config", "core", "marketplace", "model", "store", "usecases"},
    "prometheus_client": {"metrics"},
    "psycopg": {"store/postgresql"},
    "rich": {"cli"},
    "sqlite_utils": {"store/sqlite"},
    "starlette": {"web"},
    "tenacity": {"marketplace"},
    "typer": {"cli"},
    "uvicorn": {"web"},
    "websockets": {"marketplace"},
    "zstandard": {"marketplace", "store"},
}
SANDBOX_OWNS = {"starlette", "uvicorn", "websockets", "zstandard", "msgspec"}
# Of the standard library, what only one room may touch.
STANDARD_OWNERS = {"sqlite3": {"store/sqlite"}, "_sqlite3": {"store/sqlite"}}
# The only third-party and own modules that a CLI module may import at its top (decision 6).
CLI_TOP = {"typer", "atom_saas_sync", "atom_saas_sync.characters", "atom_saas_sync.errors", "atom_saas_sync.model"}


def modules() -> Iterator[tuple[str, Path]]:
    for path in paths():
        yield room_of(".".join(path.relative_to(ROOT.parent).with_suffix("").parts)), path


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            yield module
            if module == "atom_saas_sync":
                yield from (f"{module}.{alias.name}" for alias in node.names if alias.name != "__version__")


def room_of(module: str) -> str:
    parts = module.split(".")
    return INNER_ROOMS.get("/".join(parts[1:3])) or (parts[1] if len(parts) > 1 else "__init__")


def at_the_top(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the statements executed when the module is imported, without those for the type checker."""
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node


def test_ports_are_imported_only_for_the_type_checker() -> None:
    """Making their classes takes 25 ms, which no command needs."""
    wrong = [
        str(path.relative_to(ROOT))
        for room, path in modules()
        if room != "ports"
        for name in imported(at_the_top(tree_of(path)))
        if name.startswith("atom_saas_sync.usecases.ports")
    ]
    assert wrong == []


def test_every_room_is_in_the_table() -> None:
    assert {room for room, _ in modules()} <= set(MAY_IMPORT)


def test_rooms_enter_only_the_rooms_that_the_table_names() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for room, path in modules()
        for name in imported(nodes_of(path))
        if name.split(".")[0] == "atom_saas_sync" and room_of(name) not in MAY_IMPORT[room] | {room}
    ]
    assert wrong == []


def test_an_engine_is_entered_only_through_the_front_door() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for room, path in modules()
        for name in imported(nodes_of(path))
        if name.startswith("atom_saas_sync.store.")
        and name.split(".")[2] in ENGINES
        and path.relative_to(ROOT).parts[:2] not in {("store", name.split(".")[2]), ("store", "__init__.py")}
    ]
    assert wrong == []


@functools.cache
def imports_of_modules() -> dict[str, set[str]]:
    """Return, for each of our modules, which others it imports, anywhere in it; packages stand for their `__init__`."""
    names = {path: ".".join(path.relative_to(ROOT.parent).with_suffix("").parts) for path in paths()}
    ours = {name.removesuffix(".__init__"): path for path, name in names.items()}
    graph = {}
    for name, path in ours.items():
        found: set[str] = set()
        for node in nodes_of(path):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= inner if inner <= set(ours) else {node.module}
        graph[name] = found & set(ours) - {name}
    return graph


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = dict(imports_of_modules())
    while free := [name for name, others in graph.items() if not others & set(graph)]:
        for name in free:
            del graph[name]
    # What is left is in a circle, or imports what is.
    users = [name for name in graph if not any(name in others for others in graph.values())]
    while users:
        for name in users:
            del graph[name]
        users = [name for name in graph if not any(name in others for others in graph.values())]
    assert set(graph) == set()


def drawn_graph() -> str:
    """Draw which rooms import which, each a floor above those that it imports; without __init__."""
    rooms: dict[str, set[str]] = {}
    for name, others in imports_of_modules().items():
        inner = {room_of(other) for other in others} - {room_of(name), "__init__"}
        rooms.setdefault(room_of(name), set()).update(inner)
    rooms.pop("__init__")
    floors: dict[str, int] = {}
    while len(floors) < len(rooms):
        ready = [room for room, below in rooms.items() if room not in floors and below <= set(floors)]
        assert ready, "rooms import each other in a circle"
        floors |= {room: 1 + max((floors[other] for other in rooms[room]), default=-1) for room in ready}
    width = max(map(len, rooms))
    return "".join(
        f"{floors[room]}  {room:{width}}  {' '.join(sorted(rooms[room]))}".rstrip() + "\n"
        for room in sorted(rooms, key=lambda room: (-floors[room], room))
    )


def test_the_architecture_page_draws_the_import_graph() -> None:
    page = (ROOT.parent / "docs" / "ATOM_SAAS_SYNC_ARCHITECTURE.md").read_text(encoding="utf-8")
    drawn = page.partition("<!-- import graph -->\n```text\n")[2].partition("```")[0]
    assert drawn == drawn_graph()


def test_files_classes_and_functions_are_small() -> None:
    too_large = set()
    for _, path in modules():
        where = str(path.relative_to(ROOT))
        if len(text_of(path).splitlines()) > MOST_LINES["file"]:
            too_large.add(where)
        for node in nodes_of(path):
            kind = {ast.ClassDef: "class", ast.FunctionDef: "function", ast.AsyncFunctionDef: "function"}.get(
                type(node)
            )
            if kind and node.end_lineno - node.lineno + 1 > MOST_LINES[kind]:  # type: ignore[attr-defined]
                too_large.add(f"{where}: {node.name}")  # type: ignore[attr-defined]
    assert too_large - TOO_LARGE == set(), "split them by subject"
    assert TOO_LARGE - too_large == set(), "small by now: take them off the list"


def test_each_third_party_package_has_one_owner() -> None:
    wrong = []
    for room, path in modules():
        for name in imported(nodes_of(path)):
            package = name.split(".")[0]
            if package == "atom_saas_sync" or (package in sys.stdlib_module_names and package not in STANDARD_OWNERS):
                continue
            owners = OWNERS.get(package) or STANDARD_OWNERS.get(package, set())
            place = str(path.relative_to(ROOT).with_suffix(""))
            is_owner = any(f"{place}/".startswith(f"{owner}/") for owner in owners)
            if not is_owner and not (room == "sandbox" and package in SANDBOX_OWNS):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_command_modules_import_late() -> None:
    wrong = []
    late = {"progress.py", "comparison.py", "screen.py", "update_views.py"}  # themselves imported late
    for room, path in modules():
        if room != "cli" or path.name in late:
            continue
        for statement in at_the_top(tree_of(path)):
            for name in imported([statement]):
                ours_or_late = name.split(".")[0] not in sys.stdlib_module_names
                if ours_or_late and name not in CLI_TOP and not name.startswith(("typer.", "atom_saas_sync.cli")):
                    wrong.append(f"{path.relative_to(ROOT)} imports {name} at the top")
    assert wrong == []


def test_the_core_has_no_clock_no_chance_no_environment_and_no_log() -> None:
    forbidden = {"logging", "os", "random", "secrets", "socket", "subprocess", "time", "threading"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for room, path in modules()
        if room in {"core", "model"}
        for name in imported(nodes_of(path))
        if name.split(".")[0] in forbidden
    ]
    assert wrong == []


def test_only_the_settings_and_the_entry_point_read_the_environment() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for _, path in modules()
        for node in nodes_of(path)
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "environb"}
        if isinstance(node.value, ast.Name) and node.value.id == "os"
    }
    # The variables in marketplace/tls.py belong to OpenSSL: they are read where their libraries read them.
    assert readers <= {
        "logs.py",
        "cli/config.py",
        "cli/output.py",
        "cli/runtime.py",
        "marketplace/tls.py",
    }


# Other writers of `skill_data`, and why.
WRITE_SKILL_DATA = {
    "store/sqlite/served.py": "the one writer: a version in two forms, and figures",
    "store/postgresql/served.py": "likewise",
    "store/sqlite/skill_states.py": "the same text as UTF-8, where another program stored another encoding",
    "store/sqlite/digests.py": "a migration: the same JSON in our own spelling",
    "store/sqlite/adoption.py": "rows of the Atom backend's own database, taken over once",
    "store/postgresql/backend/rows.py": "likewise",
    "store/sqlite/maintenance.py": "reads only: it looks for texts that are not UTF-8",
}


def test_skill_data_has_one_writer() -> None:
    statement = re.compile(
        r"(?:UPDATE\s+skill_cache\b(?:(?!WHERE).)*\bskill_data\s*=)|(?:INTO\s+skill_cache\b)|"
        r"(?:'skill_cache',\s*'skill_data')",
        re.DOTALL | re.IGNORECASE,
    )
    found: dict[str, int] = {}
    for room, path in modules():
        if room == "store" and "skill_cache" in text_of(path):
            texts = [
                ast.unparse(node)
                for node in nodes_of(path)
                if isinstance(node, ast.Constant | ast.JoinedStr | ast.Tuple)
            ]
            number = sum(1 for text in set(texts) if statement.search(text))
            if number:
                found[str(path.relative_to(ROOT))] = number
    assert set(found) == set(WRITE_SKILL_DATA)
    assert found["store/sqlite/served.py"] == found["store/postgresql/served.py"] == 3


def test_tests_that_need_the_file_of_a_database_are_marked() -> None:
    # Else they fail on a server, where `make test` does not run them.
    for path in (ROOT.parent / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        if "soak" in path.parts or "machine.database_path" not in text or path == Path(__file__):
            continue
        tree = ast.parse(text)
        marks = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign)]
        if any("pytestmark" in each and "sqlite" in each for each in marks):
            continue
        for test in ast.walk(tree):
            if isinstance(test, ast.FunctionDef) and "machine.database_path" in ast.unparse(test):
                decorators = " ".join(map(ast.unparse, test.decorator_list))
                is_helper = not test.name.startswith("test_")
                assert is_helper or "mark.sqlite" in decorators, f"{path.name}: {test.name}"
