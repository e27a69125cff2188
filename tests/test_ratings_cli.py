"""The real `ratings` and `sync ratings` commands for users and scripts."""

from __future__ import annotations

import json
import subprocess

import pytest
from conftest import Json, Machine

KEYS = {
    "success", "run_id", "status", "uploaded", "updated_local", "failed", "skipped", "pending", "duration_seconds",
    "error",
}  # fmt: skip


@pytest.fixture
def skill(machine: Machine) -> str:
    """Return a cached skill."""
    machine.pull()
    machine.sandbox.set_clock_offset(0)
    return machine.sandbox.skill_ids()[0]


def document(result: subprocess.CompletedProcess[str], exit_code: int = 0) -> Json:
    assert result.returncode == exit_code, result.stderr
    assert "Traceback" not in result.stderr
    found: Json = json.loads(result.stdout)
    return found


def test_the_life_of_a_rating(machine: Machine, skill: str) -> None:
    added = document(machine.command("ratings", "add", skill, "4", "--comment", "fine", "--user", "ann", "--json"))
    assert (added["rating"]["state"], added["rating"]["rating"], added["rating"]["comment"]) == ("pending", 4, "fine")
    assert document(machine.command("status", "--json"))["ratings"] == {"pending": 1, "synced": 0, "failed": 0}
    synced = document(machine.command("sync", "ratings", "--json"))
    assert synced.keys() == KEYS
    assert (synced["success"], synced["status"], synced["uploaded"], synced["pending"]) == (True, "success", 1, 0)
    changed = document(machine.command("ratings", "add", skill, "5", "--user", "ann", "--json"))
    assert (changed["rating"]["state"], changed["rating"]["comment"]) == ("pending", "fine")
    assert machine.command("sync", "ratings").stdout.startswith("Ratings synchronised: 1 sent in ")
    [there] = machine.sandbox.ratings()
    assert (there["rating"], there["comment"]) == (5, "fine")
    listed = document(machine.command("ratings", "list", "--json"))
    assert (listed["total"], listed["ratings"][0]["remote_rating_id"]) == (1, there["rating_id"])
    assert "state: sent" in machine.command("ratings", "show", "1").stdout
    assert document(machine.command("status", "--json"))["ratings"] == {"pending": 0, "synced": 1, "failed": 0}


def test_only_what_was_never_sent_is_deleted(machine: Machine, skill: str) -> None:
    for user in ("ann", "bob", "cid"):
        document(machine.command("ratings", "add", skill, "4", "--user", user, "--json"))
    machine.sql("UPDATE skill_rating SET synced_to_saas = TRUE, remote_rating_id = 'r-1' WHERE user_id = 'ann'")
    machine.sql("UPDATE skill_rating SET rating = 5 WHERE user_id = 'ann'")  # pending again, and sent before
    machine.sql(
        "INSERT INTO failed_rating_upload (rating_id, error_message, failed_at) VALUES ('2', 'no', '2026-01-01')"
    )
    for ids, says in ((["2", "1"], "rating 1 was sent"), (["2", "9"], "no rating 9")):
        refused = machine.command("ratings", "delete", *ids)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert says in refused.stderr
    with machine.running("ratings"):
        assert machine.command("ratings", "delete", "2").returncode == 75
    assert document(machine.command("ratings", "delete", "2", "3", "--json"))["deleted"] == ["2", "3"]
    assert document(machine.command("status", "--json"))["ratings"] == {"pending": 1, "synced": 0, "failed": 0}
    kept = machine.sql("SELECT details FROM audit_log WHERE action = 'ratings delete' AND subject = '2'")[0][0]
    assert json.loads(kept)["user_id"] == "bob"


