"""docs/FAULTS.md matches the behaviour: a part of it is regenerated and compared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rows(document: str) -> dict[tuple[str, str], str]:
    """Return the rows by section and first cell."""
    section, found = "", {}
    for line in document.splitlines():
        if line.startswith("## "):
            section = line
        elif line.startswith("| "):
            found[section, line.split(" | ", 1)[0]] = line
    return found


def test_the_table_of_faults_matches_the_behaviour() -> None:
    made = subprocess.run(
        [sys.executable, "-W", "error", str(Path(__file__).parent / "matrix.py"), "--quick"],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    written = rows((ROOT / "docs" / "FAULTS.md").read_text(encoding="utf-8"))
    again = rows(made.stdout)
    assert len(again) > 100
    different = {key: (line, written.get(key)) for key, line in again.items() if line != written.get(key)}
    assert different == {}, "run `make fault-matrix`, and look whether the change is meant"
