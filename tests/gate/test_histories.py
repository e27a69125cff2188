"""After any history of a marketplace, users and clocks, only admitted versions are served (histories.py)."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from histories import World

STEPS = 60


@pytest.mark.parametrize(
    ("admission", "scope"), [("open", "all"), ("age", "all"), ("age", "executable"), ("review", "all"), ("lock", "all")]
)
def test_every_served_version_was_admitted(tmp_path: Path, admission: Any, scope: Any) -> None:
    with closing(World(tmp_path, 1, admission=admission, scope=scope, kills=True)) as world:
        for _ in range(STEPS):
            world.step()