def test_a_replaced_rating_is_kept_and_can_be_restored(machine: Machine, skill: str) -> None:
    document(machine.command("ratings", "add", skill, "1", "--comment", "it steals tokens", "--user", "ann", "--json"))
    assert document(machine.command("ratings", "show", "1", "--json"))["rating"]["replaced"] is None
    machine.sql("UPDATE skill_rating SET updated_at = '2026-01-01T00:00:00Z', rating = 2")
    for stars, comment in ((5, "great"), (4, "good")):  # the marketplace's rating is not kept
        machine.sandbox.add_rating(skill, "ann", stars, comment)
        synced = machine.command("-v", "sync", "ratings", "--json")
        assert document(synced)["updated_local"] == 1
        assert "ratings restore 1" in synced.stderr and "steals" not in synced.stderr
    shown = document(machine.command("ratings", "show", "1", "--json"))["rating"]
    assert (shown["rating"], shown["comment"], shown["state"]) == (4, "good", "sent")
    kept = shown["replaced"]
    assert (kept["rating"], kept["comment"], kept["updated_at"]) == (2, "it steals tokens", "2026-01-01T00:00:00Z")
    assert kept.keys() == {"rating", "comment", "updated_at", "replaced_at"}
    words = machine.command("ratings", "show", "1").stdout
    assert "it steals tokens" in words and "ratings restore 1" in words

    restored = document(machine.command("ratings", "restore", "1", "--json"))["rating"]
    assert (restored["rating"], restored["comment"], restored["state"]) == (2, "it steals tokens", "pending")
    assert restored["replaced"] is None
    assert document(machine.command("sync", "ratings", "--json"))["uploaded"] == 1
    [there] = machine.sandbox.ratings()
    assert (there["rating"], there["comment"]) == (2, "it steals tokens")
    assert machine.sql("SELECT action, subject FROM audit_log") == [("ratings restore", "1")]
    for number, words in (("1", "nothing was replaced"), ("9", "no rating 9")):
        refused = machine.command("ratings", "restore", number)
        assert refused.returncode == 1 and words in refused.stderr and "Traceback" not in refused.stderr


