"""Changes that bypassed the triggers, and so count as the marketplace's, are found and repaired."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest
from conftest import Json, Machine

from atom_saas_sync.core.canonical import content_digest, exec_digest
from atom_saas_sync.core.incoming.messages import Message, parse_frame
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import Strategy
from atom_saas_sync.times import format_time
from atom_saas_sync.usecases.follow_events import EventFollower

S = "WHERE skill_id = 's'"
EVIL = "json_set(skill_data, '$.code', 'EVIL()')"


def behind_the_triggers(machine: Machine, statement: str) -> None:
    """Act as a program with the permissions of the group."""
    machine.unseen_sql(statement)


def code(machine: Machine) -> str:
    found: str = machine.sql("SELECT json_extract(skill_data, '$.code') FROM skill_cache WHERE skill_id = 's'")[0][0]
    return found


def quietly(machine: Machine) -> None:
    behind_the_triggers(machine, f"UPDATE skill_cache SET skill_data = {EVIL} WHERE skill_id = 's'")


def at_a_time(machine: Machine) -> None:
    now = machine.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    behind_the_triggers(
        machine, f"UPDATE skill_cache SET skill_data = {EVIL}, updated_at = '{now}' WHERE skill_id = 's'"
    )


def without_its_base(machine: Machine) -> None:
    machine.sql(f"UPDATE skill_cache SET skill_data = {EVIL} WHERE skill_id = 's'")
    machine.sql("UPDATE skill_base SET data = NULL")


def base_of_an_edit(machine: Machine) -> None:
    machine.edit("s", description="mine")
    machine.sql("UPDATE skill_base SET data = json_set(data, '$.code', 'EVIL()') WHERE skill_id = 's'")


def unreadable(machine: Machine) -> None:
    behind_the_triggers(machine, "UPDATE skill_cache SET skill_data = 'EVIL()' WHERE skill_id = 's'")


def told(machine: Machine, kind: str, data: Json, signer: Signer | None = None) -> None:
    """Apply a message, as `watch` does."""
    now = machine.clock.now()
    message = parse_frame(json.dumps({"type": kind, "data": data, "timestamp": format_time(now)}))
    assert isinstance(message, Message)
    with machine.store() as store:
        EventFollower(store.events(history_versions=10, signer=signer), strategy="remote_wins").apply([message], now)


@pytest.fixture
def synced(machine: Machine) -> Machine:
    machine.follow_clock()
    machine.sandbox.put_skill({"skill_id": "s", "name": "S", "version": "1", "code": "good()"}, push=False)
    machine.pull()
    return machine


@pytest.mark.parametrize("tamper", [quietly, at_a_time, without_its_base, base_of_an_edit, unreadable])
def test_a_foreign_change_that_counts_as_the_marketplace_s_is_found_and_put_right(
    synced: Machine, tamper: Callable[[Machine], None], caplog: pytest.LogCaptureFixture
) -> None:
    tamper(synced)
    checked = synced.command("db", "check", "--json")
    assert checked.returncode == 74
    findings = {each["check"]: each["message"] for each in json.loads(checked.stdout)["findings"]}
    assert "'s'" in findings["tampered"]
    found = json.loads(synced.command("doctor", "--json").stdout)
    assert "EVIL" not in json.dumps(found)
    assert [each["verdict"] for each in found["findings"] if each["check"] == "integrity"] == ["problem"]

    report = synced.pull(force=True)
    assert report.counts.tampered == 1
    assert "s was tampered with" in caplog.text
    if tamper is unreadable:  # without updating the index
        assert synced.command("db", "check", "--repair").returncode == 0
    assert synced.command("db", "check").returncode == 0
    base = "SELECT coalesce(b.data, c.skill_data) FROM skill_base AS b JOIN skill_cache AS c USING (skill_id)"
    assert [json.loads(text)["code"] for (text,) in synced.sql(f"{base} WHERE skill_id = 's'")] == ["good()"]
    assert synced.sql("SELECT count(*) FROM skill_version") == [(0,)]
    assert synced.pull(force=True).counts.tampered == 0
    assert json.loads(synced.command("status", "--json").stdout)["cache"]["tampered"] == 0


@pytest.mark.parametrize("edited", [False, True])
def test_a_forged_digest_holds_until_a_forced_sync(synced: Machine, edited: bool) -> None:
    column, table = ("data", "skill_base") if edited else ("skill_data", "skill_cache")
    if edited:
        synced.edit("s", description="mine")
    ((text,),) = synced.sql(f"SELECT {column} FROM {table} WHERE skill_id = 's'")
    fields = {**json.loads(text), "code": "EVIL()"}
    behind_the_triggers(synced, f"UPDATE {table} SET {column} = json_set({column}, '$.code', 'EVIL()') {S}")
    digests = ("content_digest = ?, exec_digest = ?", content_digest(fields), exec_digest(fields))
    synced.sql(f"UPDATE skill_base SET {digests[0]} {S}", *digests[1:])
    assert synced.command("db", "check").returncode == 0, "nobody can tell"
    synced.pull(force=True, strategy="local_wins")
    assert code(synced) == "good()"
    assert synced.sql(f"SELECT content_digest = ? FROM skill_base {S}", digests[1]) == [(0,)]


def test_an_ordinary_sync_reports_recently_tampered_rows(synced: Machine, caplog: pytest.LogCaptureFixture) -> None:
    at_a_time(synced)
    for _ in range(2):  # it stays known although nothing was written since
        synced.clock.move(minutes=15)
        assert synced.pull().counts.tampered == 1
        assert json.loads(synced.command("status", "--json").stdout)["cache"]["tampered"] == 1
    assert "atom_saas_tampered_skills 1.0" in synced.command("metrics").stdout
    assert "1 tampered" in synced.command("status").stdout
    assert [record.levelno for record in caplog.records if "tampered" in record.message] == [logging.ERROR] * 2
    synced.pull(force=True)
    assert "atom_saas_tampered_skills 0.0" in synced.command("metrics").stdout
    assert code(synced) == "good()"


def test_foreign_code_gets_into_no_history(synced: Machine) -> None:
    quietly(synced)
    synced.sandbox.patch_skill("s", {"version": "2"}, push=False)
    synced.pull()
    assert synced.sql("SELECT count(*) FROM skill_version") == [(0,)]
    assert "EVIL" not in synced.command("skills", "log", "s", "--json").stdout


@pytest.mark.parametrize("forced", [True, False])
def test_an_edit_whose_base_was_removed_is_not_lost(synced: Machine, *, forced: bool) -> None:
    synced.edit("s", code="mine()")
    synced.sql("UPDATE skill_base SET data = NULL")
    if not forced:
        synced.sandbox.patch_skill("s", {"code": "better()"}, push=False)
    assert synced.pull(force=forced, strategy="local_wins").counts.conflicts_resolved == 1
    assert code(synced) == ("good()" if forced else "better()")
    found = json.loads(synced.command("conflicts", "list", "--resolved", "--json").stdout)
    (logged,) = found["conflicts"]
    assert logged["resolution_strategy"] == "remote_wins"
    assert synced.command("conflicts", "undo", str(logged["id"])).returncode == 0
    assert code(synced) == "mine()"
    assert synced.command("db", "check").returncode == 0
    listed = json.loads(synced.command("skills", "show", "s", "--json").stdout)
    assert listed["source"] == ("edited" if forced else "local")


def test_an_edit_whose_base_was_removed_is_not_lost_with_the_skill(synced: Machine) -> None:
    synced.edit("s", code="mine()")
    synced.sql("UPDATE skill_base SET data = NULL")
    synced.sandbox.delete_skill("s", push=False)
    synced.pull()
    assert synced.sql("SELECT count(*) FROM skill_cache WHERE skill_id = 's'") == [(0,)]
    ((text,),) = synced.sql("SELECT local_data FROM conflict_log WHERE resolved = TRUE")
    assert json.loads(text)["code"] == "mine()"


@pytest.mark.parametrize("kind", ["skill_update", "rating_update"])
def test_no_message_makes_foreign_code_the_marketplace_s(synced: Machine, kind: str) -> None:
    quietly(synced)
    told(synced, kind, {"skill_id": "s", "name": "S", "average_rating": 4.5, "rating": 4})
    assert "tampered" in synced.command("db", "check").stdout
    synced.pull(force=True)
    told(synced, kind, {"skill_id": "s", "name": "S", "average_rating": 4.5, "rating": 4})
    assert synced.cached()["s"]["average_rating"] == 4.5
    assert synced.command("db", "check").returncode == 0


def test_actions_of_users_and_ratings_are_not_tampering(synced: Machine) -> None:
    synced.edit("s", description="mine")
    assert synced.command("ratings", "add", "s", "4").returncode == 0
    assert synced.command("sync", "ratings").returncode == 0
    assert synced.pull(force=True).counts.tampered == 0
    assert synced.command("db", "check").returncode == 0
    assert code(synced) == "good()"


def deleted(machine: Machine) -> None:
    machine.sql("DELETE FROM skill_cache WHERE skill_id = 's'")
    machine.sql("UPDATE skill_base SET data = json_set(data, '$.code', 'EVIL()') WHERE skill_id = 's'")


@pytest.mark.parametrize("tamper", [deleted, base_of_an_edit])
@pytest.mark.parametrize("strategy", ["remote_wins", "merge", "local_wins"])
def test_no_sync_takes_a_foreign_base_for_the_marketplace_s(
    synced: Machine, tamper: Callable[[Machine], None], strategy: Strategy, caplog: pytest.LogCaptureFixture
) -> None:
    tamper(synced)
    for _ in range(2):
        synced.clock.move(minutes=15)
        assert synced.pull(strategy=strategy).counts.tampered == 1
    assert "s was tampered with" in caplog.text
    assert synced.sql("SELECT count(*) FROM skill_cache WHERE skill_data LIKE '%EVIL%'") == [(0,)]
    assert synced.sql("SELECT count(*) FROM conflict_log") == [(0,)]
    assert synced.command("db", "check").returncode == 74
    synced.pull(force=True, strategy=strategy)
    assert code(synced) == "good()"
    assert synced.command("db", "check").returncode == 0


def test_a_base_that_becomes_foreign_during_a_sync_is_not_taken_either(synced: Machine) -> None:
    synced.edit("s", description="mine")
    pages = iter((base_of_an_edit, *(lambda _: None,) * 100))
    synced.pull(check=lambda: next(pages)(synced))
    assert synced.sql("SELECT count(*) FROM skill_cache WHERE skill_data LIKE '%EVIL%'") == [(0,)]
    synced.clock.move(minutes=15)
    assert synced.pull().counts.tampered == 1


def test_revert_never_restores_a_foreign_base(synced: Machine) -> None:
    base_of_an_edit(synced)
    refused = synced.command("skills", "revert", "s")
    assert (refused.returncode, code(synced)) == (74, "good()")
    assert "sync skills --force" in refused.stderr
    synced.pull(force=True)
    assert synced.command("skills", "revert", "s").returncode == 0
    assert json.loads(synced.command("skills", "show", "s", "--json").stdout)["source"] == "marketplace"


def test_no_resolution_is_undone_onto_a_foreign_text(synced: Machine) -> None:
    synced.edit("s", code="mine()")
    synced.sandbox.patch_skill("s", {"code": "better()"}, push=False)
    synced.pull(strategy="remote_wins")
    quietly(synced)
    refused = synced.command("conflicts", "undo", "1")
    assert refused.returncode == 74 and "sync skills --force" in refused.stderr
    synced.pull(force=True)
    assert synced.command("conflicts", "undo", "1").returncode == 0
    assert code(synced) == "mine()"
