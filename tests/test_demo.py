"""The demo, as a newcomer runs it, and shell completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def _run(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "atom_saas_sync", *arguments],
        env={"PATH": os.environ["PATH"], "TMPDIR": str(directory), **variables},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_demo_does_the_main_job_and_says_what_to_type_next(tmp_path: Path) -> None:
    # A real token in the environment must not reach the sandbox.
    result = _run(tmp_path, "demo", "--skills", "50", ATOM_SAAS_API_TOKEN="at_saas_of_production")
    assert result.returncode == 0, result.stderr
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


def test_a_demo_that_is_told_to_stop_leaves_nothing_running(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "atom_saas_sync", "demo", "--skills", "50"],
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with demo:
        assert demo.stdout is not None
        while "connected to" not in (line := demo.stdout.readline()):
            assert line, "it ended too early"
        demo.terminate()
        demo.stdout.read()  # ends when `watch`, which has the same output, has ended
        assert demo.wait(60) == 143


def test_bash_completion(tmp_path: Path) -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("atom-sync")],
        env={
            "PATH": os.environ["PATH"],
            "_ATOM_SYNC_COMPLETE": "complete_bash",
            "COMP_WORDS": "atom-sync sync ",
            "COMP_CWORD": "2",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert {"skills", "categories"} <= set(result.stdout.split())