def test_failed_ones_are_shown_and_tried_again(machine: Machine, skill: str) -> None:
    machine.sandbox.fault("error", endpoint="ratings", status=422)
    document(machine.command("ratings", "add", skill, "4", "--comment", "secret words", "--json"))
    synced = machine.command("--log-level", "debug", "sync", "ratings", "--json")
    failed_run = document(synced, 1)
    assert (failed_run["success"], failed_run["failed"], failed_run["error"]["type"]) == (False, 1, "api_error")
    assert "secret words" not in synced.stderr
    failed = document(machine.command("ratings", "failed", "--json"))
    assert (failed["total"], failed["failed"][0]["rating_id"], failed["failed"][0]["next_retry_at"]) == (1, "1", None)
    assert "waits for you" in machine.command("ratings", "failed").stdout
    machine.sandbox.clear_faults()
    assert document(machine.command("sync", "ratings", "--json"))["uploaded"] == 0
    assert document(machine.command("ratings", "retry", "1", "--json")) == {
        "success": True,
        "retried": ["1"],
        "total": 1,
    }
    assert machine.sql("SELECT action, subject FROM audit_log") == [("ratings retry", "1")]
    assert document(machine.command("sync", "ratings", "--json"))["uploaded"] == 1
    assert machine.command("ratings", "retry", "1").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("0",), "1 to 5"),
        (("six",), "1 to 5"),
        (("4.5",), "1 to 5"),
        (("4", "--comment", "x" * 1001), "1001 characters"),
        (("4", "--comment", "a\x1b[31mb"), "control characters"),
        (("4", "--user", ""), "user id is empty"),
    ],
)
def test_wrong_ratings_are_said_and_not_stored(
    machine: Machine, skill: str, arguments: tuple[str, ...], word: str
) -> None:
    result = machine.command("ratings", "add", skill, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert word in result.stderr and "\x1b" not in result.stderr
    assert machine.sql("SELECT * FROM skill_rating") == []


def test_an_unknown_skill_needs_force(machine: Machine, skill: str) -> None:
    result = machine.command("ratings", "add", "nobody's", "4")
    assert result.returncode == 1 and "--force" in result.stderr
    forced = machine.command("ratings", "add", "nobody's", "4", "--force", "--json")
    assert document(forced)["success"] and "warning: no skill" in forced.stderr


def test_untrusted_text_cannot_control_the_terminal(machine: Machine, skill: str) -> None:
    machine.sql(
        "INSERT INTO skill_rating (skill_id, user_id, rating, review) VALUES ('a\x1b[1m', 'b\x07', 3, '\x1b[2J')"
    )
    for command in (("list",), ("show", "1"), ("failed",)):
        assert not {"\x1b", "\x07"} & set(machine.command("ratings", *command).stdout)


def test_sync_all_does_both(machine: Machine, skill: str) -> None:
    machine.command("ratings", "add", skill, "4", "--user", "ann")
    whole = document(machine.command("sync", "all", "--json"))
    assert whole.keys() == {"success", "status", "skills", "ratings"}
    assert (whole["success"], whole["status"], whole["skills"]["skills_synced"]) == (True, "success", 60)
    assert (whole["ratings"].keys(), whole["ratings"]["uploaded"]) == (KEYS, 1)
    machine.sandbox.fault("error", endpoint="ratings", status=400)
    machine.command("ratings", "add", skill, "5", "--user", "bob")
    partly = document(machine.command("sync", "all", "--json"), 1)
    assert (partly["success"], partly["status"], partly["skills"]["success"]) == (False, "partial", True)
    refused = document(machine.command("sync", "all", "--json", ATOM_SAAS_API_TOKEN="at_saas_" + "x" * 32), 77)
    assert (refused["status"], refused["ratings"]["status"]) == ("failed", "skipped")


def test_the_worse_of_two_failures_is_the_one_error(machine: Machine, skill: str) -> None:
    machine.command("ratings", "add", skill, "4")
    machine.sandbox.fault("error", endpoint="ratings", status=422)
    machine.sandbox.fault("error", endpoint="list", status=404)
    result = machine.hurried("sync", "all")
    assert result.returncode == 65
    errors = [line for line in result.stderr.splitlines() if line.startswith("atom-sync:")]
    assert len(errors) == 1
    assert "could not fetch page 1" in errors[0]
    assert "ratings: a rating was refused" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [((), {"ATOM_SAAS_ENABLED": "false"}), (("--scheduled",), {"ENABLE_SCHEDULER": "false"})],
)
def test_runs_that_are_not_to_be_are_skipped(
    machine: Machine, skill: str, arguments: tuple[str, ...], variables: dict[str, str]
) -> None:
    found = document(machine.command("sync", "ratings", "--json", *arguments, **variables))
    assert (set(found), found["success"], found["status"]) == (KEYS, True, "skipped")
    assert document(machine.command("sync", "all", "--json", *arguments, **variables))["status"] == "skipped"


def test_hashed_users(machine: Machine, skill: str) -> None:
    machine.command("ratings", "add", skill, "4", "--user", "ann")
    document(machine.command("sync", "ratings", "--json", ATOM_SYNC_HASH_USER_IDS="true"))
    [there] = machine.sandbox.ratings()
    assert len(there["user_id"]) == 64


def test_dry_run(machine: Machine, skill: str) -> None:
    machine.command("ratings", "add", skill, "4", "--user", "ann")
    found = document(machine.command("sync", "ratings", "--dry-run", "--json"))
    assert (found["dry_run"], found["plan"][0]["rating"], found["pending"]) == (True, 4, 1)
    assert "1 rating\n" in machine.command("sync", "ratings", "--dry-run").stdout
    assert machine.sandbox.ratings() == []


def test_a_rating_that_was_refused_once_shows_no_count_of_retries(machine: Machine) -> None:
    machine.command("sync", "skills")
    name = machine.sandbox.skill_ids()[0]
    machine.command("ratings", "add", name, "4", "--user", "me")
    machine.sandbox.fault("error", endpoint="ratings", status=422)
    assert machine.command("sync", "ratings").returncode == 1
    assert "5/5" not in machine.command("ratings", "failed").stdout
    shown = machine.command("ratings", "show", "1").stdout
    assert "state: failed" in shown
    assert "retry count" not in shown
