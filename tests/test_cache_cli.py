"""The life of the cache: expiry, stale-if-error, strict mode, purge (docs/CONFLICTS.md)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from conftest import Json, Machine, on_a_terminal

from atom_saas_sync.model import PurgePlan
from atom_saas_sync.store.sqlite.conflict_log import RESOLVED_CONFLICTS_KEPT
from atom_saas_sync.times import format_time
from atom_saas_sync.usecases.purge_cache import Purged, PurgeOptions, purge_cache

NOTHING = PurgePlan((), (), 0, 0)


def purge(machine: Machine, **options: object) -> Purged:
    """Purge at the machine's made-up time."""
    with machine.store() as store:
        return purge_cache(
            store.lifetime(),
            PurgeOptions(**options),  # type: ignore[arg-type]
            actor="alice",
            now=machine.clock.now(),
        )


def expired(machine: Machine) -> int:
    with machine.store() as store:
        return store.figures().statistics(machine.clock.now()).expired


@pytest.fixture
def edited(machine: Machine) -> list[str]:
    """Return a skill that was edited here, and one that exists only here, in a synced cache."""
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    machine.edit(skill_id, description="mine")
    machine.sql(
        """INSERT INTO skill_cache (skill_id, skill_data) VALUES ('ours', '{"skill_id": "ours", "name": "O"}')"""
    )
    return [skill_id, "ours"]


def test_the_marketplace_away_for_30_hours_and_back(machine: Machine, edited: list[str]) -> None:
    machine.sandbox.fault("error", status=503)
    before, synced_at = machine.cached(), machine.clock.now()
    for _ in range(15):
        machine.clock.move(hours=2)
        assert machine.pull().status == "failed"
    assert expired(machine) == 59
    for dry_run in (True, False):
        purged = purge(machine, dry_run=dry_run)
        assert purged.removed == NOTHING
        assert purged.kept_stale is not None
        assert len(purged.kept_stale.skills) == 59
        assert purged.reached_at == synced_at
    assert machine.cached() == before
    status = machine.status(machine.clock.now(), per_minute=100, per_hour=1000)
    assert status.expired_skills == 59

    machine.sandbox.clear_faults()
    assert machine.pull().status == "success"
    assert expired(machine) == 0
    assert purge(machine) == Purged(PurgePlan((), (), 0, 0), reached_at=machine.clock.now())
    assert machine.cached() == before


def test_an_answer_that_is_not_the_contract_does_not_count_as_reached(machine: Machine) -> None:
    machine.fill()
    machine.sandbox.token = "at_saas_another"
    machine.clock.move(hours=30)
    assert machine.pull(token="at_saas_sandbox").exit_code == 77
    assert purge(machine).kept_stale is not None
    machine.sandbox.token = "at_saas_sandbox"


def test_strict_mode_removes_and_spares_local_edits(machine: Machine, edited: list[str]) -> None:
    machine.clock.move(hours=30)
    purged = purge(machine, strict=True)
    assert (len(purged.removed.skills), purged.kept_stale) == (59, None)
    assert set(machine.cached()) == set(edited)
    assert machine.sql("SELECT count(*) FROM category_cache") == [(0,)]
    # Everything comes back, and the edits are unchanged.
    report = machine.pull()
    assert (report.status, report.counts.added) == ("success", 59)
    assert len(machine.cached()) == 61
    assert machine.cached()[edited[0]]["description"] == "mine"
    assert "ours" in machine.found("o")


def test_skills_that_are_no_longer_confirmed_expire(machine: Machine) -> None:
    machine.pull(page_size=10)
    machine.clock.move(hours=30)
    # The marketplace is there, but one page of the list is not.
    machine.sandbox.fault("error", endpoint="list", page=3, status=500)
    machine.pull(page_size=10)
    assert expired(machine) == 10
    purged = purge(machine)
    assert len(purged.removed.skills) == 10
    assert len(machine.cached()) == 50
    machine.sandbox.clear_faults()
    machine.pull(page_size=10)
    assert machine.cached() == machine.listed()


def test_a_304_confirms(machine: Machine) -> None:
    machine.fill()
    for _ in range(10):
        machine.clock.move(hours=13)
        machine.pull()
        assert expired(machine) == 0
        assert purge(machine).removed == NOTHING


def test_entries_expired_by_another_program_are_purged(machine: Machine) -> None:
    machine.fill()
    machine.sql(
        "UPDATE skill_cache SET expires_at = '2020-01-01T00:00:00Z' WHERE skill_id = ?", machine.sandbox.skill_ids()[0]
    )
    assert expired(machine) == 1
    assert purge(machine).removed.skills == (machine.sandbox.skill_ids()[0],)
    machine.pull()
    assert machine.cached() == machine.listed()


