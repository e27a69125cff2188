"""`skills verify` on data that another program has changed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from conftest import Machine

from atom_saas_sync.times import format_time

WAITS = """
    INSERT INTO skill_offer (skill_id, wire_digest, content_digest, exec_digest, version, kind, reason, first_seen_at,
        offered_at, confirmed_at, data)
    VALUES (?, x'', x'', x'', '2', ?, 'review', '2026-01-01', '2026-01-01', '2026-01-01', x'')
"""

QUARANTINE = """
    INSERT INTO gate_quarantine (skill_id, skill_data, content_digest, reason, served_source, at, by)
    VALUES (?, '{}', x'', 'quarantined', 'marketplace', '2026-01-01', 'ada')
"""


@pytest.fixture
def synced(machine: Machine) -> Machine:
    """Return a machine whose skills were confirmed just now."""
    machine.fill()
    machine.sql("UPDATE http_validator SET checked_at = ?", format_time(datetime.now(UTC)))
    return machine


def verified(machine: Machine, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
    result = machine.command("skills", "verify", "--json", *arguments)
    assert result.returncode == exit_code, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["success"] is (exit_code == 0)
    return found


def test_every_state(synced: Machine) -> None:
    ids = sorted(synced.sandbox.skill_ids())
    ok, edited, tampered, held, quarantined, revoked, stale, new = ids[:8]
    synced.edit(edited, code="mine")
    synced.unseen_sql(
        "UPDATE skill_cache SET skill_data = json_set(skill_data, '$.code', 'evil') WHERE skill_id = ?", tampered
    )
    synced.sql(WAITS, held, "hold")
    synced.sql(WAITS, ok, "refuse")
    synced.sql(WAITS, "never-served", "hold")
    synced.sql(QUARANTINE, quarantined)
    synced.sql("DELETE FROM skill_cache WHERE skill_id = ?", quarantined)
    revocation = (
        "INSERT INTO gate_revocation (skill_id, source, added_at, added_by) VALUES (?, 'command', '2026-01-01', 'a')"
    )
    synced.sql(revocation, revoked)
    synced.sql("UPDATE skill_base SET page = NULL, confirmed_at = '2026-01-01T00:00:00Z' WHERE skill_id = ?", stale)
    asked = [ok, edited, tampered, held, quarantined, revoked, stale, "never-served", "nowhere"]
    found = verified(synced, *asked, exit_code=4)
    assert {each["skill_id"]: each["state"] for each in found["skills"]} == dict(
        zip(
            asked,
            ["ok", "edited", "tampered", "held", "quarantined", "revoked", "stale", "unknown", "unknown"],
            strict=True,
        )
    )
    (row,) = verified(synced, new)["skills"]
    digests = synced.sql("SELECT content_digest, exec_digest, version FROM usable_skill WHERE skill_id = ?", new)
    assert [(row["content_digest"], row["exec_digest"], row["version"])] == [
        (f"sha256:{content}", f"sha256:{executable}", version) for content, executable, version in digests
    ]
    assert row["admitted_by"] == "policy"
    # All served skills with one state.
    found = verified(synced, "--state", "tampered", exit_code=4)
    assert ([each["skill_id"] for each in found["skills"]], found["total"]) == ([tampered], 1)
    assert found["states"] == {"ok": 54, "edited": 1, "tampered": 1, "held": 1, "revoked": 1, "stale": 1}
    screen = synced.command("skills", "verify").stdout
    assert "54 ok" in screen
    assert tampered in screen
    assert new not in screen


def test_an_edit_fails_if_it_is_strict(synced: Machine) -> None:
    edited = synced.sandbox.skill_ids()[0]
    synced.edit(edited, code="mine")
    assert verified(synced)["states"] == {"ok": 59, "edited": 1}
    verified(synced, "--strict", exit_code=4)
    assert synced.command("skills", "verify", "--state", "good").returncode == 2


def test_entries_of_the_revocations_file_count_at_once(synced: Machine) -> None:
    skill_id = synced.sandbox.skill_ids()[0]
    file = synced.directory / "revocations.json"
    file.write_text(json.dumps({"revocations": [{"id": skill_id}]}))
    result = synced.command("skills", "verify", skill_id, ATOM_SYNC_REVOCATIONS_FILE=str(file))
    assert (result.returncode, result.stdout.splitlines()[-1]) == (4, "1 skill verified: 1 revoked")
    file.write_text("{")
    result = synced.command("skills", "verify", skill_id, ATOM_SYNC_REVOCATIONS_FILE=str(file))
    assert result.returncode == 0
    assert "the last valid list of revocations counts" in result.stderr


def test_a_lock_file_reveals_drift(synced: Machine) -> None:
    kept, changed, gone = sorted(synced.sandbox.skill_ids())[:3]
    lock = synced.directory / "lock.json"
    assert synced.command("lock", "write", str(lock)).returncode == 0
    synced.edit(changed, code="mine")
    synced.sql("DELETE FROM skill_cache WHERE skill_id = ?", gone)
    found = verified(synced, "--lock", str(lock), exit_code=4)
    drift = [{"skill_id": changed, "kind": "different"}, {"skill_id": gone, "kind": "missing"}]
    assert found["drift"] == drift
    assert {each["skill_id"] for each in found["skills"] if each["drift"]} == {changed}
    assert verified(synced, kept, "--lock", str(lock))["drift"] == []


def test_without_a_database_there_is_nothing_to_verify(machine: Machine) -> None:
    assert machine.command("skills", "verify").returncode == 74


def test_showing_a_skill_says_what_the_gate_keeps_back(synced: Machine) -> None:
    held, quarantined = sorted(synced.sandbox.skill_ids())[:2]
    synced.sql(WAITS, held, "hold")
    synced.sql(WAITS, "never-served", "hold")
    synced.sql(QUARANTINE, quarantined)
    synced.sql("DELETE FROM skill_cache WHERE skill_id = ?", quarantined)
    result = synced.command("skills", "show", held)
    assert (result.returncode, f"atom-sync updates show {held}" in result.stderr) == (0, True)
    for skill_id, message in ((quarantined, "is in quarantine"), ("never-served", "its version waits to be admitted")):
        result = synced.command("skills", "show", skill_id)
        assert (result.returncode, message in result.stderr) == (1, True)
