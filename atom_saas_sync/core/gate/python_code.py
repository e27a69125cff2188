"""Capabilities of Python code, from its syntax tree, whatever aliases it uses for imports."""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Iterator

from atom_saas_sync.core.gate.facts import Fact, fact

# Parsing takes microseconds per character, and far more memory than the text.
_LONGEST = 100_000

_PROCESSES = frozenset(
    {
        *(f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output", "Popen")),
        *("subprocess.getoutput", "subprocess.getstatusoutput", "os.system", "os.popen", "pty.spawn"),
        *("os.posix_spawn", "os.posix_spawnp", "os.startfile"),
        *(f"os.{kind}{way}" for kind in ("exec", "spawn") for way in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
        *("asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell"),
    }
)
_DYNAMIC = frozenset(
    {
        *("eval", "exec", "compile", "__import__", "importlib.import_module", "runpy.run_path", "runpy.run_module"),
        *("pickle.load", "pickle.loads", "marshal.load", "marshal.loads", "types.FunctionType", "ctypes.CDLL"),
    }
)
_READS_ENV = frozenset({"os.environ.get", "os.environ.pop", "os.environ.setdefault", "os.getenv", "os.environb.get"})
_FILES = frozenset(
    {
        *(
            "open",
            "io.open",
            "pathlib.Path",
            "os.open",
            "os.listdir",
            "os.scandir",
            "os.walk",
            "os.remove",
            "os.unlink",
        ),
        *(
            "os.unlink",
            "os.chmod",
            "os.rename",
            "os.makedirs",
            "shutil.rmtree",
            "shutil.copy",
            "shutil.copytree",
            "shutil.move",
        ),
    }
)
_CONNECTS = (
    "connect",
    "create_connection",
    "HTTPSConnection",
    "HTTPConnection",
    "SMTP",
    "SMTP_SSL",
    "FTP",
    "open_connection",
)


def python_facts(text: str) -> Iterator[Fact]:
    """Yield the facts found; none if the text is not Python or longer than 100,000 characters."""
    tree = _tree(text)
    if tree is None:
        return
    names = _imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from _packages(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from _packages([node.module])
        elif isinstance(node, ast.Call):
            yield from _call(node, _dotted(node.func, names))
        elif isinstance(node, ast.Subscript) and _dotted(node.value, names) in {"os.environ", "os.environb"}:
            key = _constant(node.slice)
            yield fact("env", key) if key else Fact("env", "*")


def _tree(text: str) -> ast.Module | None:
    if len(text) > _LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deep for the parser
        return None


def _imported_names(tree: ast.Module) -> dict[str, str]:
    """Return the full name of each imported alias."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    """Return the full dotted name of an expression; empty if it is not a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    first = names.get(node.id, node.id).removeprefix("builtins.")
    return ".".join([first, *reversed(parts)]).removeprefix("builtins.")


def _call(node: ast.Call, name: str) -> Iterator[Fact]:
    first = node.args[0] if node.args else None
    if name in _PROCESSES:
        words = (_constant(first) or "").split()
        yield fact("command", words[0] if words else name)
    elif name in _DYNAMIC and not (name == "importlib.import_module" and _constant(first)):
        yield fact("dynamic", name)
    elif name in _READS_ENV:
        key = _constant(first)
        yield fact("env", key) if key else Fact("env", "*")
    elif name in _FILES and _is_outside(path := _constant(first) or ""):
        yield fact("path", path)
    elif name.rpartition(".")[2] in _CONNECTS and (host := _constant(first)):
        yield fact("host", host)


def _is_outside(path: str) -> bool:
    """Tell whether a path leads out of the skill's own directory."""
    return path.startswith(("/", "~")) or ".." in path.split("/")


def _constant(node: ast.expr | None) -> str | None:
    """Return a literal string, or the first entry of a literal list or tuple."""
    while isinstance(node, ast.List | ast.Tuple) and node.elts:
        node = node.elts[0]
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _packages(modules: Iterator[str] | list[str]) -> Iterator[Fact]:
    for module in modules:
        package = module.partition(".")[0]
        if package not in sys.stdlib_module_names:
            yield fact("package", package)