def test_older_than(machine: Machine) -> None:
    machine.fill()
    machine.clock.move(hours=2)
    assert purge(machine, older_than=timedelta(hours=3)).removed == NOTHING
    assert len(purge(machine, older_than=timedelta(hours=1)).removed.skills) == 60


def test_everything_with_and_without_local_edits(machine: Machine, edited: list[str]) -> None:
    machine.sandbox.patch_skill(edited[0], {"description": "theirs"})
    machine.pull(strategy="manual")
    purged = purge(machine, everything=True)
    assert (len(purged.removed.skills), purged.removed.protected) == (59, 2)
    purged = purge(machine, everything=True, include_local=True)
    assert (set(purged.removed.skills), purged.removed.local) == (set(edited), 2)
    assert machine.cached() == {}
    # The conflict is closed, and its local side is still in the log.
    row = machine.sql("SELECT resolved, resolution_strategy, resolved_by, local_data FROM conflict_log")[0]
    assert row[:3] == (1, "purged", "alice")
    assert json.loads(row[3])["description"] == "mine"
    assert machine.pull().counts.added == 60
    assert machine.cached() == machine.listed()


# The commands; their clock is the real one.


def _copies(machine: Machine) -> dict[str, str]:
    rows = machine.sql("SELECT subject, details FROM audit_log WHERE action = 'cache purge' AND subject <> ''")
    texts = {skill_id: json.loads(details)["skill_data"] for skill_id, details in rows}
    return {skill_id: json.loads(text).get("description") for skill_id, text in texts.items()}


@pytest.mark.parametrize("words", [[], ["--json"], ["-q"]])
def test_local_edits_are_not_purged_without_a_terminal_to_ask(
    machine: Machine, edited: list[str], words: list[str]
) -> None:
    before = machine.cached()
    refused = machine.command("cache", "purge", "--all", "--include-local", *words)
    assert refused.returncode == 2
    assert "2 local edits would be lost" in refused.stderr
    assert "  ours  O\n" in refused.stderr or words == ["-q"]
    assert machine.cached() == before
    assert _copies(machine) == {}


def test_with_yes_local_edits_go_and_the_audit_log_keeps_them(machine: Machine, edited: list[str]) -> None:
    done = run_json(machine, "cache", "purge", "--all", "--include-local", "--yes")
    assert (done["skills"], done["local"]) == (61, 2)
    assert machine.cached() == {}
    assert _copies(machine)[edited[0]] == "mine"
    assert len(_copies(machine)) == 2
    # Without a loss there is no question.
    assert run_json(machine, "cache", "purge", "--all", "--include-local")["skills"] == 0


@pytest.mark.parametrize(("reply", "kept"), [("n", True), ("y", False)])
def test_on_a_terminal_local_edits_are_listed_before_they_go(
    machine: Machine, edited: list[str], reply: str, kept: bool
) -> None:
    words = ["cache", "purge", "--all", "--include-local"]
    shown = on_a_terminal(machine, words, [("[y/N]", reply)], exit_code=1 if kept else 0)
    assert "2 local edits would be lost" in shown
    assert f"  {edited[0]}  {machine.sandbox.skill(edited[0])['name']}" in shown
    assert (edited[0] in machine.cached()) is kept


def test_an_edit_made_after_the_question_stays(machine: Machine, edited: list[str]) -> None:
    purged = purge(machine, everything=True, include_local=True, confirmed=frozenset({edited[0]}))
    assert purged.removed.local_ids == (edited[0],)
    assert machine.cached().keys() == {"ours"}


def run_json(machine: Machine, *arguments: str, **variables: str) -> Json:
    result = machine.command(*arguments, "--json", **variables)
    assert result.returncode == 0, result.stderr
    document: Json = json.loads(result.stdout)
    return document


def test_stats(machine: Machine, edited: list[str]) -> None:
    machine.clock.moment = datetime.now(UTC)
    machine.pull(force=True)
    machine.command("skills", "show", edited[0])
    machine.command("skills", "show", "nothing")
    document = run_json(machine, "cache", "stats")
    assert (document["skills"], document["edited"], document["only_here"]) == (61, 1, 1)
    assert (document["stale"], document["expired"], document["categories_expired"]) == (0, 0, 0)
    assert document["requests"] == {"hit": 1, "miss": 1, "stale": 0}
    assert document["hit_rate"] == 0.5
    assert document["size_bytes"] > 10_000
    assert document["oldest_age_seconds"] < 600
    text = machine.command("cache", "stats").stdout
    assert "61 (1 edited here, 1 only here)" in text
    assert "50.0% (1 hit, 0 stale, 1 miss)" in text


