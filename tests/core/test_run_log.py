"""The description of each run in a list."""

from __future__ import annotations

import pytest

from atom_saas_sync.core.run_log import summary


@pytest.mark.parametrize(
    ("kind", "counts", "words"),
    [
        ("skills", {"skills_synced": 60, "added": 1200, "updated": 0, "unchanged": 3}, "1,200 added, 3 unchanged"),
        ("ratings", {"uploaded": 2, "failed": 1, "requests": 3}, "2 uploaded, 1 failed"),
        ("purge", {"skills": 1, "categories": 2, "local": 0}, "1 skill removed, 2 categories removed"),
        ("backup", {"size_bytes": 17_100_000, "removed": 1}, "17.1 MB"),
        ("skills", {"added": "many", "updated": None}, ""),
    ],
)
def test_the_figures_of_a_run_in_one_line(kind: str, counts: dict[str, object], words: str) -> None:
    assert summary(kind, counts) == words
