"""The installed wheel: it is complete, and does not need this checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.soak

ROOT = Path(__file__).parent.parent.parent
INSTALL = {
    "pip": "python3 -m venv venv && venv/bin/pip install {wheel} && mkdir bin && ln -s ../venv/bin/atom-sync bin/",
    "uv": "UV_TOOL_DIR=tools UV_TOOL_BIN_DIR=bin uv tool install {wheel}",
    "pipx": "PIPX_HOME=home PIPX_BIN_DIR=bin pipx install {wheel}",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(directory), str(ROOT)]
    subprocess.run(command, capture_output=True, timeout=300, check=True)
    (built,) = directory.iterdir()
    return built


@pytest.mark.parametrize("tool", INSTALL)
def test_an_installed_wheel_hands_everything_out(tool: str, wheel: Path, tmp_path: Path) -> None:
    if shutil.which(tool) is None and tool != "pip":
        pytest.skip(f"there is no {tool} here")
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(INSTALL[tool].format(wheel=wheel))
    assert Path(run("type -p atom-sync").strip()).resolve().is_relative_to(tmp_path)
    names = {file["name"] for file in json.loads(run("atom-sync files list --json"))["files"]}
    run("atom-sync files write share")
    assert {str(path.relative_to(tmp_path / "share")) for path in (tmp_path / "share").rglob("*.*")} >= {
        name for name in names if "." in Path(name).name
    }
    dashboard = Path("monitoring") / "grafana" / "sync-dashboard.json"
    assert (tmp_path / "share" / dashboard).read_bytes() == (ROOT / dashboard).read_bytes()
    for shell in ("bash", "zsh", "fish"):
        assert "__complete" in run(f"atom-sync completion {shell}")
    if shutil.which("man") is not None:
        assert "Two-way sync" in run("man -M share/man atom-sync | cat").replace("\u2010", "-")
        assert "--dry-run" in run("man -M share/man atom-sync-sync-skills | cat")
