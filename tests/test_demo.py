"""A demo that is interrupted, and shell completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from loaded_command import start_command

# The whole tour is in test_package.py; here, only the first sync and `watch`.
SHORT = """
from atom_saas_sync.cli import demo
whole = demo._Show.run
ran = []
def run(self, why, *arguments):
    if not ran:
        ran.append(why)
        whole(self, why, *arguments)
demo._Show.run = run
demo._Show.held_update = lambda *_: None
"""


def test_a_stopped_demo_leaves_nothing_running(tmp_path: Path) -> None:
    demo = start_command(
        *("demo", "--skills", "50"),
        environment={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)},
        directory=tmp_path,
        first=SHORT,
    )
    assert demo.stdout is not None and demo.stderr is not None
    while "connected to" not in (line := demo.stderr.readline()):
        assert line, "it ended too early"
    demo.terminate()
    demo.stdout.read()  # ends when `watch`, which has the same output, has ended
    demo.stderr.read()
    assert demo.wait(60) == 143
    demo.close()


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