def test_an_empty_cache_has_stats_too(machine: Machine) -> None:
    assert machine.command("db", "upgrade").returncode == 0
    document = run_json(machine, "cache", "stats")
    assert (document["skills"], document["hit_rate"], document["oldest_confirmed_at"]) == (0, None, None)
    assert run_json(machine, "cache", "purge")["reason"] == "stale_if_error"


def age(machine: Machine, hours: float) -> None:
    """Set the last confirmations and the last contact with the marketplace back by this much."""
    moment = datetime.now(UTC) - timedelta(hours=hours)
    for statement in (
        "UPDATE skill_base SET confirmed_at = ?",
        "UPDATE http_validator SET checked_at = ?",
        "UPDATE fact SET value = ? WHERE name = 'marketplace_reached_at'",
    ):
        machine.sql(statement, format_time(moment))
    for table in ("skill_cache", "category_cache"):
        machine.sql(f"UPDATE {table} SET expires_at = ?", format_time(moment + timedelta(hours=24)))


def test_purge_says_why_it_keeps_and_strict_mode_does_not(machine: Machine) -> None:
    machine.fill()
    age(machine, 30)
    document = run_json(machine, "cache", "purge")
    assert (document["skills"], document["kept_stale"], document["reason"]) == (0, 84, "stale_if_error")
    text = machine.command("cache", "purge").stdout
    assert "has not been reached since" in text
    assert "served as stale" in text
    listed = run_json(machine, "skills", "list", "--limit", "1")["skills"][0]
    assert listed["stale"] is True
    dry = run_json(machine, "cache", "purge", "--dry-run", ATOM_SAAS_CACHE_STRICT_TTL="true")
    assert (dry["skills"], len(dry["skill_ids"]), len(machine.cached())) == (60, 60, 60)
    lines = machine.command("cache", "purge", "--dry-run", ATOM_SAAS_CACHE_STRICT_TTL="true").stdout.splitlines()
    first = dry["skill_ids"][0]
    assert lines[1] == f"  {first}  {machine.cached()[first]['name']}"
    assert run_json(machine, "cache", "purge", ATOM_SAAS_CACHE_STRICT_TTL="true")["skills"] == 60
    assert machine.cached() == {}
    assert machine.sql("SELECT action FROM audit_log") == [("cache purge",)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--older-than", "yesterday"), "36h"),
        (("--all", "--older-than", "1h"), "exclude"),
        (("--include-local",), "--all"),
    ],
)
def test_wrong_words(machine: Machine, arguments: tuple[str, ...], says: str) -> None:
    result = machine.command("cache", "purge", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert says in result.stderr


def test_logs_are_kept_for_a_time_and_open_conflicts_forever(machine: Machine, edited: list[str]) -> None:
    def log(*columns: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in machine.sql(f"SELECT {', '.join(columns)} FROM conflict_log ORDER BY id")]

    skill_id = edited[0]
    insert = (
        "INSERT INTO conflict_log (skill_id, conflict_type, severity, local_data, remote_data, resolved, resolved_at, "
        "resolution_strategy, resolved_by, created_at) VALUES (?, 'OTHER', 'LOW', '{}', '{}', ?, ?, ?, ?, ?)"
    )
    for days in (89, 91):
        moment = format_time(machine.clock.now() - timedelta(days=days))
        machine.sql(insert, skill_id, True, moment, "merge", "sync", moment)
    old = format_time(machine.clock.now() - timedelta(days=1000))
    machine.sql(insert, skill_id, False, None, None, None, old)
    machine.sql("INSERT INTO audit_log (at, actor, action, subject) VALUES (?, 'a', 'old', '')", old)
    before = log("resolved", "created_at")
    purge(machine, dry_run=True)
    assert log("resolved", "created_at") == before
    purge(machine)
    assert log("resolved", "created_at") == [before[0], before[2]]
    assert machine.sql("SELECT count(*) FROM audit_log WHERE action = 'old'")[0][0] == 0


def test_one_skill_cannot_fill_the_conflict_log(machine: Machine, edited: list[str]) -> None:
    skill_id = edited[0]
    for number in range(RESOLVED_CONFLICTS_KEPT + 5):
        machine.sandbox.patch_skill(skill_id, {"description": f"text {number}"}, push=False)
        machine.pull(strategy="local_wins")
    texts = [row[0] for row in machine.sql("SELECT remote_data FROM conflict_log WHERE skill_id = ?", skill_id)]
    assert len(texts) == RESOLVED_CONFLICTS_KEPT
    assert f"text {RESOLVED_CONFLICTS_KEPT + 4}" in texts[-1]
