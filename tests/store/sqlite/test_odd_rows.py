"""A row with a wrong type or encoding, which another program may write, affects only that skill."""

from __future__ import annotations

import json

import pytest
from conftest import Machine

from atom_saas_sync.model import Health
from atom_saas_sync.store.sqlite.status import read_status
from atom_saas_sync.web.page import status_page

ODD = {
    "bytes": "UPDATE skill_cache SET skill_data = CAST(skill_data AS BLOB) WHERE skill_id = 's1'",
    "edited bytes": "UPDATE skill_cache SET skill_data = CAST(replace(skill_data, 'one', 'uno') AS BLOB) "
    "WHERE skill_id = 's1'",
    "not UTF-8": "UPDATE skill_cache SET skill_data = CAST(x'7b22ff227d' AS TEXT) WHERE skill_id = 's1'",
    "half a character": """UPDATE skill_cache SET skill_data = '{"name": "\\ud800"}' WHERE skill_id = 's1'""",
    "UTF-16": "UPDATE skill_cache SET skill_data = CAST(x'fffe7b007d00' AS TEXT) WHERE skill_id = 's1'",
}


@pytest.fixture
def three(machine: Machine) -> Machine:
    for name in ("s1", "s7", "s9"):
        machine.sandbox.put_skill({"skill_id": name, "name": f"one {name}", "version": "1.0.0"}, push=False)
    machine.pull()
    return machine


@pytest.mark.parametrize("statement", ODD.values(), ids=ODD)
def test_an_odd_row_freezes_no_other_skill(three: Machine, statement: str) -> None:
    three.sql(statement)
    found = three.command("db", "check", "--json")
    if "ud800" not in statement:
        assert found.returncode == 74
        assert "s1" in json.loads(found.stdout)["findings"][0]["message"]
    for words in (("skills", "list", "--limit", "1000"), ("skills", "show", "s1"), ("status",)):
        shown = three.command(*words)
        assert shown.returncode == 0, (words, shown.stderr)

    three.sandbox.patch_skill("s7", {"version": "2.0.0"}, push=False)
    three.sandbox.patch_skill("s1", {"version": "2.0.0"}, push=False)
    three.sandbox.delete_skill("s9", push=False)
    report = three.pull()
    assert (report.status, report.counts.deleted) == ("success", 1)
    versions = three.sql("SELECT skill_id, version, source FROM usable_skill WHERE skill_id LIKE 's_' ORDER BY 1")
    assert versions == [("s1", "2.0.0", "marketplace"), ("s7", "2.0.0", "marketplace")]
    assert three.command("db", "check").returncode == 0
    assert three.sql("SELECT DISTINCT typeof(skill_data) FROM skill_cache") == [("text",)]


@pytest.mark.parametrize("statement", ODD.values(), ids=ODD)
def test_an_odd_row_can_be_reverted(three: Machine, statement: str) -> None:
    three.sql(statement)
    assert three.command("skills", "revert", "s1").returncode == 0
    assert three.sql("SELECT version, source FROM usable_skill WHERE skill_id = 's1'") == [("1.0.0", "marketplace")]
    assert three.command("db", "check").returncode == 0


def test_odd_rows_elsewhere_do_not_affect_status_and_metrics(three: Machine) -> None:
    for statement in (
        "INSERT OR REPLACE INTO fact VALUES ('rate_limit', '{}', ''), ('clock_skew_seconds', 'nan', '')",
        "INSERT INTO counter VALUES ('atom_saas_sync_items_total', 'no JSON', 1), ('x', x'ff', 1)",
        "UPDATE sync_run SET reasons = '{', counts = x'ff'",
        "INSERT INTO sync_run (kind, started_at, status, started_by, pid) VALUES (x'3c62', x'ff', '', '', 1)",
        "UPDATE sync_run SET reasons = 7 WHERE pid = 1",
        "UPDATE sync_run SET duration_seconds = 'long'",
        "INSERT INTO skill_rating (skill_id, user_id, rating, review) VALUES ('s1', x'ff41', 3, x'ff')",
    ):
        three.sql(statement)
    for words in (("status",), ("status", "--json"), ("metrics",), ("ratings", "list"), ("ratings", "list", "--json")):
        result = three.command(*words)
        assert (result.returncode, result.stderr.removesuffix("1 rating\n")) == (0, ""), words
    now = three.clock.now()
    status = read_status(
        three.database_path, now=now, per_minute=1, per_hour=1, admission="open", admission_scope="all"
    )
    assert "&lt;b" in status_page(status, Health(()), now)
